import ast
import re
from decimal import Decimal
from pathlib import Path

import pytest

from scaffold import edits, names
from scaffold.__main__ import find_targets, parse_arguments, render
from scaffold.fields import KINDS, Field
from scaffold.grammar import parse_fields
from scaffold.names import Names, Rejected, name_resource, pluralize

NAMES = Names("zebra", "zebras")
EVERY_KIND = " ".join(
    f"{kind}_of_zebra:{kind}{'(a,b)' if kind == 'enum' else '(user)' if kind == 'ref' else ''}"
    for kind in KINDS
)


def parse(text: str) -> list[Field]:
    return parse_fields(text, NAMES, find_targets())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "fields is empty"),
        ("size", "size is not a field"),
        ("size:big", "big is not a type"),
        ("size:int size:line", "Two fields have the name size"),
        ("id:uuid", "is a column of every resource"),
        ("user:ref(user)", "is a column of every resource"),
        ("owner_id:int", "is a column of every resource"),
        ("class:line", "is a keyword"),
        ("input:line", "is a builtin"),
        ("order:int", "is a reserved word of SQL"),
        ("Size:int", "is not a name"),
        ("size_1:int", "a digit cannot follow _"),
        ("copy:bool", "is a name that the generated code uses"),
        ("limit:bool", "reserved word"),
        ("registry:line", "is a name that the generated code uses"),
        ("cls:int", "is a name that the generated code uses"),
        ("utc_now:moment?", "is a name that the generated code uses"),
        ("xmin:int", "is a column of every table of PostgreSQL"),
        ("of:ref(dragon)", r"ref\(dragon\) is unknown"),
        ("of:ref", r"ref\(\) is unknown"),
        ("size:int(3)", "takes no arguments"),
        ("size:int??", "only once"),
        ("size:int?=3", "takes no default"),
        ("size:int!=3", "takes no default"),
        ("size:bool!", "cannot be unique"),
        ("size:email[3..]", "takes no bounds"),
        ("size:date=2030-01-01", "takes no default"),
        ("size:int[3]", "write bounds as"),
        ("size:int[..]", "write bounds as"),
        ("size:int[9..3]", "must be increasing"),
        ("size:int[0..3000000000]", "be between"),
        ("size:int[a..]", "is not a number"),
        ("size:line[-1..5]", "be between"),
        ("size:name[40..30]", "must be increasing"),
        ("size:text[61..]", "the minimum can be at most 60"),
        ("size:line![..601]", "at most 600 characters"),
        ("size:float[..1e300]", "is not a number"),
        ("size:float[..9007199254740992]", "be between"),
        ("size:float[-9007199254740992..]", "be between"),
        ("size:int![0..9]", "must allow 10,000 values"),
        ("size:decimal(20,2)", "at most 15 digits"),
        ("size:decimal(2,3)", "at most 15 digits"),
        ("size:decimal(4,2)[0..100]", "be between"),
        ("size:enum", "two or more different values"),
        (f"size:enum(a,{'b' * 31})", "two or more different values of up to 30"),
        ("size:enum(a)", "two or more different values"),
        ("size:enum(a,a)", "two or more different values"),
        ("size:enum(a-b,a_b)", "two or more different values"),
        ("size:enum(a,B)", "two or more different values"),
        ("size:enum(a,b)=c", "is not one of its values"),
        ("size:int=a", "is not a number"),
        ("size:int=1.5", "is not a number"),
        ("size:int[0..5]=9", "the default 9 is invalid"),
        ("size:decimal(4,2)=1.234", "is not a number"),
        ("size:bool=maybe", "the default maybe is invalid"),
        ("size:name=", "the default  is invalid"),
        ("size:line[..3]=four", "the default four is invalid"),
        ("size:email=ada", "the default ada is invalid"),
        (f"size:line={'x' * 61}", "a default can have at most 60 characters"),
    ],
)
def test_an_invalid_field_is_rejected(text: str, problem: str) -> None:
    with pytest.raises(Rejected, match=problem):
        parse(text)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is not a name"),
        ("2nd", "is not a name"),
        ("a-b", "is not a name"),
        ("Zebra", "is not a name"),
        ("a__b", "is not a name"),
        ("z" * 25, "is too long"),
        ("l", "ruff rejects the name l"),
        ("import", "is a keyword"),
        ("list", "is a builtin"),
        ("order", "is a reserved word of SQL"),
        ("core", "is already a module in app"),
        ("audit", "is already a module in app"),
        ("setting", "is already a module in app"),
        ("session", "the generated code uses"),
        ("admin", "the generated code uses"),
        ("plan_2", "a digit cannot follow _"),
        ("pg_table", "belong to PostgreSQL"),
        ("audit_event", "The table audit_events already exists"),
    ],
)
def test_an_invalid_name_is_rejected(name: str, problem: str) -> None:
    with pytest.raises(Rejected, match=problem):
        name_resource(name, "", owned=True)


