"""Field types that every folder's schemas share."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

# One line of text. NUL is refused by PostgreSQL and taken by SQLite; the other control characters only forge log lines.
Line = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
Name = Annotated[Line, StringConstraints(min_length=1, strip_whitespace=True)]

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


def _refuse_numbers(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError("Input should be a string, as in 2030-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_refuse_numbers), AfterValidator(_in_utc)]


class Body(BaseModel):
    """A request's body: a field that is not known is an error, not a silent typing mistake."""

    model_config = ConfigDict(extra="forbid")


class FromRow(BaseModel):
    """A response that is read from a row. A table's class is never a body itself: what is added to it stays inside."""

    model_config = ConfigDict(from_attributes=True)
