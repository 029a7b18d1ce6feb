"""The names of a resource, and the names that are rejected."""

import builtins
import keyword
import re
import sqlite3
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS
from sqlmodel import SQLModel

from app.settings import ROOT

MAX_NAME = 24  # PostgreSQL shortens the name of an index to 63 characters
# Columns of every resource, and names that its modules use for something else.
COLUMNS = {"id", "created_at", "updated_at", "owner_id", "user_id"}
USED_BY_FIELDS = {
    *("cls", "cursor", "date", "datetime", "limit", "me", "q", "query", "read", "registry"),
    *("unknown", "utc_now"),
}
SYSTEM_COLUMNS = {"tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"}  # of PostgreSQL
USED_BY_MODULES = frozenset(
    """
    admin admins annotated any apirouter as_user async_client async_session body caller changes
    col column conflict contains count created created_at date datetime day decimal decimal_text
    defaults depends digits email field from_row index int32 integer integrity_error invalid
    invalid_input json json_object json_value key_client line lock me method models moment name
    new not_found number numbers other others page page_query paginate path pytest query range
    reader request requires response router rows schemas scope select_of_scalar service session
    session_dep sqlmodel statement str_enum strict_bool text unique_constraint unset updated_at
    url user_id utc_now uuid uuid4 values writer
    """.split()  # noqa: SIM905 - a list would have a line for each name
)


class Rejected(Exception):
    """One sentence for the user. Nothing has been changed."""


@dataclass(frozen=True)
class Names:
    """Of a resource: `line_item` and `line_items`."""

    singular: str
    table: str
    owned: bool = True  # rows belong to a user

    @property
    def class_name(self) -> str:
        return camel_case(self.singular)

    @property
    def label(self) -> str:
        return self.singular.replace("_", " ")

    @property
    def labels(self) -> str:
        return self.table.replace("_", " ")

    @property
    def a_label(self) -> str:
        vowel = "(?!one(_|$))([aio]|e(?!u)|u(?!ni[^n]|s|ti|ri)|hour|hono|heir)"
        return f"{'an' if re.match(vowel, self.singular) else 'a'} {self.label}"

    @property
    def constant(self) -> str:
        return self.table.upper()

    @property
    def path(self) -> str:
        return f"/v1/{self.table.replace('_', '-')}"


def name_resource(singular: str, plural: str, *, owned: bool) -> Names:
    """Raises Rejected."""
    names = Names(singular, plural or pluralize(singular), owned)
    check_name(singular)
    check_name(names.table)
    if {singular, names.table} & USED_BY_MODULES:
        raise Rejected(f"{singular} is a name that the generated code uses. Use another name.")
    if singular == names.table:
        raise Rejected(f"The plural of {singular} must differ: add plural=…")
    for folder in ("app", "tests"):
        paths = (ROOT / folder).iterdir()
        modules = {path.stem for path in paths if path.suffix == ".py" or any(path.glob("*.py"))}
        if taken := {singular, names.table, f"test_{names.table}"} & modules:
            raise Rejected(f"{taken.pop()} is already a module in {folder}/. Use another name.")
    if names.table in {*SQLModel.metadata.tables, "alembic_version"}:
        raise Rejected(f"The table {names.table} already exists. Use another name.")
    functions = {f"{verb}_{singular}" for verb in ("create", "read", "update", "delete")}
    functions.add(f"list_{names.table}")
    for file in (ROOT / "app").glob("*/router.py"):
        if taken := functions & {*re.findall(r"def (\w+)", file.read_text("utf-8"))}:
            where = f"{file.parent.name}/router.py"
            raise Rejected(f"{where} already has the function {min(taken)}. Use another name.")
    if names.table.startswith("pg_"):
        raise Rejected(f"{names.table}: names with pg_ belong to PostgreSQL. Use another name.")
    return names


def camel_case(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def pluralize(singular: str) -> str:
    if re.search("[^aeiou]y$", singular):
        return f"{singular[:-1]}ies"
    return f"{singular}es" if re.search("(s|x|z|ch|sh)$", singular) else f"{singular}s"


def check_name(name: str) -> None:
    """Raises Rejected."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise Rejected(f"{name!r} is not a name. Use lower-case letters, digits and single _.")
    if re.search("_[0-9]", name):
        raise Rejected(f"{name}: a digit cannot follow _. Use another name.")
    if len(name) > MAX_NAME:
        raise Rejected(f"{name} is too long. The maximum is {MAX_NAME} characters.")
    if name == "l":
        raise Rejected("ruff rejects the name l. Use another name.")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Rejected(f"{name} is a keyword of Python. Use another name.")
    if hasattr(builtins, name):
        raise Rejected(f"{name} is a builtin of Python. Use another name.")
    if is_reserved_in_sql(name):
        raise Rejected(f"{name} is a reserved word of SQL. Use another name.")


def check_field_name(name: str) -> None:
    """Raises Rejected."""
    if name in COLUMNS:
        raise Rejected(f"{name} is a column of every resource. Use another name.")
    if name in SYSTEM_COLUMNS:
        raise Rejected(f"{name} is a column of every table of PostgreSQL. Use another name.")
    check_name(name)
    if name in USED_BY_FIELDS or hasattr(SQLModel, name) or name.startswith("model_"):
        raise Rejected(f"{name} is a name that the generated code uses. Use another name.")


def is_reserved_in_sql(name: str) -> bool:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"CREATE TABLE {name} ({name} int)")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return name in RESERVED_WORDS
