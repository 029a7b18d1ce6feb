import tomllib
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}
SHORTEST_PEPPER = 32  # characters; token_urlsafe(32) makes 43
DIFFERENT_CHARACTERS = 10  # fewer is no random secret, but somebody's "xxxxxxxx…"


def _with_driver(value: str) -> str:
    try:
        url = make_url(value)
    except ArgumentError:
        raise ValueError("is no database URL") from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in DRIVERS.values():
        raise ValueError("must begin with sqlite:// or postgresql://")
    return url.render_as_string(hide_password=False)


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _read_peppers(value: object) -> object:
    if not isinstance(value, str):
        return value
    peppers: dict[int, str] = {}
    for entry in value.split(","):
        pepper_id, separator, secret = entry.strip().partition(":")
        if not separator or not pepper_id.isascii() or not pepper_id.isdigit() or int(pepper_id) in peppers:
            raise ValueError("must read id:secret,id:secret with ids that are different numbers")
        peppers[int(pepper_id)] = secret
    return peppers


def _refuse_weak(peppers: dict[int, SecretStr]) -> dict[int, SecretStr]:
    if not peppers:
        raise ValueError("holds no pepper")
    for pepper_id, pepper in peppers.items():
        secret = pepper.get_secret_value()
        if not 0 <= pepper_id < 2**31:
            raise ValueError("has an id over 2147483647")
        if len(secret.encode()) < SHORTEST_PEPPER:
            raise ValueError(f"has a secret (id {pepper_id}) shorter than {SHORTEST_PEPPER} characters")
        if len(set(secret)) < DIFFERENT_CHARACTERS or "change" in secret.lower() or "<" in secret:
            raise ValueError(f"has a secret (id {pepper_id}) that is a sample, not random")
    return peppers


def _check_networks(networks: list[str]) -> list[str]:
    for network in networks:
        ip_network(network)
    return networks


T = TypeVar("T")
CommaSeparated = Annotated[list[T], NoDecode, BeforeValidator(_split)]
Peppers = Annotated[dict[int, SecretStr], NoDecode, BeforeValidator(_read_peppers), AfterValidator(_refuse_weak)]
# `600/minute`: so many in every such window.
RateLimit = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")]
Location = Literal["bearer", "header", "query"]


class Settings(BaseSettings):
    """What differs between environments, as `.env.example` explains; an environment variable wins over `.env`."""

    # hide_input_in_errors: pydantic would print a wrong pepper in the message about it.
    model_config = SettingsConfigDict(env_file=ROOT / ".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    project_name: str = PYPROJECT["tool"]["app"]["project_name"]
    environment: Literal["development", "test", "production"] = "development"
    database_url: Annotated[str, AfterValidator(_with_driver), Field(repr=False)]
    api_key_prefix: str = Field(PYPROJECT["tool"]["app"]["api_key_prefix"], pattern=r"^[a-z][a-z0-9]{1,9}$")
    api_key_peppers: Peppers
    api_key_expire_days: int = Field(15, ge=1, le=36_500)
    api_key_max_expire_days: int | None = Field(None, ge=1, le=36_500)
    api_key_max_per_user: int = Field(100, ge=1)
    api_key_locations: Annotated[CommaSeparated[Location], Field(min_length=1)] = ["bearer"]
    api_key_cache: bool = True
    rate_limit: RateLimit | None = "600/minute"
    failed_auth_limit: RateLimit | None = "60/minute"
    rate_limit_fail_open: bool = False
    redis_url: Annotated[str | None, Field(repr=False)] = None
    request_timeout_seconds: float = Field(10, gt=0, le=3600)
    usage_flush_seconds: float = Field(5, gt=0, le=3600)
    usage_retention_days: int = Field(90, ge=1, le=36_500)
    trusted_proxies: Annotated[CommaSeparated[str], AfterValidator(_check_networks)] = []
    cors_origins: CommaSeparated[str] = []
    docs_enabled: bool | None = None
    metrics_enabled: bool = False
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(
        "api_key_max_expire_days", "docs_enabled", "rate_limit", "failed_auth_limit", "redis_url", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        if self.api_key_max_expire_days and self.api_key_expire_days > self.api_key_max_expire_days:
            raise ValueError("API_KEY_EXPIRE_DAYS is more than API_KEY_MAX_EXPIRE_DAYS")
        return self

    @property
    def key_environment(self) -> Literal["live", "test"]:
        return "live" if self.environment == "production" else "test"

    @property
    def docs_are_public(self) -> bool:
        return self.environment != "production" if self.docs_enabled is None else self.docs_enabled


def _sentence(error: ErrorDetails) -> str:
    variable = "".join(str(part).upper() for part in error["loc"][:1])
    if error["type"] == "missing":
        return f"{variable} is missing: set it in the environment or in .env (.env.example says what it means)."
    message = error["msg"].removeprefix("Value error, ")
    return f"{variable} {message}.".lstrip() if error["type"] == "value_error" else f"{variable}: {message}."


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises SystemExit with a sentence for each wrong variable, because a stack trace would hide it.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit("\n".join(map(_sentence, error.errors()))) from None
