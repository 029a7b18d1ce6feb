import hmac
from datetime import timedelta
from unittest.mock import Mock

import pytest
import time_machine
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from sqlmodel import col, update
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from app.api_keys.models import UserApiKey
from app.auth import key_format
from app.core.database import Database, utc_now
from app.main import create_app
from app.users.models import User
from tests import PEPPER
from tests.conftest import AsUser, ChangeKey, make_settings

ME = "/v1/users/me"
NEW_PEPPER = PEPPER[::-1]
BOTH_PEPPERS = {1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}


def error(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def with_checksum(body: str) -> str:
    return body + key_format.checksum(body)


def with_secret_of(other: str, api_key: str) -> str:
    """A well-formed key whose only fault is its secret."""
    return with_checksum(f"{api_key.rpartition('_')[0]}_{other.rpartition('_')[2][:43]}")


async def get_me(app: FastAPI, text: str, *, address: str = "127.0.0.1") -> Response:
    transport = ASGITransport(app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(ME, headers={"Authorization": f"Bearer {text}"})


async def change_owner(database: Database, user: User, **changes: bool) -> None:
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == user.id).values(changes))


async def stored(database: Database, key: UserApiKey) -> UserApiKey:
    async with database.session() as session:
        return await session.get_one(UserApiKey, key.id)


