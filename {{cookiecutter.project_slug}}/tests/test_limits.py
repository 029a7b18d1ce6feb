from app.api_keys import service
from app.auth import cache, rate_limit
from app.core import database, errors, health, retention
from tests.conftest import make_settings


def test_the_limits_have_their_values() -> None:
    """Other tests replace some of them, or do not notice if one is slightly wrong."""
    assert (cache.READ_SECONDS, cache.TRUST_SECONDS) == (0.25, 1)
    assert (cache.MAX_ENTRIES, cache.MAX_EVENTS, cache.MAX_READS) == (100_000, 2000, 2)
    assert all("30 seconds" in since for since in cache.SINCE.values())
    assert (rate_limit.MAX_WINDOWS, rate_limit.REDIS_TIMEOUT_SECONDS) == (100_000, 0.2)
    assert (database.SESSION_CONNECTIONS, database.LOOKUP_CONNECTIONS) == (9, 3)
    assert database.CHECK_CONNECTIONS == 3
    assert (errors.MAX_ERRORS, errors.MAX_FIELD_NAME) == (20, 64)
    assert (health.MAX_SECONDS, health.REUSE_SECONDS) == (0.8, 0.1)
    assert (retention.PAUSE_SECONDS, retention.SHUTDOWN_SECONDS) == (0.02, 5)
    assert (service.STEP, service.PAUSE_SECONDS) == (1000, 0.01)
    assert [one.chunk for one in service.retention(make_settings())] == [100, 100]
