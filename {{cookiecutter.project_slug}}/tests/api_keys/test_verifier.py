import hmac
from datetime import timedelta
from typing import NoReturn
from unittest.mock import Mock

import pytest
import time_machine
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from sqlmodel import col, update

from app.api_keys import format as key_format
from app.api_keys import verifier
from app.api_keys.models import Status, UserApiKey
from app.database import Database, utc_now
from app.main import create_app
from app.scopes import Scope
from app.users.models import User
from tests.conftest import PEPPER, AsUser, ChangeKey, make_settings

ME = "/v1/users/me"


def refusal(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def with_checksum(body: str) -> str:
    return body + key_format.checksum(body)


async def ask(app: FastAPI, text: str, *, client_address: str = "127.0.0.1") -> Response:
    transport = ASGITransport(app, client=(client_address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(ME, headers={"Authorization": f"Bearer {text}"})


async def test_a_good_key_is_let_in(as_user: AsUser) -> None:
    me = await as_user()
    response = await me.get(ME)
    assert response.status_code == 200
    assert response.json()["email"] == me.user.email


async def test_every_reason_of_an_invalid_key_gets_the_same_answer(app: FastAPI, as_user: AsUser) -> None:
    """Who guesses learns nothing: not whether the id exists, nor how far a guess got."""
    good = (await as_user()).api_key
    other = (await as_user()).api_key
    secret = good.split("_")[-1][:43]
    bad = {
        "malformed": "hello",
        "too long": good + "a" * 100,
        "bad checksum": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "other environment": with_checksum(good[:-6].replace("_test_", "_live_")),
        "unknown id": with_checksum(f"acme_test_{'0' * 16}_{secret}"),
        "wrong secret": with_checksum(f"{good.rpartition('_')[0]}_{other.split('_')[-1][:43]}"),
    }
    answers = {why: await ask(app, text) for why, text in bad.items()}
    for why, response in answers.items():
        assert refusal(response) == (401, "api_key_invalid"), why
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
    bodies = {response.text.replace(response.json()["request_id"], "") for response in answers.values()}
    assert len(bodies) == 1


async def test_secrets_are_compared_in_constant_time_also_for_an_unknown_id(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, other = await as_user(), await as_user()
    compare = Mock(wraps=hmac.compare_digest)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for public in (me.api_key.rpartition("_")[0], f"acme_test_{'0' * 16}"):
        compare.reset_mock()
        forged = with_checksum(f"{public}_{other.api_key.split('_')[-1][:43]}")
        assert refusal(await ask(app, forged)) == (401, "api_key_invalid")
        compare.assert_called_once()


async def test_a_malformed_key_is_refused_without_the_database(as_user: AsUser, app: FastAPI) -> None:
    class Unreachable(Database):
        def __init__(self) -> None:
            pass

        def connection(self) -> None:  # type: ignore[override] # it must not be called
            raise AssertionError

    app.state.verifier._database = Unreachable()
    assert refusal(await ask(app, "acme_test_bad")) == (401, "api_key_invalid")


async def test_a_key_ends_at_the_very_moment_of_its_expiry(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    await change_key(me.key, expires_at=utc_now() + timedelta(minutes=1))
    assert (await me.get(ME)).status_code == 200
    await change_key(me.key, expires_at=utc_now())
    assert refusal(await me.get(ME)) == (401, "api_key_expired")


@pytest.mark.parametrize(("offset", "status"), [(-1, Status.EXPIRED), (0, Status.EXPIRED), (1, Status.ACTIVE)])
def test_the_expiry_is_exact(offset: int, status: Status) -> None:
    now = utc_now()
    end = now + timedelta(microseconds=offset)
    assert Status.of(revoked_at=None, enabled=True, expires_at=end, now=now) is status


async def test_a_key_without_an_end_goes_on(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    await change_key(me.key, expires_at=None)
    assert (await me.get(ME)).status_code == 200


async def test_a_revoked_and_a_disabled_key_are_refused(as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    await change_key(me.key, enabled=False)
    assert refusal(await me.get(ME)) == (401, "api_key_disabled")
    await change_key(me.key, revoked_at=utc_now())
    assert refusal(await me.get(ME)) == (401, "api_key_revoked")


async def test_the_key_of_an_inactive_user_is_refused(as_user: AsUser, database: Database) -> None:
    me = await as_user()
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == me.user.id).values(is_active=False))
    assert refusal(await me.get(ME)) == (401, "user_inactive")


async def test_a_key_works_only_from_its_networks(app: FastAPI, as_user: AsUser, change_key: ChangeKey) -> None:
    me = await as_user()
    await change_key(me.key, allowed_cidrs=["192.0.2.0/24", "2001:db8::/32"])
    for address in ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"):
        assert (await ask(app, me.api_key, client_address=address)).status_code == 200
    for address in ("192.0.3.7", "2001:db9::1", "localhost"):
        response = await ask(app, me.api_key, client_address=address)
        assert refusal(response) == (403, "address_not_allowed")
        assert "www-authenticate" not in response.headers


async def test_scopes_that_are_missing_are_named(as_user: AsUser) -> None:
    me = await as_user(scopes=[Scope.USERS_READ])
    response = await me.get("/v1/api-keys")
    assert refusal(response) == (403, "insufficient_scope")
    assert 'error="insufficient_scope", scope="api_keys:read"' in response.headers["www-authenticate"]


async def test_a_key_loses_admin_with_its_owner_and_unknown_scopes_give_nothing(
    as_user: AsUser, change_key: ChangeKey, database: Database
) -> None:
    me, somebody = await as_user(admin=True), await as_user()
    await change_key(me.key, scopes=["admin", "api_keys:read", "dropped:long_ago"])
    assert (await me.get(f"/v1/api-keys/{somebody.key.id}")).status_code == 200
    async with database.session() as session:
        await session.exec(update(User).where(col(User.id) == me.user.id).values(is_admin=False))
    assert (await me.get(f"/v1/api-keys/{somebody.key.id}")).status_code == 404


async def test_what_is_remembered_of_used_keys_is_bounded(
    app: FastAPI, as_user: AsUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "MOST_SEEN", 2)
    keys = [(await as_user()).api_key for _ in range(3)]
    fingerprints = [key_format.fingerprint(text) for text in keys]
    for text, fingerprint in zip(keys, fingerprints, strict=True):
        assert not app.state.verifier.was_here(fingerprint)
        await ask(app, text)
    assert [app.state.verifier.was_here(fingerprint) for fingerprint in fingerprints] == [False, True, True]


NEW_PEPPER = PEPPER[::-1]


async def pepper_of(database: Database, key: UserApiKey) -> tuple[int, bytes]:
    async with database.session() as session:
        row = await session.get_one(UserApiKey, key.id)
        return row.pepper_id, row.digest


async def test_a_key_is_signed_again_with_the_newest_pepper(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    both = {1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}
    app = create_app(make_settings(api_key_peppers=both), database)
    assert (await pepper_of(database, me.key))[0] == 1
    for _ in range(2):
        assert (await ask(app, me.api_key)).status_code == 200
        assert await pepper_of(database, me.key) == (2, key_format.digest(NEW_PEPPER, me.api_key))
    only_new = create_app(make_settings(api_key_peppers={2: SecretStr(NEW_PEPPER)}), database)
    assert (await ask(only_new, me.api_key)).status_code == 200


async def test_to_be_signed_again_is_no_update(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    both = {1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}
    assert (await ask(create_app(make_settings(api_key_peppers=both), database), me.api_key)).status_code == 200
    async with database.session() as session:
        row = await session.get_one(UserApiKey, me.key.id)
    assert (row.pepper_id, row.updated_at) == (2, me.key.updated_at)


async def test_a_key_that_cannot_be_signed_again_is_good_all_the_same(
    database: Database, as_user: AsUser, caplog: pytest.LogCaptureFixture
) -> None:
    me = await as_user()
    app = create_app(make_settings(api_key_peppers={1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}), database)

    class Standby(Database):
        def __init__(self) -> None:
            self.look_up = database.look_up  # type: ignore[method-assign] # which reads

        def session(self, *, read_only: bool = False) -> NoReturn:
            raise OperationalError("UPDATE", {}, Exception("read-only transaction"))

    app.state.verifier._database = Standby()
    assert (await ask(app, me.api_key)).status_code == 200
    assert f"key {me.key.id} could not be signed" in caplog.text
    assert await pepper_of(database, me.key) == (1, me.key.digest)


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_key_expires_by_the_clock_of_the_app(
    database: Database, app: FastAPI, as_user: AsUser, change_key: ChangeKey, years: int
) -> None:
    """The clock of the database, which is that of this machine, is ten years away."""
    end = utc_now().replace(microsecond=0) + timedelta(days=365 * years)
    me = await as_user()
    await change_key(me.key, expires_at=end)
    with time_machine.travel(end - timedelta(milliseconds=1), tick=False):
        assert (await ask(app, me.api_key)).status_code == 200
    with time_machine.travel(end, tick=False):
        assert refusal(await ask(app, me.api_key)) == (401, "api_key_expired")


@pytest.mark.parametrize(
    "settings", [{"api_key_peppers": {1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}}], indirect=True
)
async def test_a_new_key_is_signed_with_the_newest_pepper(database: Database, as_user: AsUser) -> None:
    me = await as_user()
    assert await pepper_of(database, me.key) == (2, key_format.digest(NEW_PEPPER, me.api_key))


async def test_a_key_whose_pepper_is_gone_is_invalid(
    database: Database, as_user: AsUser, caplog: pytest.LogCaptureFixture
) -> None:
    me = await as_user()
    app = create_app(make_settings(api_key_peppers={2: SecretStr(NEW_PEPPER)}), database)
    assert refusal(await ask(app, me.api_key)) == (401, "api_key_invalid")
    assert f"key {me.key.id} was signed with pepper 1" in caplog.text


async def test_a_wrong_secret_is_never_signed_again(database: Database, as_user: AsUser) -> None:
    me, other = await as_user(), await as_user()
    forged = with_checksum(f"{me.api_key.rpartition('_')[0]}_{other.api_key.split('_')[-1][:43]}")
    before = await pepper_of(database, me.key)
    app = create_app(make_settings(api_key_peppers={1: SecretStr(PEPPER), 2: SecretStr(NEW_PEPPER)}), database)
    assert refusal(await ask(app, forged)) == (401, "api_key_invalid")
    assert await pepper_of(database, me.key) == before


async def test_a_database_that_does_not_answer_is_a_503_and_not_a_500(app: FastAPI, as_user: AsUser) -> None:
    me = await as_user()

    class Gone(Database):
        def __init__(self) -> None:
            pass

        async def look_up(self, *_: object) -> NoReturn:
            raise OperationalError("SELECT", {}, Exception("connection refused"))

    app.state.verifier._database = Gone()
    response = await me.get(ME)
    assert refusal(response) == (503, "unavailable")
    assert int(response.headers["retry-after"]) > 0