def test_a_folder_without_modules_does_not_reserve_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("app", "tests"):
        (tmp_path / folder / "zebras" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(names, "ROOT", tmp_path)
    assert name_resource("zebra", "", owned=True).table == "zebras"


def test_the_plural_is_derived_or_given() -> None:
    words = ("city", "box", "key", "address", "dish", "zebra")
    plurals = ["cities", "boxes", "keys", "addresses", "dishes", "zebras"]
    assert [*map(pluralize, words)] == plurals
    assert name_resource("person", "people", owned=True).table == "people"
    with pytest.raises(Rejected, match="must differ"):
        name_resource("sheep", "sheep", owned=True)
    with pytest.raises(Rejected, match="already has the function create_api_key"):
        name_resource("api_key", "tokens", owned=True)
    with pytest.raises(Rejected, match="The table alembic_version already exists"):
        name_resource("version", "alembic_version", owned=True)


def test_marks_bounds_and_default_are_parsed() -> None:
    code, budget, state = parse("code:name![3..20] budget:decimal(6,2)[0..]=5 state:enum(a, b)?")
    assert (code.unique, code.optional, code.bounds) == (True, False, (3, 20))
    assert (budget.digits, budget.bounds[0]) == ((6, 2), Decimal("0.00"))
    assert budget.default_code == 'Decimal("5.00")'
    assert (state.optional, state.members) == (True, ("a", "b"))


def test_a_decimal_has_no_exponent() -> None:
    [amount] = parse("amount:decimal(12,8)[0..]")
    assert amount.values == ("0.00000000", "0.00000001")
    assert amount.in_read() == "amount: DecimalText = Field(examples=['0.00000000'])"
    [count] = parse("count_of:decimal(5,0)=3")
    assert count.default_code == "Decimal(3)"


@pytest.mark.parametrize(
    ("name", "article"),
    [("hour", "an"), ("one_time_code", "a"), ("user_file", "a"), ("umbrella", "an"), ("euro", "a")],
)
def test_the_article_is_english(name: str, article: str) -> None:
    assert Names(name, f"{name}s").a_label == f"{article} {name.replace('_', ' ')}"


MAIN = """
from app import a

def create_app():
    app.include_router(a)
    if True:
        app.include_router(b)

def other():
    app.include_router(c)

import late
"""


def test_a_router_is_added_to_create_app() -> None:
    lines = edits.add_router(MAIN, "app.zebras.router", "zebras").splitlines()
    assert lines[1:3] == ["from app import a", "from app.zebras.router import router as zebras"]
    assert lines[6] == "    app.include_router(zebras)"
    with pytest.raises(LookupError):
        edits.add_router("def create_app():\n    pass\n", "x", "x")


def test_changes_are_undone_byte_by_byte(tmp_path: Path) -> None:
    old = tmp_path / "old.py"
    old.write_bytes(b"a\r\nb\r\n")
    files = edits.Files(tmp_path)
    files.write("old.py", "c\n")
    files.write("new/__init__.py", "")
    files.undo()
    assert old.read_bytes() == b"a\r\nb\r\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["models", "schemas", "service", "router", "test_router"])
def test_no_resource_can_have_a_name_that_the_code_uses(module: str) -> None:
    used = {"me"}
    for node in ast.walk(ast.parse(render(module, NAMES, parse(EVERY_KIND)))):
        match node:
            case ast.alias(name=name, asname=_) | ast.arg(arg=name):
                used.add(name)
            case ast.Name(id=name, ctx=ast.Store()) if module != "test_router":
                used.add(name)
    for name in {re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", one).lower() for one in used}:
        if "zebra" not in name and len(name) > 1:  # not a field
            with pytest.raises(Rejected):
                name_resource(name, f"{name}_plural", owned=True)


@pytest.mark.parametrize("arguments", [[], ["table"], ["resource", "size=3"]])
def test_an_unknown_command_or_option_is_rejected(arguments: list[str]) -> None:
    with pytest.raises(Rejected):
        parse_arguments(arguments)
