"""A key can be widened by a caller who has all of its scopes."""

from datetime import UTC, datetime

import pytest

from app.api_keys import service
from app.api_keys.schemas import ApiKeyCreate, ApiKeyRenew
from app.api_keys.widening import is_higher, is_later, is_wider
from app.auth.caller import Caller
from app.auth.scopes import Scope
from app.core.database import Database
from app.core.errors import InsufficientScope, NotFound
from app.settings import Settings
from tests.conftest import AsUser, ChangeKey, KeyClient, listening, make_settings

KEYS = "/v1/api-keys"
EARLY, LATE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("limit", "than", "expected"),
    [
        ("600/minute", "600/minute", False),
        ("601/minute", "600/minute", True),
        ("11/second", "600/minute", True),
        ("10/second", "600/minute", False),
        ("601/day", "600/minute", True),  # all of them in one minute
        ("600/day", "600/minute", False),
        ("1/day", None, False),
        (None, "1/day", True),
        (None, None, False),
    ],
)
def test_a_limit_is_higher_if_it_allows_more_requests_in_any_window(
    limit: str | None, than: str | None, expected: bool
) -> None:
    assert is_higher(limit, than) is expected


@pytest.mark.parametrize(
    ("networks", "than", "expected"),
    [
        (["10.0.0.0/8"], ["10.0.0.0/8"], False),
        (["10.1.0.0/16"], ["192.0.2.0/24", "10.0.0.0/8"], False),
        (["10.0.0.0/7"], ["10.0.0.0/8"], True),
        (["10.0.0.0/8", "192.0.2.1/32"], ["10.0.0.0/8"], True),
        (["2001:db8::/32"], ["0.0.0.0/0"], True),
        (["10.0.0.0/8"], None, False),
        (None, ["0.0.0.0/0", "::/0"], True),
        (None, None, False),
    ],
)
def test_networks_are_wider_if_they_contain_other_addresses(
    networks: list[str] | None, than: list[str] | None, expected: bool
) -> None:
    assert is_wider(networks, than) is expected


@pytest.mark.parametrize(
    ("expires_at", "than", "expected"),
    [
        (LATE, EARLY, True),
        (EARLY, EARLY, False),
        (EARLY, LATE, False),
        (None, LATE, True),
        (LATE, None, False),
        (None, None, False),
    ],
)
def test_no_expiry_is_later_than_any(
    expires_at: datetime | None, than: datetime | None, expected: bool
) -> None:
    assert is_later(expires_at, than) is expected


WIDER = [
    ("PATCH", "", {"scopes": ["api_keys:write", "users:read"]}),
    ("PATCH", "", {"rate_limit": "6/minute"}),
    ("PATCH", "", {"rate_limit": None}),
    ("PATCH", "", {"allowed_cidrs": ["127.0.0.0/8"]}),
    ("PATCH", "", {"allowed_cidrs": None}),
    ("PATCH", "", {"enabled": True}),
    ("POST", "/renew", {"expires_at": "2100-01-01T00:00:00Z"}),
    ("POST", "/renew", {"expires_at": None}),
    ("POST", "/rotate", None),
]
NARROWER = [
    ("PATCH", "", {"scopes": []}),
    ("PATCH", "", {"rate_limit": "4/minute"}),
    ("PATCH", "", {"allowed_cidrs": ["127.0.0.1/32"]}),
    ("POST", "/renew", {"expires_at": "2030-01-01T00:00:00Z"}),
]


async def narrow_key(owner: KeyClient, as_user: AsUser, change_key: ChangeKey) -> KeyClient:
    """A key with one scope, and a limit of each kind."""
    narrow = await as_user(user=owner.user, scopes=[Scope.USERS_READ])
    limits = {"rate_limit": "5/minute", "allowed_cidrs": ["127.0.0.0/16"], "expires_at": LATE}
    await change_key(narrow.key, **limits)
    return narrow


@pytest.mark.parametrize(("method", "path", "body"), WIDER)
async def test_widening_a_key_requires_its_scopes(
    as_user: AsUser, change_key: ChangeKey, method: str, path: str, body: object
) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    narrow = await narrow_key(me, as_user, change_key)
    url = f"{KEYS}/{narrow.key.id}{path}"
    if body == {"enabled": True}:
        await writer.patch(url, json={"enabled": False})
    response = await writer.request(method, url, json=body)
    assert 'scope="users:read"' in response.headers["www-authenticate"]
    assert (await me.request(method, url, json=body)).is_success


