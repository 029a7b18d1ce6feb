"""`make resource` and `make field`. docs/add-a-resource.md describes both."""

import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mako.lookup import TemplateLookup  # type: ignore[import-untyped]
from mako.template import Template  # type: ignore[import-untyped]
from sqlmodel import SQLModel
from sqlmodel.main import default_registry

from app.settings import ROOT
from scaffold import edits
from scaffold.fields import FILTERS, Field, Target, member_name
from scaffold.grammar import parse_fields
from scaffold.migrations import migrated_changes
from scaffold.names import Names, Rejected, name_resource

TEMPLATES = Path(__file__).parent / "templates"
OPTIONS = {
    "resource": {"name", "fields", "plural", "owner", "dry"},
    "field": {"resource", "add", "dry"},
}


def main(arguments: Sequence[str]) -> None:
    for one in (signal.SIGTERM, signal.SIGHUP):  # undo the changes, as after Ctrl-C
        signal.signal(one, signal.default_int_handler)
    try:
        command, options = parse_arguments(arguments)
        if command == "resource":
            add_resource(options)
        else:
            add_field(options)
    except Rejected as reason:
        sys.exit(f"{reason}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. No file was changed.")


def parse_arguments(arguments: Sequence[str]) -> tuple[str, dict[str, str]]:
    if not arguments or arguments[0] not in OPTIONS:
        raise Rejected("Write `make resource` or `make field`.")
    command, *assignments = arguments
    options = dict.fromkeys(OPTIONS[command], "")
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in options:
            raise Rejected(f"{name} is unknown. The options are {', '.join(sorted(options))}.")
        options[name] = value.strip()
    return command, options


def add_resource(options: dict[str, str]) -> None:
    if options["owner"] not in {"", "none"}:
        raise Rejected("owner can only be none, for a resource that all users share.")
    if not options["name"]:
        raise Rejected('Give a name: make resource name=project fields="name:name"')
    targets = find_targets()
    names = name_resource(options["name"], options["plural"], owned=not options["owner"])
    fields = parse_fields(options["fields"], names, targets)
    suffixes = ("", "Create", "Update", "Query", "Read")
    check_types([f"{names.class_name}{suffix}" for suffix in suffixes], fields)
    with migrated_changes(f"add {names.labels}", dry=bool(options["dry"])) as files:
        for folder in ("app", "tests"):
            files.write(f"{folder}/{names.table}/__init__.py", "")
        for module in ("models", "schemas", "service", "router"):
            files.write(f"app/{names.table}/{module}.py", render(module, names, fields))
        files.write(f"tests/{names.table}/test_router.py", render("test_router", names, fields))
        scopes = files.read("app/auth/scopes.py")
        for right in ("read", "write"):
            line = f'    {names.constant}_{right.upper()} = "{names.table}:{right}"'
            scopes = edits.add_to_class(scopes, "Scope", line)
        files.write("app/auth/scopes.py", scopes)
        router = f"{names.table}_router"
        main = edits.add_router(files.read("app/main.py"), f"app.{names.table}.router", router)
        files.write("app/main.py", main)


def add_field(options: dict[str, str]) -> None:
    targets = find_targets()
    known = [one for one in targets if options["resource"] in {one.names.singular, one.names.table}]
    if not known or known[0].names.table == "users":
        others = ", ".join(one.names.singular for one in targets if one.names.table != "users")
        raise Rejected(
            f"{options['resource']!r} is not a resource that `make resource` generated. "
            f"Those are: {others or 'none'}."
        )
    if not options["add"]:
        raise Rejected('Give a field: make field resource=item add="archived:bool=false"')
    names = known[0].names
    fields = parse_fields(options["add"], names, targets)
    for field in fields:
        check_addition(field)
    check_types([], fields)
    columns = " and ".join(field.name for field in fields)
    with migrated_changes(f"add {columns} to {names.labels}", dry=bool(options["dry"])) as files:
        for module, edit in (
            (f"app/{names.table}/models.py", add_to_models),
            (f"app/{names.table}/schemas.py", add_to_schemas),
            (f"tests/{names.table}/test_router.py", add_to_tests),
        ):
            text = files.read(module)
            for field in fields:
                text = edit(text, names, field)
            rendered = render(Path(module).stem, names, fields)
            files.write(module, edits.add_imports(text, edits.imports_of(rendered)))


