"""Field types and base classes that all schemas share."""

import re
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    model_validator,
)

from app.core.errors import MAX_ERRORS

# PostgreSQL rejects NUL and SQLite accepts it. Other control characters can forge log lines.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
Line = Annotated[str, StringConstraints(max_length=100, pattern=f"^[^{_CONTROL}]*$")]
Name = Annotated[
    str, StringConstraints(max_length=100, pattern=rf"^[^\s{_CONTROL}][^{_CONTROL}]*$")
]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]

# The HTML standard's pattern for email addresses.
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_EMAIL = rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+$"
Email = Annotated[str, StringConstraints(max_length=254, to_lower=True, pattern=_EMAIL)]

RateLimit = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")]

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)


def _require_rfc_3339(value: object) -> object:
    """Pydantic alone accepts numbers too, and times without seconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("Input should be a time with a zone, for example 2030-01-31T12:00:00Z")


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("Input should be between the years 1 and 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc_3339), AfterValidator(_to_utc)]


def without_mapping(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """::ffff:192.0.2.0/120 is 192.0.2.0/24 (RFC 4291, 2.5.5.2)."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network((mapped, network.prefixlen - 96))


def spellings(network: IPv4Network | IPv6Network) -> list[str]:
    """A network, for IPv4 also as a socket for both versions shows it."""
    if isinstance(network, IPv6Network):
        return [f"{network}"]
    return [f"{network}", f"::ffff:{network.network_address}/{network.prefixlen + 96}"]


def _to_int(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# 60.0 is an integer in JSON (JSON Schema, 6.1.1), "60" and true are not.
Integer = Annotated[StrictInt, BeforeValidator(_to_int)]


class Body(BaseModel):
    """A request body. Unknown fields are errors.

    The optional fields of a PATCH have a default_factory, because OpenAPI would show a default.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, data: object) -> object:
        """Each unknown field is an error, and building thousands of errors stalls the process."""
        if isinstance(data, dict):
            return dict(islice(data.items(), len(cls.model_fields) + MAX_ERRORS))
        return data


class FromRow(BaseModel):
    """A response that is read from a row. A table class is never a response itself."""

    model_config = ConfigDict(from_attributes=True)
