"""What each field becomes in the table, in requests and responses, and in the tests."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from scaffold.names import Names, camel_case

INT_LIMITS = (-(2**31), 2**31 - 1)

Bounds = tuple[Any, Any]  # Any: int, float or Decimal; None has no limit


@dataclass(frozen=True)
class Kind:
    """A type of fields. `marks` are those that it accepts, of `[ ! =`."""

    column: str  # in the table and in responses
    schema: str  # in requests
    marks: str = ""
    values: tuple[object, object] = (None, None)  # two that are valid
    invalid: tuple[object, ...] = ()
    max_length: int | None = None


KINDS = {
    "name": Kind("str", "Name", "[!=", invalid=("", "two\nlines"), max_length=100),
    "line": Kind("str", "Line", "[!=", invalid=("two\nlines",), max_length=100),
    "text": Kind("str", "Text", "[=", invalid=("a\0b",), max_length=10_000),
    "email": Kind(
        "str", "Email", "!=", ("ada@example.com", "alan@example.com"), ("ada",), max_length=254
    ),
    "url": Kind(
        "str",
        "Url",
        "!=",
        ("https://example.com/a", "https://example.com/b?c=d"),
        ("ftp://example.com",),
        max_length=2_000,
    ),
    "int": Kind("int", "Int32", "[!=", (1, 2), (1.5, "1", True)),
    "float": Kind("float", "Number", "[=", (1.5, 2.5), ("1.5", True)),
    "decimal": Kind("Decimal", "Decimal", "[=", invalid=(1.5, "1e2")),
    "bool": Kind("bool", "StrictBool", "=", (True, False), ("yes", 1)),
    "date": Kind("date", "Day", "", ("2030-01-31", "2031-02-28"), ("2030-02-30", 0)),
    "moment": Kind(
        "datetime",
        "Moment",
        "",
        ("2030-01-31T12:00:00Z", "2031-02-28T00:00:00.500000Z"),
        ("2030-01-31T12:00:00", 0),
    ),
    "uuid": Kind(
        "UUID",
        "UUID",
        "!",
        ("a3b8d425-2b60-4ad7-becc-bedf2ef860bd", "0fce98ac-1326-4c79-8ebc-94908da8b034"),
        ("a3b8d425", 1),
    ),
    "json": Kind(
        "dict[str, JsonValue]",
        "JsonObject",
        "",
        ({"color": "red"}, {"sizes": [1, 2.5, None]}),
        ([], {"color": "\0"}),
    ),
    "enum": Kind("", "", "=", invalid=("unknown",)),
    "ref": Kind("UUID", "UUID", invalid=("a3b8d425", 1)),
}
TEXTS = {"name", "line", "text", "email", "url"}
WITHOUT_EXAMPLES = {"bool", "enum", "uuid", "ref"}
FILTERS = {"bool", "enum", "ref"}


@dataclass(frozen=True)
class Target:
    """The table of a `ref`. `owner` is its column that holds the owner's id, if it has one."""

    names: Names
    model: str
    module: str
    owner: str | None


