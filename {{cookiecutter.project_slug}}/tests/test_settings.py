import pytest
from pydantic import SecretStr, ValidationError

from app.settings import Settings, get_settings
from tests.conftest import PEPPER, make_settings

GOOD = {"DATABASE_URL": "sqlite:///./app.db", "API_KEY_PEPPERS": f"1:{PEPPER}", "API_KEY_PREFIX": "acme"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEY_PEPPERS", f"1:{PEPPER}, 2:{PEPPER[::-1]}")
    environment.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1")
    environment.setenv("API_KEY_MAX_EXPIRE_DAYS", "")
    settings = Settings()
    assert settings.api_key_peppers == {1: SecretStr(PEPPER), 2: SecretStr(PEPPER[::-1])}
    assert settings.trusted_proxies == ["10.0.0.0/8", "192.0.2.1"]
    assert settings.api_key_max_expire_days is None
    assert settings.cors_origins == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///./app.db", "sqlite+aiosqlite:///./app.db"),
        ("postgres://me:p%40ss@host/db", "postgresql+psycopg://me:p%40ss@host/db"),
        ("postgresql://host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
    ],
)
def test_a_plain_database_url_gets_our_driver(url: str, expected: str) -> None:
    assert make_settings(database_url=url).database_url == expected


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("API_KEY_PEPPERS", None, "API_KEY_PEPPERS is missing"),
        ("API_KEY_PEPPERS", "", "API_KEY_PEPPERS must read id:secret"),
        ("API_KEY_PEPPERS", PEPPER, "API_KEY_PEPPERS must read id:secret"),
        ("API_KEY_PEPPERS", f"1:{PEPPER},1:{PEPPER}", "API_KEY_PEPPERS must read id:secret"),
        ("API_KEY_PEPPERS", f"4294967296:{PEPPER}", "API_KEY_PEPPERS has an id over"),
        ("API_KEY_PEPPERS", f"1:{PEPPER[:31]}", "API_KEY_PEPPERS has a secret (id 1) shorter than 32"),
        ("API_KEY_PEPPERS", "1:" + "x" * 40, "API_KEY_PEPPERS has a secret (id 1) that is a sample"),
        ("API_KEY_PEPPERS", "1:please-change-me-to-something-random", "API_KEY_PEPPERS has a secret (id 1) that is a"),
        ("API_KEY_PEPPERS", "1:<a secret of at least 32 characters>", "API_KEY_PEPPERS has a secret (id 1) that is a"),
        ("DATABASE_URL", None, "DATABASE_URL is missing"),
        ("DATABASE_URL", "mysql://host/db", "DATABASE_URL must begin with sqlite:// or postgresql://"),
        ("DATABASE_URL", "app.db", "DATABASE_URL is no database URL"),
        ("API_KEY_PREFIX", "Acme", "API_KEY_PREFIX"),
        ("API_KEY_EXPIRE_DAYS", "0", "API_KEY_EXPIRE_DAYS"),
        ("API_KEY_MAX_EXPIRE_DAYS", "14", "API_KEY_EXPIRE_DAYS is more than API_KEY_MAX_EXPIRE_DAYS"),
        ("API_KEY_LOCATIONS", "cookie", "API_KEY_LOCATIONS"),
        ("API_KEY_LOCATIONS", "", "API_KEY_LOCATIONS"),
        ("TRUSTED_PROXIES", "everybody", "TRUSTED_PROXIES"),
        ("ENVIRONMENT", "staging", "ENVIRONMENT"),
    ],
)
def test_a_wrong_value_stops_the_start_with_a_sentence_that_names_it(
    environment: pytest.MonkeyPatch, variable: str, value: str | None, sentence: str
) -> None:
    if value is None:
        environment.delenv(variable)
    else:
        environment.setenv(variable, value)
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as stop:
        get_settings()
    assert str(stop.value).startswith(sentence)
    assert not value or len(value) < 20 or value not in str(stop.value)


def test_there_is_at_least_one_pepper() -> None:
    with pytest.raises(ValidationError, match="holds no pepper"):
        make_settings(api_key_peppers={})


def test_secrets_are_not_in_the_repr() -> None:
    settings = make_settings(database_url="postgresql://me:hunter2@host/db", redis_url="redis://:hunter2@host")
    assert PEPPER not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_secrets_are_not_in_the_error_about_them() -> None:
    with pytest.raises(ValidationError) as error:
        make_settings(api_key_peppers=f"one:{PEPPER}")
    assert PEPPER not in str(error.value)


@pytest.mark.parametrize(
    ("environment_name", "docs_enabled", "key_environment", "public"),
    [
        ("production", None, "live", False),
        ("production", True, "live", True),
        ("development", None, "test", True),
        ("test", False, "test", False),
    ],
)
def test_production_makes_live_keys_and_hides_the_docs(
    environment_name: str, docs_enabled: bool | None, key_environment: str, public: bool
) -> None:
    settings = make_settings(environment=environment_name, docs_enabled=docs_enabled)
    assert settings.key_environment == key_environment
    assert settings.docs_are_public is public