@pytest.mark.parametrize(("method", "path", "body"), NARROWER)
async def test_narrowing_a_key_does_not_require_its_scopes(
    as_user: AsUser, change_key: ChangeKey, method: str, path: str, body: object
) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    narrow = await narrow_key(me, as_user, change_key)
    url = f"{KEYS}/{narrow.key.id}{path}"
    assert (await writer.request(method, url, json=body)).is_success


async def test_renaming_a_disabled_key_does_not_enable_it(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()
    writer = await as_user(user=me.user, scopes=[Scope.API_KEYS_WRITE])
    narrow = await narrow_key(me, as_user, change_key)
    await change_key(narrow.key, enabled=False)
    renamed = await writer.patch(f"{KEYS}/{narrow.key.id}", json={"name": "new"})
    assert (renamed.status_code, renamed.json()["status"]) == (200, "disabled")


async def test_only_admins_set_limits_above_the_default(as_user: AsUser) -> None:
    me, admin = await as_user(), await as_user(admin=True)
    too_high = {"rate_limit": "601/minute"}
    new = {"name": "ci", "scopes": [], **too_high}
    rejected = [
        await me.post(KEYS, json=new),
        await me.patch(f"{KEYS}/current", json=too_high),
        await me.patch(f"{KEYS}/current", json={"rate_limit": "999999999/second"}),
    ]
    for response in rejected:
        assert 'scope="admin"' in response.headers["www-authenticate"]
    url = f"{KEYS}/{me.key.id}"
    assert (await me.patch(url, json={"rate_limit": "600/minute"})).is_success
    assert (await admin.patch(url, json=too_high)).is_success
    # The owner can send the same limit again.
    assert (await me.patch(url, json={"name": "new", **too_high})).is_success
    assert (await admin.post(KEYS, json=new)).status_code == 201


@pytest.mark.parametrize("settings", [{"rate_limit": None}], indirect=True)
async def test_without_a_default_limit_no_limit_is_above_it(as_user: AsUser) -> None:
    me = await as_user()
    response = await me.patch(f"{KEYS}/current", json={"rate_limit": "999999999/second"})
    assert response.is_success


async def test_a_demoted_admin_cannot_widen_a_key_with_admin(
    as_user: AsUser, change_key: ChangeKey
) -> None:
    admin, demoted = await as_user(admin=True), await as_user(admin=True)
    await change_key(demoted.key, expires_at=LATE)
    await admin.patch(f"/v1/users/{demoted.user.id}", json={"is_admin": False})
    later = {"expires_at": "2100-01-01T00:00:00Z"}
    response = await demoted.post(f"{KEYS}/current/renew", json=later)
    assert 'scope="admin"' in response.headers["www-authenticate"]
    assert (await demoted.post(f"{KEYS}/current/rotate")).status_code == 201


async def test_the_command_line_can_widen_every_key(
    as_user: AsUser, database: Database, settings: Settings
) -> None:
    me = await as_user()
    async with database.session() as session:
        locked = await service.lock(session, me.key.id, None)
        renewed = await service.renew(session, settings, locked, ApiKeyRenew(expires_at=None))
    assert renewed.expires_at is None


async def test_a_key_of_another_user_is_not_locked(as_user: AsUser, database: Database) -> None:
    me, other = await as_user(), await as_user()
    caller = Caller(me.key.id, me.user.id, frozenset(Scope) - {Scope.ADMIN})
    statements: list[object] = []

    def collect(*execution: object) -> None:
        statements.append(execution[3])

    with listening(database.engine.sync_engine, "before_cursor_execute", collect):
        async with database.session() as session:
            with pytest.raises(NotFound):
                await service.lock(session, other.key.id, caller)
            new = ApiKeyCreate(name="ci", scopes=[], user_id=other.user.id)
            with pytest.raises(InsufficientScope):
                await service.create(session, make_settings(), new, caller)
    assert other.user.id.hex not in repr(statements).replace("-", "")
