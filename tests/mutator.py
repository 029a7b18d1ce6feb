"""Random mutants: small changes to the syntax tree of a file, most of which change what it does.

mutmut and cosmic-ray do not fit. mutmut leaves out decorated functions and all code outside of functions: the routes,
schemas and models. cosmic-ray removes no statements, calls or arguments.
"""

import ast
import copy
import difflib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
DOCUMENTATION = {"description", "examples", "help", "metavar"}  # arguments that only people read
REMOVABLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Raise, ast.If, ast.Delete)
NEEDS_NO_PARENTHESES = (ast.Name, ast.Attribute, ast.Call, ast.Constant, ast.Subscript, ast.List, ast.Dict, ast.Set)


class RandomMutant(NamedTuple):
    file: str
    lines: range  # that it changes
    text: str  # of the mutated file
    diff: str

    @property
    def change(self) -> str:
        """The diff without the numbers of lines."""
        return self.diff.partition("\n")[2]


class Edit(NamedTuple):
    start: tuple[int, int]  # line, offset in bytes
    end: tuple[int, int]
    new: str


def all_mutants(project: Path) -> list[RandomMutant]:
    """All mutants of the app, always in the same order."""
    files = sorted(file.relative_to(project).as_posix() for file in project.glob("app/**/*.py"))
    return [mutant for file in files for mutant in _mutants(file, (project / file).read_text("utf-8"))]


def _mutants(file: str, source: str) -> Iterator[RandomMutant]:
    encoded = source.encode()
    line_starts = [0, 0]
    for line in encoded.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))
    for node in _nodes(ast.parse(source)):
        for (first, offset), (last, end), new in _edits(node):
            text = encoded[: line_starts[first] + offset] + new.encode() + encoded[line_starts[last] + end :]
            if _compiles(text):
                yield RandomMutant(file, range(first, last + 1), text.decode(), _diff(source, text.decode()))


def _compiles(text: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            return bool(compile(text, "mutant", "exec"))
    except SyntaxError:
        return False


def _diff(old: str, new: str) -> str:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))
    return "\n".join(lines[2:])


def _nodes(tree: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """Not the parts of f-strings, whose positions are wrong before Python 3.12."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        are_type_arguments = isinstance(tree, ast.Subscript) and isinstance(node, ast.Tuple)
        if isinstance(node, ast.stmt | ast.expr) and not are_type_arguments:
            yield node
        yield from _nodes(node)


def _edits(node: ast.stmt | ast.expr) -> Iterator[Edit]:
    for new in _replacements(node):
        yield Edit((node.lineno, node.col_offset), _end(node), new)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _without_defaults(node.args)


def _end(node: ast.stmt | ast.expr | ast.arg) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def _without_defaults(arguments: ast.arguments) -> Iterator[Edit]:
    """Of positional arguments only the first, because those after it need their defaults."""
    positional = arguments.args[len(arguments.args) - len(arguments.defaults) :][:1]
    pairs = [*zip(positional, arguments.defaults, strict=False)]
    for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        if default:
            yield Edit(_end(argument), _end(default), "")


def _replacements(node: ast.stmt | ast.expr) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return None"
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield from (str(number + 1), str(number - 1))
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    yield _with_item(node, "ops", index, other())
        case ast.UnaryOp(op=ast.Not()):
            yield _in_parentheses(node.operand)
        case ast.BoolOp():
            other_operator = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"({ast.unparse(ast.BoolOp(other_operator, node.values))})"
        case ast.IfExp():
            yield ast.unparse(ast.IfExp(node.test, node.orelse, node.body))
        case ast.Tuple(ctx=ast.Load(), elts=[one, other_one]):
            yield f"({ast.unparse(other_one)}, {ast.unparse(one)})"
        case ast.Await():
            yield _in_parentheses(node.value)
        case ast.Call():
            yield from _calls(node)
    if isinstance(node, REMOVABLE):
        yield "pass"


def _calls(node: ast.Call) -> Iterator[str]:
    """Instead of the call, its first argument or the object whose method it calls. Without one keyword argument."""
    if ast.unparse(node.func) == "col":  # returns its argument; only type checkers need it
        return
    if node.args and not isinstance(node.args[0], ast.Starred):
        yield _in_parentheses(node.args[0])
    elif isinstance(node.func, ast.Attribute):
        yield _in_parentheses(node.func.value)
    for index, keyword in enumerate(node.keywords):
        if keyword.arg not in DOCUMENTATION:
            yield _with_item(node, "keywords", index)


def _with_item(node: ast.Compare | ast.Call, field: str, index: int, *new: ast.AST) -> str:
    changed = copy.deepcopy(node)
    getattr(changed, field)[index : index + 1] = new
    return ast.unparse(changed)


def _in_parentheses(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, NEEDS_NO_PARENTHESES) else f"({text})"
