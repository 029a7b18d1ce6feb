from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.api_keys.schemas import Network
from app.core.types import Body, Email, Integer, Line, Moment, Name, RateLimit, Text


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Email, "Ada.Lovelace+keys@Example.COM", "ada.lovelace+keys@example.com"),
        (Name, "my laptop", "my laptop"),
        (Line, "", ""),
        (Text, "two\nlines", "two\nlines"),
        (RateLimit, "600/minute", "600/minute"),
        (Integer, 60.0, 60),
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
        (Email, EMAILS.split("|")),
        (Name, ["", " ", " ci", "a\nb", "a\x1b[0m", "a" * 101]),
        (Line, ["a\nb", "a\u2028b", "a" * 101]),
        (Text, ["a\0b", "a" * 10_001]),
        (RateLimit, LIMITS.split("|")),
        (Moment, [1_900_000_000, *MOMENTS.split("|")]),
        (Network, ["", "secret", "10.0.0.1/8", "300.0.0.0/8", "fe80::1%eth0", "::/129"]),
    ],
)
def test_an_invalid_value_is_rejected(kind: Any, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(value)


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
    ["2030-01-31T12:00:00Z", "2030-01-31t13:00:00.0+01:00", "2030-01-31T12:00:00+0000"],
)
def test_a_time_is_converted_to_utc(text: str) -> None:
    moment = TypeAdapter(Moment).validate_python(text)
    assert moment.isoformat() == "2030-01-31T12:00:00+00:00"
