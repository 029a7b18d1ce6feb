from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from app.settings import ROOT, Settings, get_settings, load_settings
from tests import ENV_FILE, PEPPER
from tests.conftest import make_settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Valid settings, in the environment."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///./app.db")
    monkeypatch.setenv("API_KEY_PEPPERS", f"1:{PEPPER}")
    return monkeypatch


def test_the_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", f"1:{PEPPER} , 2:{PEPPER[::-1]}")
    environment.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1, unix")
    settings = load_settings(Settings)
    assert settings.api_key_peppers == {1: SecretStr(PEPPER), 2: SecretStr(PEPPER[::-1])}
    assert [*map(str, settings.trusted_proxies)] == ["10.0.0.0/8", "192.0.2.1/32", "unix"]


def test_an_empty_value_means_none(environment: pytest.MonkeyPatch) -> None:
    for variable in ("RATE_LIMIT", "API_KEY_MAX_EXPIRE_DAYS", "CORS_ORIGINS"):
        environment.setenv(variable, " ")
    settings = load_settings(Settings)
    assert settings.rate_limit is None
    assert settings.api_key_max_expire_days is None
    assert settings.cors_origins == []


def test_settings_are_read_once(environment: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    first = get_settings()
    environment.setenv("LOG_LEVEL", "debug")
    assert get_settings() is first
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////srv/app.db", "sqlite+aiosqlite:////srv/app.db"),
        ("postgres://me:p%40ss@host/db", "postgresql+psycopg://me:p%40ss@host/db"),
        ("postgresql://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("postgresql:///db?host=/run", "postgresql+psycopg:///db?host=%2Frun"),
    ],
)
def test_a_database_url_gets_the_driver_of_the_app(url: str, expected: str) -> None:
    assert make_settings(database_url=url).database_url == expected


def test_a_sqlite_file_is_relative_to_the_project() -> None:
    url = make_url(make_settings(database_url="sqlite:///./app.db").database_url)
    assert (url.drivername, url.database) == ("sqlite+aiosqlite", str(ROOT / "app.db"))


def test_valkey_is_redis_and_origins_are_those_that_browsers_send() -> None:
    settings = make_settings(
        redis_url="valkeys://host:6379/1",
        cors_origins="https://App.example.com:443,http://localhost:3000,http://[::1]:80",
    )
    assert settings.redis_url == "rediss://host:6379/1"
    origins = ["https://app.example.com", "http://localhost:3000", "http://[::1]"]
    assert settings.cors_origins == origins
    for valid in ("unix:///run/redis.sock", "redis://:p%40ss@host"):
        assert make_settings(redis_url=valid).redis_url == valid


def test_the_env_file_is_that_of_the_project() -> None:
    assert ENV_FILE == ROOT / ".env"


def test_an_env_file_that_cannot_be_read_is_one_sentence(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"LOG_LEVEL=\xff")
    environment.setitem(Settings.model_config, "env_file", env_file)
    with pytest.raises(SystemExit, match=r"\.env cannot be read: "):
        load_settings(Settings)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_settings().rate_limit = None  # type: ignore[misc] # mypy rejects it too


