"""Field types that every folder's schemas share."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictInt,
    StringConstraints,
)

# One line of text. NUL is refused by PostgreSQL and taken by SQLite; the other control characters only forge log lines.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
Line = Annotated[str, StringConstraints(max_length=100, pattern=f"^[^{_CONTROL}]*$")]
Name = Annotated[str, StringConstraints(max_length=100, pattern=rf"^[^\s{_CONTROL}][^{_CONTROL}]*$")]

# The HTML standard's idea of an email address, and no wiser: only a message that arrives proves one.
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
Email = Annotated[
    str,
    StringConstraints(
        max_length=254,
        to_lower=True,
        pattern=rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+$",
    ),
]


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _only_rfc_3339(value: object) -> object:
    """Pydantic takes numbers too, and strings of them, and times without seconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("Input should be a time with its zone, as in 2030-01-31T12:00:00Z")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_only_rfc_3339), AfterValidator(_in_utc)]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON knows one kind of number: 60.0 is the integer 60 (JSON Schema, 6.1.1).
Integer = Annotated[StrictInt, BeforeValidator(_whole)]


class Body(BaseModel):
    """A request's body: a field that is not known is an error, not a silent typing mistake.

    In a PATCH, what is absent stays as it is. Its fields have a default_factory: a default would be in OpenAPI.
    """

    model_config = ConfigDict(extra="forbid")


class FromRow(BaseModel):
    """A response that is read from a row. A table's class is never a body itself: what is added to it stays inside."""

    model_config = ConfigDict(from_attributes=True)