@dataclass(frozen=True)
class Field:
    resource: Names
    name: str  # of the column
    kind: str
    optional: bool = False
    unique: bool = False
    bounds: Bounds = (None, None)
    digits: tuple[int, int] = (12, 2)
    members: tuple[str, ...] = ()
    target: Target | None = None
    default: object = None

    @property
    def label(self) -> str:
        return self.name.removesuffix("_id" if self.kind == "ref" else "").replace("_", " ")

    @property
    def own_type(self) -> str:
        """The name of the enum or of the bounded number."""
        return self.resource.class_name + camel_case(self.name)

    @property
    def definition(self) -> str | None:
        """Of `own_type` in the schemas."""
        low, high = self.bounds
        if self.kind == "int" and self.bounds != (None, None):
            ends = (
                "-(2**31)" if low is None else f"{low}",
                "2**31 - 1" if high is None else f"{high}",
            )
            return f"{self.own_type} = Annotated[Integer, Range({', '.join(ends)})]"
        if self.kind == "decimal":
            total, places = self.digits
            ge = "" if low is None else f", ge={decimal_code(low)}"
            le = "" if high is None else f", le={decimal_code(high)}"
            return f"{self.own_type} = Annotated[Decimal, Digits({total}, {places}{ge}{le})]"
        return None

    @property
    def column_type(self) -> str:
        column = self.own_type if self.kind == "enum" else KINDS[self.kind].column
        return f"{column} | None" if self.optional else column

    @property
    def schema_type(self) -> str:
        is_own = self.kind == "enum" or self.definition
        schema = self.own_type if is_own else KINDS[self.kind].schema
        return f"{schema} | None" if self.optional else schema

    @property
    def default_code(self) -> str | None:
        if self.kind == "enum" and self.default is not None:
            return f"{self.own_type}.{member_name(str(self.default))}"
        if isinstance(self.default, Decimal):
            return decimal_code(self.default)
        if self.default is None and not self.optional:
            return None
        return repr(self.default)

    @property
    def max_length(self) -> int | None:
        length = KINDS[self.kind].max_length
        return length if self.kind not in TEXTS else self.bounds[1] or length

    @property
    def values(self) -> tuple[Any, Any]:  # Any: JSON
        """Two valid values, as JSON."""
        low, high = self.bounds
        if self.kind in {"name", "line", "text"}:
            noun = self.resource.label if self.name == "name" else self.label
            return self._fitting(f"Example {noun}"), self._fitting(f"Another {noun}")
        if self.kind == "decimal":
            step = Decimal(1).scaleb(-self.digits[1])
            one, other = _within(low, high, step, Decimal("12.5").min(_largest(*self.digits)))
            return f"{one.quantize(step):f}", f"{other.quantize(step):f}"
        if self.kind == "enum":
            return self.members[0], self.members[-1]
        if self.bounds == (None, None):
            return KINDS[self.kind].values
        return _within(low, high, 1, KINDS[self.kind].values[0])

    def _fitting(self, text: str) -> str:
        return text[: self.max_length].rstrip().ljust(self.bounds[0] or 1, text[0])

    @property
    def unlike(self) -> str:
        """A name that has nothing in common with the first value."""
        low, high = self.bounds
        return "~" * max(low or 1, min(high or 4, 4))

    @property
    def default_json(self) -> object:
        return f"{self.default:f}" if isinstance(self.default, Decimal) else self.default

    @property
    def invalid(self) -> list[str]:
        """Values that a request cannot have, as Python code."""
        low, high = self.bounds
        found = [repr(value) for value in KINDS[self.kind].invalid]
        if not self.optional:
            found.append("None")
        if self.kind in TEXTS:
            found += [repr("a\0b")] if repr("a\0b") not in found else []
            found += [f'"x" * {low - 1}'] if low and low > 1 else []
            if self.max_length and self.kind not in {"email", "url"}:
                found.append(f'"x" * {self.max_length + 1}')
        elif self.kind == "decimal":
            step = Decimal(1).scaleb(-self.digits[1])
            found.append(repr(f"{step / 10:f}"))
            found.append(repr(str(10 ** (self.digits[0] - self.digits[1]))))
            found += [
                repr(f"{end:f}")
                for end in (low is not None and low - step, high is not None and high + step)
                if end is not False
            ]
        else:
            limits = INT_LIMITS if self.kind == "int" else (None, None)
            ends = [low if low is not None else limits[0], high if high is not None else limits[1]]
            found += [
                repr(end + step) for end, step in zip(ends, (-1, 1), strict=True) if end is not None
            ]
        return found

    @property
    def new_code(self) -> str:
        """A valid value for the body of a POST, as Python code."""
        low, high = self.bounds
        if self.target:
            is_user = self.target.names.table == "users"
            return (
                "str(me.user.id)"
                if is_user
                else f'(await create_{self.target.names.singular}(me))["id"]'
            )
        if not self.unique:
            return repr(self.values[0])
        return {
            "email": 'f"{next(NUMBERS)}@example.com"',
            "url": 'f"https://example.com/{next(NUMBERS)}"',
            "int": f"{low} + next(NUMBERS)" if low is not None else "next(NUMBERS)",
            "uuid": "str(uuid4())",
        }.get(self.kind, f'f"{{next(NUMBERS):0{max(low or 0, min(high or 6, 6))}}}"')

    def in_table(self) -> str:
        options: dict[str, str] = {}
        if self.default_code is not None:
            options["default"] = self.default_code
        if self.max_length:
            options["max_length"] = (
                f"{self.max_length:_}" if self.max_length > 9999 else f"{self.max_length}"
            )
        if self.kind == "decimal":
            options["max_digits"], options["decimal_places"] = map(str, self.digits)
        if self.target:
            options["foreign_key"] = f'"{self.target.names.table}.id"'
            options["ondelete"] = '"SET NULL"' if self.optional else '"CASCADE"'
        if self.kind == "json":
            options["sa_column"] = (
                "Column(JSON(none_as_null=True))"
                if self.optional
                else "Column(JSON, nullable=False)"
            )
        if self.unique and not self.resource.owned:
            options["unique"] = "True"
        return declare(self.name, self.column_type, options)

    def in_create(self) -> str:
        options = {} if self.default_code is None else {"default": self.default_code}
        return declare(self.name, self.schema_type, options | self._limits() | self._examples(0))

    def in_update(self) -> str:
        options = {"default": "None" if self.optional else "UNSET"}
        return declare(self.name, self.schema_type, options | self._limits() | self._examples(1))

    def in_read(self) -> str:
        column = self.column_type
        if self.kind == "decimal":
            column = column.replace("Decimal", "DecimalText")
        return declare(self.name, column, self._examples(0))

    def in_query(self) -> str:
        schema = "bool" if self.kind == "bool" else self.schema_type.removesuffix(" | None")
        return f"{self.name}: {schema} | None = None"

    def _limits(self) -> dict[str, str]:
        names = {"float": ("ge", "le")}.get(self.kind, ("min_length", "max_length"))
        if self.kind not in TEXTS | {"float"}:
            return {}
        ends = zip(names, self.bounds, strict=True)
        return {name: f"{end}" for name, end in ends if end is not None}

    def _examples(self, number: int) -> dict[str, str]:
        if self.kind in WITHOUT_EXAMPLES:
            return {}
        return {"examples": f"[{self.values[number]!r}]"}


def declare(name: str, annotation: str, options: dict[str, str]) -> str:
    if not options:
        return f"{name}: {annotation}"
    if options.keys() == {"default"}:
        return f"{name}: {annotation} = {options['default']}"
    arguments = ", ".join(f"{option}={code}" for option, code in options.items())
    return f"{name}: {annotation} = Field({arguments})"


def decimal_code(number: Decimal) -> str:
    text = f"{number:f}"
    return f'Decimal("{text}")' if "." in text else f"Decimal({text})"


def member_name(member: str) -> str:
    return member.upper().replace("-", "_")


def _within(low: Any, high: Any, step: Any, usual: Any) -> tuple[Any, Any]:  # Any: numbers
    if low is not None:
        return low, low + step if high is None else min(low + step, high)
    if high is not None:
        return high, high - step
    return usual, usual + step


def _largest(total: int, places: int) -> Decimal:
    return Decimal(10**total - 2).scaleb(-places)
