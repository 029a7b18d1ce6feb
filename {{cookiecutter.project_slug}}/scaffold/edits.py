"""Changes of files that can be undone, and places in Python code, which `ast` finds."""

import ast
import shutil
from collections.abc import Iterable
from difflib import unified_diff
from itertools import takewhile
from pathlib import Path


class Files:
    """Files that are changed, and their previous texts. None stands for a file that was new."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before: dict[Path, str | None] = {}

    def read(self, name: str) -> str:
        """Raises LookupError."""
        try:
            return read_exactly(self.root / name)
        except FileNotFoundError:
            raise LookupError(name) from None

    def write(self, name: str | Path, text: str) -> None:
        path = self.root / name
        self.before.setdefault(path, read_exactly(path) if path.exists() else None)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

    def undo(self) -> None:
        for path, text in self.before.items():
            if text is not None:
                path.write_bytes(text.encode())
            elif path.name == "__init__.py":  # the package is new, with all that is in it
                shutil.rmtree(path.parent, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def diff(self) -> str:
        lines: list[str] = []
        for path, text in self.before.items():
            name = path.relative_to(self.root).as_posix()
            before, after = (
                (one or "").splitlines(True) for one in (text, path.read_text("utf-8"))
            )
            from_name = "/dev/null" if text is None else f"a/{name}"
            lines += unified_diff(before, after, from_name, f"b/{name}")
        return "".join(lines)


def read_exactly(path: Path) -> str:
    """With the ends of its lines."""
    return path.read_bytes().decode()


def insert(text: str, line: int, *new: str) -> str:
    """Insert lines after the line of that number."""
    lines = text.splitlines()
    return "\n".join([*lines[:line], *new, *lines[line:]]) + "\n"


def add_imports(text: str, statements: Iterable[str]) -> str:
    """After the last import before the first function or class. ruff sorts and merges them."""
    first = takewhile(lambda node: not is_definition(node), ast.parse(text).body)
    last = max((node.end_lineno or 0 for node in first if is_import(node)), default=0)
    return insert(text, last, *statements)


def imports_of(text: str) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(text).body if is_import(node)]


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def is_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def find_class(text: str, name: str) -> ast.ClassDef:
    """Raises LookupError."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"class {name}")


def add_to_class(text: str, name: str, line: str, *, before: str | None = None) -> str:
    """As the last field of a class, or as the field before another one. Raises LookupError."""
    fields = [
        node for node in find_class(text, name).body if isinstance(node, ast.Assign | ast.AnnAssign)
    ]
    for node in fields:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == before:
            return insert(text, node.lineno - 1, line)
    if before or not fields:
        raise LookupError(f"{name}.{before}" if before else f"a field of {name}")
    return insert(text, fields[-1].end_lineno or 0, line)


def add_before_class(text: str, name: str, code: str) -> str:
    """Raises LookupError."""
    return insert(text, find_class(text, name).lineno - 1, code, "", "")


def add_alias(text: str, code: str) -> str:
    """After the imports and the other names that the module assigns."""
    body = ast.parse(text).body
    last = max(
        node.end_lineno or 0 for node in body if is_import(node) or isinstance(node, ast.Assign)
    )
    return insert(text, last, code)


def add_to_collection(text: str, name: str, *items: str) -> str:
    """Add items to the list or dict that a module assigns to a name, or that a function returns.

    Raises LookupError.
    """
    for node in ast.parse(text).body:
        value = collection_of(node, name)
        if isinstance(value, ast.Dict | ast.List):
            lines = text.splitlines(True)
            end_line = lines[(value.end_lineno or 0) - 1].encode()
            end = sum(map(len, lines[: (value.end_lineno or 0) - 1]))
            end += len(end_line[: (value.end_col_offset or 0) - 1].decode())
            start = text[:end].rstrip()
            comma = "" if start.endswith((",", "{", "[")) else ", "
            return f"{start}{comma}{', '.join(items)}{text[end:]}"
    raise LookupError(name)


def collection_of(node: ast.stmt, name: str) -> ast.expr | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
            return node.value if found == name else None
        case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) if found == name:
            returned = node.body[-1]
            return returned.value if isinstance(returned, ast.Return) else None
    return None


def add_router(text: str, module: str, alias: str) -> str:
    """Import a router in app/main.py, and include it after the last one. Raises LookupError."""
    calls = [
        node
        for function in ast.parse(text).body
        if isinstance(function, ast.FunctionDef) and function.name == "create_app"
        for node in function.body
        if ast.unparse(node).startswith("app.include_router(")
    ]
    if not calls:
        raise LookupError("app.include_router(…) in create_app")
    last = calls[-1]
    line = f"{' ' * last.col_offset}app.include_router({alias})"
    text = insert(text, last.end_lineno or 0, line)
    return add_imports(text, [f"from {module} import router as {alias}"])