@pytest.mark.parametrize("line", ['LOG_LEVEL="error', "LOG_LEVEL", "LOG_LEVEL error"])
def test_a_line_of_the_env_file_that_sets_nothing_is_rejected(
    environment: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"# a comment\n\n{line}\nRATE_LIMIT=\n", "utf-8")
    environment.setitem(Settings.model_config, "env_file", env_file)
    with pytest.raises(SystemExit, match=r"\.env, line 3: must be NAME=value"):
        load_settings(Settings)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("API_KEY_PEPPERS", None, "set it in the environment or in .env"),
        ("API_KEY_PEPPERS", "", "set it in the environment or in .env"),
        ("API_KEY_PEPPERS", PEPPER, "must be id:secret,id:secret"),
        ("API_KEY_PEPPERS", f"1:{PEPPER},1:{PEPPER}", "must be id:secret,id:secret"),
        ("API_KEY_PEPPERS", f"4294967296:{PEPPER}", "ids must be less than 2147483648"),
        ("API_KEY_PEPPERS", f"1:{PEPPER[:31]}", "pepper 1 is shorter than 32 bytes"),
        ("API_KEY_PEPPERS", f"1:{'x' * 40}", "pepper 1 looks like a placeholder"),
        ("API_KEY_PEPPERS", f"1:change-me-{PEPPER}", "pepper 1 looks like a placeholder"),
        ("API_KEY_PEPPERS", f"1:<{PEPPER}>", "pepper 1 looks like a placeholder"),
        ("DATABASE_URL", None, "set it in the environment or in .env"),
        ("DATABASE_URL", "mysql://me:secret@host/db", "must start with sqlite:// or postgresql://"),
        ("DATABASE_URL", "app.db", "must be a URL such as"),
        ("DATABASE_URL", '"sqlite:///app.db"', "must be a URL such as"),
        ("DATABASE_URL", "postgresql://host:99999/db", "must be a URL such as"),
        ("DATABASE_URL", "postgresql://me:pa@secret@host/db", "must be a URL such as"),
        ("DATABASE_URL", "postgresql://me:pa@ss:secret@host/db", "must be a URL such as"),
        ("DATABASE_URL", "postgresql://me:1/secret@host:x/db", "must be a URL such as"),
        ("DATABASE_URL", "postgresql://me:secret@h1:5432,h2:5432/db", "must name one host"),
        ("DATABASE_URL", "postgresql://h1,h2/db", "must name one host"),
        ("DATABASE_URL", "postgresql:///db?port=secret", "has an invalid host or port"),
        ("DATABASE_URL", "sqlite:///./", "must name a file"),
        ("DATABASE_URL", "sqlite://", "must name a file"),
        ("DATABASE_URL", "sqlite:///:memory:", "must name a file"),
        ("DATABASE_URL", "sqlite:///file::memory:?uri=true", "must name a file"),
        ("DATABASE_URL", "sqlite:///file:a?mode=memory&uri=true", "must name a file"),
        ("DATABASE_URL", "sqlite://app.db", "needs three slashes"),
        ("DATABASE_REPLICA_URL", "sqlite:///copy.db", "must name a replica of PostgreSQL"),
        ("DATABASE_REPLICA_URL", "postgresql://host/db", "must name a replica of PostgreSQL"),
        ("REDIS_URL", "127.0.0.1:6379", "must be redis://host:port/0"),
        ("REDIS_URL", "redis+sentinel://host", "must be redis://host:port/0"),
        ("REDIS_URL", "redis://:secret@", "must be redis://host:port/0"),
        ("REDIS_URL", "redis://host/13x", "must be redis://host:port/0"),
        ("REDIS_URL", "redis://host?db=x", "must be redis://host:port/0"),
        ("REDIS_URL", "redis://me:12#secret@host", "must be redis://host:port/0"),
        ("REDIS_URL", "redis://host:secret@x:y", "must be redis://host:port/0"),
        ("CORS_ORIGINS", "https://front.example/", "must be origins such as"),
        ("CORS_ORIGINS", "https://front.example:080", "must be origins such as"),
        ("CORS_ORIGINS", "front.example", "must be origins such as"),
        ("CORS_ORIGINS", '["https://front.example"]', "must be origins such as"),
        ("CORS_ORIGINS", "https://*.example.com", "must be origins such as"),
        ("API_KEY_PREFIX", "Acme", "must be 2 to 10 lower-case letters and digits"),
        ("API_KEY_EXPIRE_DAYS", "0", "must be greater than or equal to 1"),
        ("API_KEY_CACHE_SECONDS", "11", "must be less than or equal to 10"),
        ("API_KEY_LOCATIONS", "cookie,foo", "must be 'bearer', 'header' or 'query'."),
        ("API_KEY_LOCATIONS", "", "set it in the environment or in .env"),
        ("RATE_LIMIT", "fast", "must be a number per second, minute, hour or day"),
        ("DOCS_ENABLED", "maybe", "must be true or false."),
        ("REQUEST_BODY_LIMIT", "64k", "must be a valid integer."),
        ("REQUEST_BODY_LIMIT", "0", "must be greater than or equal to 1"),
        ("TRUSTED_PROXIES", "everybody", "must be addresses or networks such as"),
        ("ENVIRONMENT", "staging", "must be 'development', 'test' or 'production'"),
    ],
)
def test_an_invalid_value_stops_the_start_with_a_sentence_that_names_the_variable(
    environment: pytest.MonkeyPatch, variable: str, value: str | None, sentence: str
) -> None:
    if value is None:
        environment.delenv(variable)
    else:
        environment.setenv(variable, value)
    with pytest.raises(SystemExit) as stop:
        load_settings(Settings)
    message = str(stop.value)
    assert message.startswith(f"{variable}: {sentence}")
    assert "\n" not in message
    assert "secret@" not in message
    assert PEPPER[:31] not in message


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("api_key_expire_days", [1, 36_500], [0, 36_501]),
        ("api_key_max_expire_days", [15, 36_500], [0, 36_501]),
        ("api_key_max_per_user", [1], [0]),
        ("api_key_retention_days", [1, 36_500], [0, 36_501]),
        ("audit_retention_days", [1, 36_500], [0, 36_501]),
        ("api_key_cache_seconds", [0, 10], [-1, 11]),
        ("request_body_limit", [1], [0]),
        ("request_timeout_seconds", [0.1, 3600], [0, 3601]),
    ],
)
def test_a_number_has_bounds(name: str, valid: list[float], invalid: list[float]) -> None:
    for value in valid:
        make_settings(**{name: value})
    for value in invalid:
        with pytest.raises(ValidationError):
            make_settings(**{name: value})


