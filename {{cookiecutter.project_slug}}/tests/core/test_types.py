import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from app.api_keys.schemas import Network
from app.core.types import (
    Body,
    Day,
    Digits,
    Email,
    Int32,
    Integer,
    JsonObject,
    Line,
    Moment,
    Name,
    Number,
    RateLimit,
    Text,
    Url,
)

Price = Annotated[Decimal, Digits(6, 2, ge=Decimal("0.50"), le=Decimal(1000))]
Change = Annotated[Decimal, Digits(4, 0)]
Share = Annotated[Decimal, Digits(2, 2, ge=Decimal("-0.50"))]
DOMAIN = f"{'b' * 60}.{'c' * 60}.{'d' * 60}.example"


def nested(name: str, levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {name: value}
    return value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Email, "Ada.Lovelace+keys@Example.COM", "ada.lovelace+keys@example.com"),
        (Name, "my laptop", "my laptop"),
        (Line, "", ""),
        (Text, "two\nlines", "two\nlines"),
        (RateLimit, "600/minute", "600/minute"),
        (Integer, 60.0, 60),
        (Int32, -(2**31), -(2**31)),
        (Number, 1, 1.0),
        (Price, "12.5", Decimal("12.50")),
        (Price, Decimal("1E+2"), Decimal("100.00")),
        (Change, "-9999", Decimal(-9999)),
        (Share, "-0.25", Decimal("-0.25")),
        (Url, "https://example.com:8000/a?b=%20#c", "https://example.com:8000/a?b=%20#c"),
        (Url, f"https://example.com/{'a' * 1980}", f"https://example.com/{'a' * 1980}"),
        (Day, "2030-01-31", date(2030, 1, 31)),
        (Day, date(2030, 1, 31), date(2030, 1, 31)),
        (JsonObject, {"a": [1, None, {"b": 1.5}]}, {"a": [1, None, {"b": 1.5}]}),
        (JsonObject, nested("a", 100), nested("a", 100)),
        (Moment, datetime(2030, 1, 31, tzinfo=UTC), datetime(2030, 1, 31, tzinfo=UTC)),
        (Email, f"{'a' * 63}@{DOMAIN}", f"{'a' * 63}@{DOMAIN}"),
        (Network, "203.0.113.0/24", "203.0.113.0/24"),
        (Network, "2001:DB8::1", "2001:db8::1/128"),
    ],
)
def test_a_valid_value_is_accepted(kind: Any, value: object, expected: object) -> None:
    assert TypeAdapter(kind).validate_python(value) == expected


EMAILS = "|ada|ada@|@example.com|ada@example|ada@-example.com|a b@example.com|a@example.com\n"
LIMITS = "|0/minute|1/week|1 /minute|-1/day|1/minute\n|1000000000/minute"
MOMENTS = (
    "1900000000|2030-01-31|2030-01-31T12:00:00|2030-01-31T12:00Z|2030-01-31 12:00:00Z"
    "|2030-02-30T12:00:00Z|9999-12-31T23:59:59-01:00"
)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Email, [*EMAILS.split("|"), f"{'a' * 64}@{DOMAIN}"]),
        (Name, ["", " ", " ci", "a\nb", "a\x1b[0m", "a" * 101]),
        (Line, ["a\nb", "a\u2028b", "a" * 101]),
        (Text, ["a\0b", "a\ud800", "a" * 10_001]),
        (RateLimit, LIMITS.split("|")),
        (Moment, [1_900_000_000, *MOMENTS.split("|")]),
        (Int32, [2**31, -(2**31) - 1, 1.5, True, "1"]),
        (Number, [True, "1", float("nan"), float("inf")]),
        (Price, [12.5, "0.49", "1000.01", "1.234", "-1", "", "1e2", "٣", "12345.00", "NaN"]),
        (Change, ["10000", "1.0"]),
        (Share, ["1.00", ".5"]),
        (Url, [f"https://example.com/{'a' * 1981}"]),
        (Url, ["", "example.com", "ftp://example.com", "https://a b", "https://a/\n", "https://é"]),
        (Day, ["2030-02-30", "2030-1-1", 0, "2030-01-31T00:00:00"]),
        (JsonObject, [[], "{}", {"a": "\0"}, {"\0": 1}, {"a": [float("inf")]}, {"a": "\ud800"}]),
        (JsonObject, [nested("a", 101), {"a": [[nested("a", 98)]]}]),
        (Network, ["", "secret", "10.0.0.1/8", "300.0.0.0/8", "fe80::1%eth0", "::/129"]),
    ],
)
def test_an_invalid_value_is_rejected(kind: Any, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(value)


def test_openapi_has_the_pattern_of_a_rate_limit() -> None:
    pattern = TypeAdapter(RateLimit).json_schema()["pattern"]
    assert re.search(pattern, "600/minute")
    assert not any(re.search(pattern, value) for value in ("0/minute", "1/week", "1/minutes"))


def test_a_field_can_have_another_maximum_length() -> None:
    class Thing(Body):
        name: Name = Field("", max_length=20)
        note: Text | None = Field(None, max_length=20_000)
        line: Annotated[Line, Field(max_length=10)] = ""

    Thing(name="a" * 20, note="a" * 20_000, line="a" * 10)
    with pytest.raises(ValidationError) as error:
        Thing(name="a" * 21, note="a" * 20_001, line="a" * 11)
    assert [one["loc"][0] for one in error.value.errors()] == ["name", "note", "line"]
    properties = Thing.model_json_schema()["properties"]
    assert [properties["name"]["maxLength"], properties["line"]["maxLength"]] == [20, 10]


def test_a_body_with_thousands_of_unknown_fields_is_a_few_errors() -> None:
    class Thing(Body):
        name: str

    with pytest.raises(ValidationError) as error:
        Thing.model_validate({f"field{number}": 1 for number in range(5000)})
    assert error.value.error_count() <= 30


def test_the_error_of_an_invalid_network_does_not_echo_it() -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Network).validate_python("hunter2")
    assert "hunter2" not in error.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31T12:00:00Z",
        "2030-01-31t13:00:00.0+01:00",
        "2030-01-31T12:00:00+0000",
        "2030-01-31T12:00:00 00:00",
    ],
)
def test_a_time_is_converted_to_utc(text: str) -> None:
    moment = TypeAdapter(Moment).validate_python(text)
    assert moment.isoformat() == "2030-01-31T12:00:00+00:00"


def test_a_decimal_is_a_text_in_json() -> None:
    price = TypeAdapter(Price).validate_python("12.5")
    assert TypeAdapter(Price).dump_python(price) == Decimal("12.50")
    assert TypeAdapter(Price).dump_json(price) == b'"12.50"'


def test_openapi_shows_the_bounds_of_numbers() -> None:
    class Thing(Body):
        price: Price
        stock: Int32 | None

    properties = Thing.model_json_schema()["properties"]
    assert properties["price"]["pattern"] == r"^[0-9]{1,4}(\.[0-9]{1,2})?$"
    stock = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
    assert properties["stock"]["anyOf"] == [stock, {"type": "null"}]