async def test_invalid_keys_get_the_same_response_for_every_reason(
    app: FastAPI, as_user: AsUser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guesses learn nothing: not whether the id exists, nor how far they got."""
    valid, other = (await as_user()).api_key, (await as_user()).api_key
    invalid_before_the_lookup = [
        "malformed",
        valid + "a" * 100,
        valid[:-1] + ("a" if valid[-1] != "a" else "b"),
        with_checksum(valid[:-6].replace("_test_", "_live_")),
    ]
    unknown_id = with_checksum(f"acme_test_{'0' * 16}_{valid[-49:-6]}")
    invalid_after_the_lookup = [unknown_id, with_secret_of(other, valid)]
    fetch_all = Mock(wraps=database.fetch_all)
    compare_digest = Mock(wraps=hmac.compare_digest)  # in constant time
    monkeypatch.setattr(database, "fetch_all", fetch_all)
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    bodies = set()
    for text in invalid_before_the_lookup + invalid_after_the_lookup:
        response = await get_me(app, text)
        assert error(response) == (401, "api_key_invalid")
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
        bodies.add(response.text.replace(response.json()["request_id"], ""))
        calls = 1 if text in invalid_after_the_lookup else 0
        assert (fetch_all.call_count, compare_digest.call_count) == (calls, calls)
        for call in compare_digest.call_args_list:
            assert [len(digest) for digest in call.args] == [32, 32]
        fetch_all.reset_mock()
        compare_digest.reset_mock()
    assert len(bodies) == 1


async def test_the_reasons_are_checked_in_the_documented_order_and_only_with_the_secret(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey, database: Database
) -> None:
    me, other = await as_user(scopes=[]), await as_user()
    await change_owner(database, me.user, is_active=False)
    await change_key(
        me.key,
        revoked_at=utc_now(),
        enabled=False,
        expires_at=utc_now(),
        allowed_cidrs=["192.0.2.0/24"],
        rate_limit="1/hour",
    )

    async def get_error() -> tuple[int, str]:
        return error(await me.get("/v1/api-keys"))

    assert await get_error() == (401, "api_key_revoked")
    forged = with_secret_of(other.api_key, me.api_key)
    assert error(await get_me(app, forged)) == (401, "api_key_invalid")
    await change_key(me.key, revoked_at=None)
    assert await get_error() == (401, "api_key_disabled")
    await change_key(me.key, enabled=True)
    assert await get_error() == (401, "api_key_expired")
    await change_key(me.key, expires_at=None)
    assert await get_error() == (401, "user_inactive")
    await change_owner(database, me.user, is_active=True)
    assert await get_error() == (403, "address_not_allowed")
    await change_key(me.key, allowed_cidrs=None)
    assert await get_error() == (403, "insufficient_scope")
    assert await get_error() == (429, "rate_limited")


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_key_expires_by_the_clock_of_the_app(
    as_user: AsUser, change_key: ChangeKey, years: int
) -> None:
    """The database has the clock of this machine, which is ten years away."""
    expires_at = utc_now().replace(microsecond=0) + timedelta(days=365 * years)
    me = await as_user()
    await change_key(me.key, expires_at=expires_at)
    with time_machine.travel(expires_at - timedelta(milliseconds=1), tick=False):
        assert (await me.get(ME)).status_code == 200
    with time_machine.travel(expires_at, tick=False):
        assert error(await me.get(ME)) == (401, "api_key_expired")


async def test_a_key_is_only_valid_in_its_networks(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()
    await change_key(me.key, allowed_cidrs=["192.0.2.0/24", "2001:db8::/32"])
    for address in ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"):
        assert (await get_me(app, me.api_key, address=address)).status_code == 200
    for address in ("192.0.3.7", "2001:db9::1", "a Unix socket"):
        response = await get_me(app, me.api_key, address=address)
        assert error(response) == (403, "address_not_allowed")
        assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("settings", [{"failed_auth_limit": "1/minute"}], indirect=True)
async def test_a_client_without_an_address_is_in_no_network_and_not_limited(
    app: FastAPI, as_user: AsUser, change_key: ChangeKey
) -> None:
    me = await as_user()

    async def without_address(scope: ASGIScope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": None}, receive, send)

    async def status(text: str) -> int:
        transport = ASGITransport(without_address)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Authorization": f"Bearer {text}"}
            return (await client.get(ME, headers=headers)).status_code

    assert await status(me.api_key) == 200
    await change_key(me.key, allowed_cidrs=["0.0.0.0/0", "::/0"])
    assert await status(me.api_key) == 403
    assert [await status("invalid") for _ in range(2)] == [401, 401]


async def test_a_key_loses_admin_with_its_owner_and_removed_scopes_grant_nothing(
    as_user: AsUser, change_key: ChangeKey, database: Database
) -> None:
    me, other = await as_user(admin=True), await as_user()
    await change_key(me.key, scopes=["admin", "api_keys:read", "removed:long_ago"])
    path = f"/v1/api-keys/{other.key.id}"
    assert (await me.get(path)).status_code == 200
    await change_owner(database, me.user, is_admin=False)
    assert (await me.get(path)).status_code == 404


async def test_a_used_key_is_signed_with_the_newest_pepper_and_other_keys_are_not(
    database: Database, as_user: AsUser, change_key: ChangeKey
) -> None:
    me, other = await as_user(), await as_user()
    app = create_app(make_settings(api_key_peppers=BOTH_PEPPERS), database)
    for _ in range(2):
        assert (await get_me(app, me.api_key)).status_code == 200
        row = await stored(database, me.key)
        assert (row.pepper_id, row.digest) == (2, key_format.digest(NEW_PEPPER, me.api_key))
        assert row.updated_at == me.key.updated_at
    row = await stored(database, other.key)
    assert (row.pepper_id, row.digest) == (1, other.key.digest)
    await change_key(other.key, revoked_at=utc_now())
    assert error(await get_me(app, other.api_key)) == (401, "api_key_revoked")
    assert (await stored(database, other.key)).pepper_id == 1
    only_new = make_settings(api_key_peppers={2: SecretStr(NEW_PEPPER)})
    assert (await get_me(create_app(only_new, database), me.api_key)).status_code == 200


async def test_a_wrong_secret_is_never_signed(database: Database, as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    app = create_app(make_settings(api_key_peppers=BOTH_PEPPERS), database)
    forged = with_secret_of(other.api_key, me.api_key)
    assert error(await get_me(app, forged)) == (401, "api_key_invalid")
    assert (await stored(database, me.key)).digest == me.key.digest


async def test_a_key_is_valid_even_if_the_database_is_read_only(
    database: Database,
    as_user: AsUser,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = await as_user()
    app = create_app(make_settings(api_key_peppers=BOTH_PEPPERS), database)
    read_only = OperationalError("UPDATE", {}, Exception("read-only transaction"))
    monkeypatch.setattr(database, "session", Mock(side_effect=read_only))
    caller = await app.state.verifier.verify(SecretStr(me.api_key))
    assert caller.key_id == me.key.id
    assert f"key {me.key.id} was not signed with the newest pepper" in caplog.text


@pytest.mark.parametrize("settings", [{"api_key_peppers": BOTH_PEPPERS}], indirect=True)
async def test_a_new_key_is_signed_with_the_newest_pepper(
    database: Database, as_user: AsUser
) -> None:
    me = await as_user()
    row = await stored(database, me.key)
    assert (row.pepper_id, row.digest) == (2, key_format.digest(NEW_PEPPER, me.api_key))


async def test_a_key_is_invalid_without_its_pepper(
    database: Database, as_user: AsUser, caplog: pytest.LogCaptureFixture
) -> None:
    me = await as_user()
    app = create_app(make_settings(api_key_peppers={2: SecretStr(NEW_PEPPER)}), database)
    assert error(await get_me(app, me.api_key)) == (401, "api_key_invalid")
    assert f"key {me.key.id} needs pepper 1" in caplog.text


async def test_the_response_is_503_while_the_database_is_unavailable(
    as_user: AsUser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = await as_user()
    unavailable = OperationalError("SELECT", {}, Exception("connection refused"))
    monkeypatch.setattr(database, "fetch_all", Mock(side_effect=unavailable))
    for response in (await me.get(ME), await me.post("/v1/api-keys", json={})):
        assert error(response) == (503, "unavailable")
        assert int(response.headers["retry-after"]) > 0
