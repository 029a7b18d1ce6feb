"""The grammar of fields, such as `budget:decimal(12,2)[0..]?`. Its functions raise Rejected."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

import pydantic
from pydantic import TypeAdapter, ValidationError

from app.core import types
from scaffold.fields import INT_LIMITS, KINDS, TEXTS, Bounds, Field, Target, member_name
from scaffold.names import Names, Rejected, check_field_name

FIELD = re.compile(
    r"(?P<name>\w+):(?P<kind>[a-z]+)(?:\((?P<arguments>[^()]*)\))?"
    r"(?P<marks>(?:[?!]|\[[^\[\]]*\])*)(?:=(?P<default>.*))?"
)
MEMBER = re.compile("[a-z][a-z0-9]*([_-][a-z0-9]+)*")
MAX_LENGTH = 50_000  # a body with a longer text exceeds REQUEST_BODY_LIMIT
MAX_DIGITS = 15  # SQLite stores a decimal as a float, which is exact up to here
MIN_UNIQUE = 10_000  # the tests need many values of a unique field
MAX_UNIQUE_LENGTH = 600  # PostgreSQL limits a row of an index to 2,704 bytes
MAX_SHOWN = 60  # characters, so that generated lines are short enough


def parse_fields(text: str, resource: Names, targets: Sequence[Target]) -> list[Field]:
    fields = [parse_field(one, resource, targets) for one in split(text)]
    if not fields:
        raise Rejected("fields is empty. Give at least one field, for example name:name.")
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise Rejected(f"Two fields have the name {name}.")
    return fields


def split(text: str) -> list[str]:
    """At spaces, but not inside parentheses."""
    return re.findall(r"(?:\([^()]*\)|\S)+", text)


def parse_field(text: str, resource: Names, targets: Sequence[Target]) -> Field:
    found = FIELD.fullmatch(text)
    if found is None:
        raise Rejected(f"{text} is not a field. Write name:type, for example due:date?")
    name, kind, default = found["name"], found["kind"], found["default"]
    if kind not in KINDS:
        raise Rejected(f"{name}: {kind} is not a type. The types are {', '.join(KINDS)}.")
    column = f"{name}_id" if kind == "ref" else name
    check_field_name(column)
    marks = re.sub(r"\[.*?\]", "[", found["marks"]) + ("" if default is None else "=")
    check_marks(name, kind, marks)
    field = Field(resource, column, kind, optional="?" in marks, unique="!" in marks)
    arguments = found["arguments"]
    if kind in {"decimal", "enum", "ref"}:
        field = ARGUMENTS[kind](field, arguments, targets)
    elif arguments is not None:
        raise Rejected(f"{name}: {kind} takes no arguments in parentheses.")
    if "[" in marks:
        field = replace(field, bounds=parse_bounds(field, *re.findall(r"\[(.*)\]", text)))
    if field.unique:
        check_number_of_values(field)
    if default is not None:
        field = replace(field, default=parse_default(field, default))
    return field


def check_marks(name: str, kind: str, marks: str) -> None:
    for mark, problem in (
        ("!", "cannot be unique"),
        ("[", "takes no bounds"),
        ("=", "takes no default"),
    ):
        if mark in marks and mark not in KINDS[kind].marks:
            raise Rejected(f"{name}: {kind} {problem}.")
    if len({*marks}) < len(marks):
        raise Rejected(f"{name}: give ?, ! and the bounds only once.")
    if "=" in marks and {*"?!"} & {*marks}:
        raise Rejected(f"{name}: an optional or unique field takes no default.")


def parse_digits(field: Field, arguments: str | None, _: Sequence[Target]) -> Field:
    if arguments is None:
        return field
    found = re.fullmatch(r"(\d{1,3}) *, *(\d{1,3})", arguments)
    total, places = (int(one) for one in found.groups()) if found else (0, 0)
    if not (1 <= total <= MAX_DIGITS and places <= total):
        raise Rejected(
            f"{field.name}: write decimal(p,s) with at most {MAX_DIGITS} digits, s of them after "
            "the point. SQLite is not exact beyond that."
        )
    return replace(field, digits=(total, places))


def parse_members(field: Field, arguments: str | None, _: Sequence[Target]) -> Field:
    members = tuple(one.strip() for one in (arguments or "").split(","))
    are_valid = all(MEMBER.fullmatch(one) and len(one) <= 30 for one in members)
    if not are_valid or len({*map(member_name, members)}) < max(len(members), 2):
        raise Rejected(
            f"{field.name}: write enum(a,b) with two or more different values of up to 30 "
            "lower-case letters, digits, - and _."
        )
    return replace(field, members=members)


def find_target(field: Field, arguments: str | None, targets: Sequence[Target]) -> Field:
    for target in targets:
        if arguments in {target.names.singular, target.names.table}:
            return replace(field, target=target)
    known = ", ".join(sorted(target.names.singular for target in targets))
    raise Rejected(f"{field.label}: ref({arguments or ''}) is unknown. Choose one of: {known}.")


ARGUMENTS: dict[str, Callable[[Field, str | None, Sequence[Target]], Field]] = {
    "decimal": parse_digits,
    "enum": parse_members,
    "ref": find_target,
}


def parse_bounds(field: Field, text: str) -> Bounds:
    ends = text.split("..")
    if len(ends) != 2 or ends == ["", ""]:
        raise Rejected(f"{field.name}: write bounds as [1..9], [1..] or [..9].")
    low, high = (parse_number(field, one) if one else None for one in ends)
    lowest, highest = limits(field)
    if field.kind in TEXTS:
        if high is None:
            highest = KINDS[field.kind].max_length
        if low is not None and low > MAX_SHOWN:
            raise Rejected(
                f"{field.name}: the minimum can be at most {MAX_SHOWN}. Change it afterwards."
            )
    is_outside = any(one is not None and not lowest <= one <= highest for one in (low, high))
    if is_outside or (low if low is not None else lowest) >= (
        high if high is not None else highest
    ):
        raise Rejected(
            f"{field.name}: the bounds [{text}] must be increasing, and be between {lowest} and "
            f"{highest}."
        )
    return low, high


def parse_number(field: Field, text: str) -> int | float | Decimal:
    """Of the type of the field. The bounds of a text are lengths."""
    places = field.digits[1] if field.kind == "decimal" else 30 if field.kind == "float" else 0
    if not re.fullmatch(rf"-?\d+(\.\d{{1,{places}}})?" if places else r"-?\d+", text, re.ASCII):
        raise Rejected(f"{field.name}: {text} is not a number of the type {field.kind}.")
    if field.kind == "decimal":
        return Decimal(text).quantize(Decimal(1).scaleb(-places))
    return float(text) if field.kind == "float" else int(text)


def limits(field: Field) -> tuple[Any, Any]:  # Any: numbers
    if field.kind in TEXTS:
        return 0, MAX_LENGTH
    if field.kind == "decimal":
        total, places = field.digits
        highest = Decimal(10**total - 1).scaleb(-places)
        return -highest, highest
    return INT_LIMITS if field.kind == "int" else (1 - 2.0**53, 2.0**53 - 1)


def check_number_of_values(field: Field) -> None:
    low, high = field.bounds
    if field.kind == "int":
        number = (high if high is not None else INT_LIMITS[1]) - (low or 0)
    else:
        number = 10 ** (high or 100) if field.kind in {"name", "line"} else MIN_UNIQUE
        if field.kind in {"name", "line"} and (high or 0) > MAX_UNIQUE_LENGTH:
            raise Rejected(
                f"{field.name}: a unique text can have at most {MAX_UNIQUE_LENGTH} characters."
            )
    if number < MIN_UNIQUE:
        raise Rejected(f"{field.name}: the bounds of a unique field must allow 10,000 values.")


def parse_default(field: Field, text: str) -> object:
    value: object = text
    if len(text) > MAX_SHOWN:
        raise Rejected(
            f"{field.name}: a default can have at most {MAX_SHOWN} characters. Change it "
            "afterwards."
        )
    if field.kind == "enum":
        if text not in field.members:
            raise Rejected(f"{field.name}: the default {text} is not one of its values.")
        return text
    if field.kind == "bool":
        value = {"true": True, "false": False}.get(text.lower())
    elif field.kind in {"int", "float", "decimal"}:
        value = parse_number(field, text)
    try:
        default: object = TypeAdapter(annotation_of(field)).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Rejected(f"{field.name}: the default {text} is invalid. {reason}.") from None
    return default


def annotation_of(field: Field) -> Any:  # Any: a type
    low, high = field.bounds
    if field.kind == "decimal":
        return Annotated[Decimal, types.Digits(*field.digits, ge=low, le=high)]
    if field.kind in TEXTS:
        own = getattr(types, KINDS[field.kind].schema)
        return Annotated[own, pydantic.Field(min_length=low, max_length=field.max_length)]
    own = {"int": types.Int32, "float": types.Number, "bool": pydantic.StrictBool}[field.kind]
    return Annotated[own, pydantic.Field(ge=low, le=high)]