def check_types(types: Sequence[str], fields: Sequence[Field]) -> None:
    """Raises Rejected if a type has the name of another one. OpenAPI would rename both."""
    files = [*(ROOT / "app").glob("*/models.py"), *(ROOT / "app").glob("*/schemas.py")]
    text = "\n".join(file.read_text("utf-8") for file in files)
    taken = re.findall(r"^(?:class )?(\w+)(?:\(| = )", text, re.MULTILINE)
    own = [field.own_type for field in fields if field.kind == "enum" or field.definition]
    for one in (*types, *own):
        if one in taken:
            raise Rejected(f"The name of the type {one} is taken. Use another name.")


def check_addition(field: Field) -> None:
    if field.name in SQLModel.metadata.tables[field.resource.table].columns:
        raise Rejected(f"The table {field.resource.table} already has the column {field.name}.")
    if field.target or field.unique:
        raise Rejected(f"{field.label}: `make field` adds no references and no unique fields.")
    if field.default_code is None:
        raise Rejected(f"{field.name}: existing rows need a value. Add a default or ?.")


def add_to_models(text: str, names: Names, field: Field) -> str:
    if field.kind == "enum":
        members = [f'    {member_name(one)} = "{one}"' for one in field.members]
        enum = "\n".join([f"class {field.own_type}(StrEnum):", *members])
        text = edits.add_before_class(text, names.class_name, enum)
    line = f"    {field.in_table()}"
    return edits.add_to_class(text, names.class_name, line, before="created_at")


def add_to_schemas(text: str, names: Names, field: Field) -> str:
    if field.definition:
        text = edits.add_alias(text, field.definition)
    text = edits.add_to_class(text, f"{names.class_name}Create", f"    {field.in_create()}")
    text = edits.add_to_class(text, f"{names.class_name}Update", f"    {field.in_update()}")
    read = f"{names.class_name}Read"
    return edits.add_to_class(text, read, f"    {field.in_read()}", before="created_at")


def add_to_tests(text: str, names: Names, field: Field) -> str:
    new = f'"{field.name}": {field.new_code}'
    text = edits.add_to_collection(text, f"valid_{names.singular}", new)
    text = edits.add_to_collection(text, "CHANGES", f'"{field.name}": {field.values[1]!r}')
    invalid = [f'("{field.name}", {code})' for code in field.invalid]
    text = edits.add_to_collection(text, "INVALID", *invalid)
    template = TEMPLATES / "test_default.py.mako"
    valid = "await valid_{}(me)" if f"async def valid_{names.singular}(" in text else "valid_{}()"
    test = Template(template.read_text("utf-8"), strict_undefined=True)  # noqa: S702 - no HTML
    return text + str(test.render(names=names, field=field, valid=valid.format(names.singular)))


def render(module: str, names: Names, fields: Sequence[Field]) -> str:
    lookup = TemplateLookup([TEMPLATES], strict_undefined=True)
    text: str = lookup.get_template(f"{module}.py.mako").render(
        names=names,
        fields=fields,
        member_name=member_name,
        enums=[field for field in fields if field.kind == "enum"],
        filters=[field for field in fields if field.kind in FILTERS],
        references=[field for field in fields if field.target],
        checks_caller=any(field.target and field.target.owner for field in fields),
        searched=[field for field in fields if field.kind == "name"],
        uniques=[field for field in fields if field.unique],
    )
    return text


def find_targets() -> list[Target]:
    """The tables that a `ref` can name: users, and those of generated resources."""
    for file in sorted(ROOT.glob("app/*/models.py")):
        import_module(f"app.{file.parent.name}.models")
    targets = []
    for mapper in default_registry.mappers:
        module, model = mapper.class_.__module__, mapper.class_.__name__
        table = module.split(".")[1]
        singular = re.sub("(?<!^)(?=[A-Z])", "_", model).lower()
        tests = ROOT / f"tests/{table}/test_router.py"
        if mapper.class_.__tablename__ != table:
            continue
        if table == "users" or (
            tests.exists() and f"async def create_{singular}(" in tests.read_text("utf-8")
        ):
            owned = "user_id" in mapper.columns
            owner = "id" if table == "users" else "user_id" if owned else None
            targets.append(Target(Names(singular, table, owned), model, module, owner))
    return targets


if __name__ == "__main__":
    main(sys.argv[1:])
