"""Field types and base classes that all schemas share."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainSerializer,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic_core import core_schema

from app.core.errors import MAX_ERRORS

MAX_JSON_LEVELS = 100  # pydantic could not serialize 256


@dataclass(frozen=True)
class MaxLength:
    """A default. Pydantic alone would ignore the bound in `note: Text = Field(max_length=20)`."""

    default: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        schema: Any = handler(source)  # Any: of pydantic
        schema.setdefault("max_length", self.default)
        return schema


# PostgreSQL rejects NUL and SQLite accepts it. Other control characters can forge log lines.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
Line = Annotated[str, StringConstraints(pattern=f"^[^{_CONTROL}]*$"), MaxLength(100)]
Name = Annotated[
    str, StringConstraints(pattern=rf"^[^\s{_CONTROL}][^{_CONTROL}]*$"), MaxLength(100)
]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$"), MaxLength(10_000)]

# The HTML standard's pattern for email addresses.
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_EMAIL = rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+$"
Email = Annotated[str, StringConstraints(max_length=254, to_lower=True, pattern=_EMAIL)]

# An address that a browser opens, in ASCII (RFC 3986).
_PORT = "(?::[0-9]{1,5})?"
_PATH = r"(?:[/?#][a-zA-Z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?"
_URL = rf"^https?://{_LABEL}(?:\.{_LABEL})*{_PORT}{_PATH}$"
Url = Annotated[str, StringConstraints(max_length=2_000, pattern=_URL)]

_RATE_LIMIT = "[1-9][0-9]{0,8}/(second|minute|hour|day)"


def _check_rate_limit(value: str) -> str:
    if not re.fullmatch(_RATE_LIMIT, value):
        message = "Input should be a number per second, minute, hour or day, for example 600/minute"
        raise ValueError(message)
    return value


RateLimit = Annotated[
    str, AfterValidator(_check_rate_limit), Field(json_schema_extra={"pattern": f"^{_RATE_LIMIT}$"})
]

# A "+" that is not encoded in a query is a space.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+ -]\d\d:?\d\d)", re.ASCII)


def _require_rfc_3339(value: object) -> object:
    """Pydantic alone accepts numbers too, and times without seconds."""
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        return value.replace(" ", "+")
    if isinstance(value, datetime):
        return value
    raise ValueError("Input should be a time with a zone, for example 2030-01-31T12:00:00Z")


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("Input should be between the years 1 and 9999 in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc_3339), AfterValidator(_to_utc)]


def _require_full_date(value: object) -> object:
    """Pydantic alone accepts numbers and times too."""
    if isinstance(value, date) or (
        isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII)
    ):
        return value
    raise ValueError("Input should be a date, for example 2030-01-31")


Day = Annotated[date, BeforeValidator(_require_full_date)]


Proxy = IPv4Network | IPv6Network | Literal["unix"]


def without_mapping(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """::ffff:192.0.2.0/120 is 192.0.2.0/24 (RFC 4291, 2.5.5.2)."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network((mapped, network.prefixlen - 96))


def spellings(network: Proxy) -> list[str]:
    """A network, for IPv4 also as a socket for both versions shows it."""
    if not isinstance(network, IPv4Network):
        return [f"{network}"]
    return [f"{network}", f"::ffff:{network.network_address}/{network.prefixlen + 96}"]


def _to_int(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# 60.0 is an integer in JSON (JSON Schema, 6.1.1), "60" and true are not.
Integer = Annotated[StrictInt, BeforeValidator(_to_int)]


@dataclass(frozen=True)
class Range:
    """`stock: Annotated[Integer, Range(0, 99)] | None`, where OpenAPI would lose `ge=0, le=99`."""

    ge: int
    le: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        schema: Any = handler(source)  # Any: of pydantic
        schema["schema"] |= {"ge": self.ge, "le": self.le}
        return schema


Int32 = Annotated[Integer, Range(-(2**31), 2**31 - 1)]  # of a column declared as int
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class Digits:
    """`price: Annotated[Decimal, Digits(12, 2)]`: up to 12 digits, 2 of them after the point.

    In JSON, it is a string like "12.50", because many clients round numbers.
    """

    total: int
    places: int
    ge: Decimal | None = None
    le: Decimal | None = None

    @property
    def pattern(self) -> str:
        sign = "" if self.ge is not None and self.ge >= 0 else "-?"
        whole = f"[0-9]{{1,{self.total - self.places}}}" if self.total > self.places else "0"
        fraction = rf"(\.[0-9]{{1,{self.places}}})?" if self.places else ""
        return f"^{sign}{whole}{fraction}$"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_before_validator_function(self._parse, handler(source))

    def __get_pydantic_json_schema__(self, _: Any, __: Any) -> dict[str, Any]:  # Any: of pydantic
        return {"type": "string", "pattern": self.pattern}

    def _parse(self, value: object) -> Decimal:
        text = f"{value:f}" if isinstance(value, Decimal) else value
        if not isinstance(text, str) or not re.fullmatch(self.pattern, text):
            message = (
                f'Input should be a string like "12.50", with up to {self.total} digits, '
                f"{self.places} of them after the point"
            )
            raise ValueError(message)
        number = Decimal(text).quantize(Decimal(1).scaleb(-self.places))
        if self.ge is not None and number < self.ge:
            raise ValueError(f"Input should be greater than or equal to {self.ge}")
        if self.le is not None and number > self.le:
            raise ValueError(f"Input should be less than or equal to {self.le}")
        return number


# In a response. Decimal alone would be "1E-8", which no request can contain.
DecimalText = Annotated[Decimal, PlainSerializer("{:f}".format, return_type=str)]


def _check_json(value: JsonValue, levels: int = MAX_JSON_LEVELS) -> JsonValue:
    """JSON has no infinity. Half of a surrogate pair is no character."""
    if not levels:
        raise ValueError(f"Input should not have more than {MAX_JSON_LEVELS} levels")
    match value:
        case str() if re.search("[\0\ud800-\udfff]", value):
            raise ValueError("Input should not contain NUL or half of a surrogate pair")
        case float() if not isfinite(value):
            raise ValueError("Input should only contain finite numbers")
        case list():
            for item in value:
                _check_json(item, levels - 1)
        case dict():
            for name, item in value.items():
                _check_json(name)
                _check_json(item, levels - 1)
    return value


JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_check_json)]

# The default of a field in the body of a PATCH that cannot be null. An omitted field keeps its
# value, so the default is never used.
UNSET: Any = None


def _without_defaults(schema: dict[str, Any]) -> None:  # Any: a JSON schema
    for field in schema["properties"].values():
        field.pop("default", None)


class Body(BaseModel):
    """A request body. Unknown fields are errors.

    OpenAPI shows no defaults: openapi-typescript would require a property that has one, and an
    omitted field of a PATCH keeps its value.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

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