def test_the_default_expiry_must_not_exceed_the_maximum(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_MAX_EXPIRE_DAYS", "14")
    with pytest.raises(SystemExit, match=r"^API_KEY_EXPIRE_DAYS must not exceed"):
        load_settings(Settings)


@pytest.mark.parametrize("variable", ["DATABASE_URL", "DATABASE_REPLICA_URL"])
@pytest.mark.parametrize("options", ["-c%20search_path%3Dtenant", "%20--search_path%3Dtenant"])
def test_settings_in_a_url_that_a_pooler_would_drop_are_rejected(
    environment: pytest.MonkeyPatch, variable: str, options: str
) -> None:
    environment.setenv("DATABASE_POOLER", "true")
    environment.setenv("DATABASE_URL", "postgresql://host/db?options=endpoint%3Done")
    load_settings(Settings)
    environment.setenv(variable, f"postgresql://host/db?options={options}")
    with pytest.raises(SystemExit, match=r"^DATABASE_POOLER: a pooler drops options"):
        load_settings(Settings)
    environment.setenv("DATABASE_POOLER", "false")
    load_settings(Settings)


def test_secrets_are_neither_in_the_repr_nor_in_errors() -> None:
    settings = make_settings(
        database_url="postgresql://me:hunter2@host/db", redis_url="redis://:hunter2@host"
    )
    assert PEPPER not in repr(settings)
    assert "hunter2" not in repr(settings)
    with pytest.raises(ValidationError) as error:
        make_settings(api_key_peppers=f"one:{PEPPER}")
    assert PEPPER not in str(error.value)


@pytest.mark.parametrize(
    ("environment_name", "docs_enabled", "key_environment", "docs_are_public"),
    [
        ("production", None, "live", False),
        ("production", True, "live", True),
        ("development", None, "test", True),
        ("test", False, "test", False),
    ],
)
def test_keys_in_production_are_live_and_the_docs_are_hidden(
    environment_name: str, docs_enabled: bool | None, key_environment: str, docs_are_public: bool
) -> None:
    settings = make_settings(environment=environment_name, docs_enabled=docs_enabled)
    assert settings.key_environment == key_environment
    assert settings.docs_are_public is docs_are_public
