"""The settings that several parts of the app share. Each feature keeps its own beside its code."""

import re
import tomllib
from functools import cache, partial
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url

from app.core.types import Proxy, RateLimit, without_mapping
from app.core.urls import check_database_url, check_origin, check_redis_url

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

MIN_PEPPER_BYTES = 32  # token_urlsafe(32) makes 43
MIN_DISTINCT_CHARACTERS = 10  # fewer means "xxxxxxxx…", not a random secret

T = TypeVar("T")
Location = Literal["bearer", "header", "query"]


def _split(value: object) -> object:
    if value is None:
        return []
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _parse_peppers(value: object) -> object:
    if not isinstance(value, str):
        return value
    peppers: dict[int, str] = {}
    for entry in value.split(","):
        pepper_id, _, secret = entry.strip().partition(":")
        if not (pepper_id.isascii() and pepper_id.isdigit()) or int(pepper_id) in peppers:
            raise ValueError("must be id:secret,id:secret with unique numeric ids")
        peppers[int(pepper_id)] = secret
    return peppers


def _check_prefix(value: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9]{1,9}", value):
        raise ValueError("must be 2 to 10 lower-case letters and digits, and start with a letter")
    return value


def _parse_proxy(value: str) -> Proxy:
    try:
        return "unix" if value == "unix" else without_mapping(ip_network(value))
    except ValueError:
        raise ValueError('must be addresses or networks such as 10.0.0.0/8, or "unix"') from None


def _check_peppers(peppers: dict[int, SecretStr]) -> dict[int, SecretStr]:
    for pepper_id, pepper in peppers.items():
        secret = pepper.get_secret_value()
        if not 0 <= pepper_id < 2**31:
            raise ValueError("ids must be less than 2147483648")
        if len(secret.encode()) < MIN_PEPPER_BYTES:
            raise ValueError(f"pepper {pepper_id} is shorter than {MIN_PEPPER_BYTES} bytes")
        looks_like_a_sample = "change" in secret.lower() or "<" in secret
        if looks_like_a_sample or len(set(secret)) < MIN_DISTINCT_CHARACTERS:
            raise ValueError(f"pepper {pepper_id} looks like a placeholder; generate a random one")
    return peppers


DatabaseUrl = Annotated[str, AfterValidator(partial(check_database_url, folder=ROOT))]
RedisUrl = Annotated[str, AfterValidator(check_redis_url)]
Prefix = Annotated[str, AfterValidator(_check_prefix)]
TrustedProxy = Annotated[Proxy, PlainValidator(_parse_proxy)]
Origin = Annotated[str, AfterValidator(check_origin)]
CommaSeparated = Annotated[list[T], NoDecode, BeforeValidator(_split)]
Peppers = Annotated[
    dict[int, SecretStr], NoDecode, BeforeValidator(_parse_peppers), AfterValidator(_check_peppers)
]


class EnvSettings(BaseSettings):
    """Reads environment variables, then `.env`. An empty value means none."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an error message would contain the invalid pepper or password
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_means_none(cls, value: object) -> object:
        return (value.strip() or None) if isinstance(value, str) else value


class Settings(EnvSettings):
    """`.env.example` explains each setting."""

    project_name: str = PYPROJECT["tool"]["app"]["project_name"]
    environment: Literal["development", "test", "production"] = "development"
    database_url: Annotated[DatabaseUrl, Field(repr=False)]
    database_pooler: bool = False
    database_replica_url: Annotated[DatabaseUrl | None, Field(repr=False)] = None
    api_key_prefix: Prefix = PYPROJECT["tool"]["app"]["api_key_prefix"]
    api_key_peppers: Peppers
    api_key_expire_days: int = Field(default=15, ge=1, le=36_500)
    api_key_max_expire_days: int | None = Field(default=None, ge=1, le=36_500)
    api_key_max_per_user: int = Field(default=100, ge=1)
    api_key_locations: Annotated[CommaSeparated[Location], Field(min_length=1)] = ["bearer"]
    api_key_retention_days: int | None = Field(default=None, ge=1, le=36_500)
    audit_retention_days: int | None = Field(default=None, ge=1, le=36_500)
    api_key_cache_seconds: float = Field(default=10, ge=0, le=10)
    rate_limit: RateLimit | None = "600/minute"
    failed_auth_limit: RateLimit | None = "60/minute"
    redis_url: Annotated[RedisUrl | None, Field(repr=False)] = None
    request_body_limit: int = Field(default=65_536, ge=1)
    request_timeout_seconds: float = Field(default=10, gt=0, le=3600)
    trusted_proxies: CommaSeparated[TrustedProxy] = []
    cors_origins: CommaSeparated[Origin] = []
    docs_enabled: bool | None = None
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        maximum = self.api_key_max_expire_days
        if maximum and self.api_key_expire_days > maximum:
            raise ValueError("API_KEY_EXPIRE_DAYS must not exceed API_KEY_MAX_EXPIRE_DAYS")
        return self

    @model_validator(mode="after")
    def _check_databases(self) -> Self:
        urls = [make_url(url) for url in (self.database_url, self.database_replica_url) if url]
        if self.database_replica_url and any(url.get_backend_name() == "sqlite" for url in urls):
            raise ValueError("DATABASE_REPLICA_URL: must name a replica of PostgreSQL")
        options = [str(url.query.get("options", "")) for url in urls]
        if self.database_pooler and any(option.strip().startswith("-") for option in options):
            raise ValueError("DATABASE_POOLER: a pooler drops options of a URL; use ALTER ROLE")
        return self

    @property
    def key_environment(self) -> Literal["live", "test"]:
        return "live" if self.environment == "production" else "test"

    @property
    def docs_are_public(self) -> bool:
        if self.docs_enabled is None:
            return self.environment != "production"
        return self.docs_enabled


SettingsT = TypeVar("SettingsT", bound=EnvSettings)


def load_settings(kind: type[SettingsT]) -> SettingsT:
    """Exits with one sentence per invalid variable, because a traceback would hide the reason."""
    try:
        _check_lines(kind.model_config.get("env_file"))
        return kind()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{ROOT / '.env'} cannot be read: {error}.") from None
    except ValidationError as error:
        sentences = dict.fromkeys(map(_sentence, error.errors()))  # in order, without duplicates
        raise SystemExit("\n".join(sentences)) from None


def _check_lines(env_file: object) -> None:
    """Exits if a line is not NAME=value. python-dotenv would skip it, and only log a warning."""
    if isinstance(env_file, Path) and env_file.is_file():
        with env_file.open(encoding="utf-8") as file:
            for one in parse_stream(file):
                if one.error or (one.key and one.value is None):
                    text = one.original.string
                    blank_lines = len(text) - len(text.lstrip("\n"))
                    place = f"{env_file}, line {one.original.line + blank_lines}"
                    raise SystemExit(f"{place}: must be NAME=value, and quotes must be closed.")


def _sentence(error: ErrorDetails) -> str:
    variable = "".join(str(part).upper() for part in error["loc"][:1])
    message = re.sub("^Value error, |, unable to .*", "", error["msg"])
    message = message.replace("Input should", "must").replace("a valid boolean", "true or false")
    if error["type"] == "missing" or error["input"] is None:
        message = "set it in the environment or in .env; .env.example explains it"
    return f"{variable}: {message}.".removeprefix(": ")


@cache
def get_settings() -> Settings:
    return load_settings(Settings)
