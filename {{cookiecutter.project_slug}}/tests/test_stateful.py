"""The app and the model of `tests/model.py` are asked the same, in random order, and agree on every answer.

The suite always takes the same few walks; `HYPOTHESIS_EXAMPLES=1000 pytest -n0 tests/test_stateful.py` takes others.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import pytest
import time_machine
from httpx import ASGITransport, AsyncClient, Response
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlmodel import delete
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import format as key_format
from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.database import Database
from app.main import create_app
from app.scopes import Scope
from app.users import models
from app.users import service as users
from app.users.schemas import UserCreate
from tests.conftest import MakeDatabase, make_settings
from tests.model import DEFAULT_LIFETIME, START, STATUS, Key, Refusals, Row, Said, User, Values, as_json, plain

KEYS, USERS = "/v1/api-keys", "/v1/users"
MOST_KEYS = 4  # of one user
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
ADDRESSES = ["192.0.2.1", "192.0.2.2"]
NO_ONE = User("", START, "", deleted=True)
WITHOUT_KEY, NEVER_ISSUED = Key("", NO_ONE), Key(key_format.generate("acme", "test").text, NO_ONE)

T = TypeVar("T")


class Served:
    """The app on an event loop of its own, at any time, to callers from any address."""

    def __init__(self, runner: asyncio.Runner, database_url: str, longest: timedelta | None) -> None:
        self.runner = runner
        self.database = Database(database_url)
        self.longest = longest
        self.settings = make_settings(
            rate_limit="",
            failed_auth_limit="",
            api_key_max_per_user=MOST_KEYS,
            api_key_max_expire_days=longest and longest.days,
            usage_retention_days=1,
            log_level="error",
        )
        self.app = create_app(self.settings, self.database)

    def at(self, now: datetime, work: Coroutine[None, None, T]) -> T:
        with time_machine.travel(now, tick=False):
            return self.runner.run(work)

    async def flush(self, *, fold: bool) -> None:
        await self.app.state.usage.flush()
        if fold:
            await self.app.state.usage.fold()

    async def answer(
        self, key: Key, address: str, method: str, path: str, json: Values | None, query: Values
    ) -> Response:
        headers = {"Authorization": f"Bearer {key.text}"} if key.text else {}
        transport = ASGITransport(self.app, client=(address, 1))
        params = {name: str(value) for name, value in query.items()}
        async with AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return await client.request(method, path, json=json, params=params)


# What is drawn for a step, some of it from what the walk has come by

callers = st.runner().flatmap(lambda walk: walk.draw_caller())
keys_or_current = st.none() | st.runner().flatmap(lambda walk: walk.draw_key())
users_ever = st.runner().flatmap(lambda walk: st.sampled_from(walk.users[::-1]))
moments = st.runner().flatmap(lambda walk: walk.draw_moment())
yes_or_no = st.booleans()
names = st.sampled_from(["laptop", "Laptop 2", "100%", "a_b"])
parts = st.sampled_from(["", "LAPTOP", "%", "_", "ADA"])
emails = st.sampled_from(["ada@example.com", "Ada@Example.com", "bob@example.com", "eve@example.com"])
scope_sets = st.just(frozenset(Scope)) | st.frozensets(st.sampled_from(Scope))
networks = st.none() | st.sampled_from([[f"{address}/32"] for address in ADDRESSES])
ends = st.none() | moments
statuses = st.sampled_from(["active", "disabled", "expired", "revoked"])
limits = st.sampled_from([1, 2, 100])


def some_of(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=fields)


class Walk(RuleBasedStateMachine):
    def __init__(self, served: Served) -> None:
        """It starts with two admins and another user."""
        super().__init__()
        self.served = served
        self.now = START
        self.address = ADDRESSES[0]
        self.users: list[User] = []
        self.keys: list[Key] = []
        self.cursors: dict[str, tuple[str, datetime]] = {}  # of the last page of a list: next_cursor, and its last row
        self.unseen = {KEYS, USERS}  # the lists that may have changed since an admin saw them
        self.by_command_line(lambda session: session.exec(delete(models.User)))
        for email, is_admin in (("root@example.com", True), ("eve@example.com", True), ("mia@example.com", False)):
            self.create_user_by_command_line(email, is_admin)
            self.create_key_by_command_line(self.users[-1], set(Scope) if is_admin else set(Scope) - {Scope.ADMIN})
        self.create_key_by_command_line(self.users[-1], {Scope.API_KEYS_WRITE})
        self.key = self.keys[-1]  # the one that was last asked about

    def by_command_line(self, do: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """And a second later. No two steps come at the same moment, so that no two rows are equally new."""

        async def work() -> T:
            async with self.served.database.session() as session:
                return await do(session)

        self.now += SECOND
        return self.served.at(self.now, work())

    def create_user_by_command_line(self, email: str, is_admin: bool) -> None:
        new = UserCreate(email=email, is_admin=is_admin)
        row = self.by_command_line(lambda session: users.create(session, new))
        self.users.append(User(str(row.id), self.now, email, is_admin=is_admin))

    def create_key_by_command_line(self, user: User, scopes: set[Scope]) -> None:
        new = ApiKeyCreate(name="by hand", scopes=[*scopes], user_id=UUID(user.id))
        _, text = self.by_command_line(lambda session: api_keys.create(session, self.served.settings, new, None))
        self.add(Key(text, user, self.now, new.name, frozenset(scopes)), self.now + DEFAULT_LIFETIME, None)

    def usable(self) -> list[Key]:
        return [key for key in reversed(self.keys) if not key.refusal(self.now, self.address)]

    def mighty(self) -> list[Key]:
        return [key for key in self.usable() if not key.lacks(*Scope)]

    def draw_caller(self) -> st.SearchStrategy[Key]:
        anyone = [*reversed(self.keys), NEVER_ISSUED, WITHOUT_KEY]
        return st.one_of(
            st.just(self.key), st.sampled_from(self.mighty()), st.sampled_from(self.usable()), st.sampled_from(anyone)
        )

    def draw_key(self) -> st.SearchStrategy[Key]:
        """Half of the time the same as before."""
        return st.just(self.key) | (st.sampled_from(self.keys[::-1]))

    def draw_moment(self) -> st.SearchStrategy[datetime]:
        around = [self.now + away for away in (-DAY, 0 * DAY, DAY / 9, 3 * DAY, 20 * DAY, 20 * DAY + SECOND)]
        known = [moment for key in self.keys for moment in (key.created_at, key.last_used_at, key.expires_at) if moment]
        return st.sampled_from(around) | st.sampled_from(known)

    # What the steps have in common

    def ask(
        self,
        caller: Key,
        method: str,
        path: str,
        refusals: Refusals,
        body: Values | None = None,
        *,
        query: Values | None = None,
        success: int = 200,
    ) -> Response | None:
        """The answer to a request, which has to be the first refusal that applies (then this is None), or a success."""
        refusal = caller.refusal(self.now, self.address)
        if refusal is None:
            refusal = next((code for applies, code in refusals if applies), None)
            caller.requests.append((self.now, refusal is not None))
            if method != "GET":
                self.unseen.add(KEYS if "api-keys" in path else USERS)
        json = None if body is None else as_json(body)
        work = self.served.answer(caller, self.address, method, path, json, as_json(query or {}))
        response = self.served.at(self.now, work)
        code = response.json()["code"] if response.is_error else None
        assert (code, response.status_code) == (refusal, STATUS[refusal] if refusal else success)
        shows_key = success == 201 and path.startswith(KEYS) and not refusal
        assert ('"api_key":' in response.text) == (response.headers.get("cache-control") == "no-store") == shows_key
        assert not any(key.text in response.text for key in self.keys)
        return None if refusal else response

    def ask_for_page(
        self, caller: Key, path: str, refusals: Refusals, rows: Sequence[Row], query: Said, *, go_on: bool
    ) -> None:
        """The first page of what there is now; or of what is older than the last row of another page."""
        cursor = {}
        if go_on and path in self.cursors:
            cursor["cursor"], last = self.cursors[path]
            rows = [row for row in rows if row.created_at < last]
        if response := self.ask(caller, "GET", path, refusals, query={**query, **cursor}):
            page, limit = response.json(), query.get("limit", 50)
            self.agree(page["items"], rows[:limit])
            assert (page["next_cursor"] is not None) == (len(rows) > limit)
            if page["next_cursor"]:
                self.cursors[path] = page["next_cursor"], rows[limit - 1].created_at

    def agree(self, items: Sequence[dict[str, object]], rows: Sequence[Row]) -> None:
        assert items == [item | as_json(row.shown(self.now)) for item, row in zip(items, rows, strict=True)]

    def meant(self, caller: Key, key: Key | None) -> tuple[Key, str]:
        """The key, which for None is the calling one, and its path."""
        self.key = key or (caller if caller in self.keys else self.key)
        return (key, f"{KEYS}/{key.id}") if key else (caller, f"{KEYS}/current")

    def add(self, key: Key, end: datetime | None, actor: Key | None) -> None:
        key.renew(self.now, end)
        self.key = key
        key.log(self.now, "created", actor)
        self.keys.append(key)

    def is_full(self, user: User) -> bool:
        return sum(key.owner is user and not key.revoked_at and not key.replaced for key in self.keys) >= MOST_KEYS

    def is_last_admin(self, user: User) -> bool:
        return [one for one in self.users if one.is_admin and one.is_active and not one.deleted] == [user]

    def is_wrong(self, end: datetime | None) -> bool:
        longest = self.served.longest
        if end is None:
            return longest is not None
        return end <= self.now or (longest is not None and end > self.now + longest)

    # Keys

    @rule(
        caller=callers,
        name=names,
        scopes=scope_sets,
        more=some_of(expires_at=ends, allowed_cidrs=networks, user_id=st.none() | users_ever),
    )
    def create_key(self, caller: Key, name: str, scopes: frozenset[str], more: Said) -> None:
        owner = more.get("user_id") or caller.owner
        end = more.get("expires_at", self.now + DEFAULT_LIFETIME)
        refusals: Refusals = [
            (caller.lacks("api_keys:write"), "insufficient_scope"),
            (caller.lacks("admin") and owner is not caller.owner, "insufficient_scope"),
            (caller.lacks(*scopes), "insufficient_scope"),
            (owner.deleted, "invalid_input"),
            ("admin" in scopes and not owner.is_admin, "invalid_input"),
            (self.is_full(owner), "conflict"),
            (self.is_wrong(end), "invalid_input"),
        ]
        body = {"name": name, "scopes": scopes, **more}
        if response := self.ask(caller, "POST", KEYS, refusals, body, success=201):
            text, only_from = response.json()["api_key"], more.get("allowed_cidrs")
            self.add(Key(text, owner, self.now, name, scopes, only_from), end, caller)
            self.agree([response.json()], self.keys[-1:])

    @rule(
        caller=callers,
        query=some_of(
            limit=limits, q=parts, status=statuses, expires_before=moments, unused_since=moments, user_id=users_ever
        ),
        go_on=yes_or_no,
    )
    def list_keys(self, caller: Key, query: Said, go_on: bool) -> None:
        is_anothers = query.get("user_id", caller.owner) is not caller.owner
        refusals: Refusals = [
            (caller.lacks("api_keys:read"), "insufficient_scope"),
            (caller.lacks("admin") and is_anothers, "insufficient_scope"),
        ]
        rows = [key for key in reversed(self.keys) if caller.sees(key) and key.passes(query, self.now)]
        self.ask_for_page(caller, KEYS, refusals, rows, query, go_on=go_on)

    @rule(caller=callers, key=keys_or_current)
    def read_key(self, caller: Key, key: Key | None) -> None:
        key, path = self.meant(caller, key)
        if response := self.ask(caller, "GET", path, key.asked_for(caller, "api_keys:read", own_is_free=True)):
            self.agree([response.json()], [key])

    @rule(caller=callers, key=keys_or_current, limit=limits, go_on=yes_or_no)
    def list_events(self, caller: Key, key: Key | None, limit: int, go_on: bool) -> None:
        key, path = self.meant(caller, key)
        refusals = key.asked_for(caller, "api_keys:read")
        self.ask_for_page(caller, f"{path}/events", refusals, key.events, {"limit": limit}, go_on=go_on)

    @rule(caller=callers, key=keys_or_current, fold=yes_or_no)
    def read_usage(self, caller: Key, key: Key | None, fold: bool) -> None:
        self.served.at(self.now, self.served.flush(fold=fold))
        for used in self.keys:
            if used.requests:
                used.last_used_at = used.requests[-1][0]
        key, path = self.meant(caller, key)
        first_day = (self.now - 30 * DAY).date()
        counted = [(now.date(), is_error) for now, is_error in key.requests if now.date() >= first_day]
        refusals = key.asked_for(caller, "api_keys:read", own_is_free=True)
        if response := self.ask(caller, "GET", f"{path}/usage", refusals):
            usage = response.json()
            assert (usage["total"], usage["errors"]) == (len(counted), sum(is_error for _, is_error in counted))
            days = {bucket["start"]: bucket["requests"] for bucket in usage["buckets"] if bucket["requests"]}
            assert days == Counter(f"{day}T00:00:00Z" for day, _ in counted)

    @rule(
        caller=callers,
        key=keys_or_current,
        changes=some_of(name=names, scopes=scope_sets, enabled=yes_or_no, allowed_cidrs=networks),
    )
    def change_key(self, caller: Key, key: Key | None, changes: Said) -> None:
        key, path = self.meant(caller, key)
        added = changes.get("scopes", frozenset()) - key.scopes
        refusals = [
            *key.asked_for(caller, "api_keys:write"),
            (key.revoked_at, "conflict"),
            (caller.lacks(*added), "insufficient_scope"),
            ("admin" in added and not key.owner.is_admin, "invalid_input"),
        ]
        if response := self.ask(caller, "PATCH", path, refusals, changes):
            vars(key).update(changes)
            key.log(self.now, "updated", caller)
            self.agree([response.json()], [key])

    @rule(caller=callers, key=keys_or_current)
    def revoke_key(self, caller: Key, key: Key | None) -> None:
        key, path = self.meant(caller, key)
        refusals = key.asked_for(caller, "api_keys:write", own_is_free=True)
        if self.ask(caller, "DELETE", path, refusals, success=204):
            key.revoke(self.now, caller)

    @rule(caller=callers, key=keys_or_current, body=some_of(expires_at=ends))
    def renew_key(self, caller: Key, key: Key | None, body: Said) -> None:
        key, path = self.meant(caller, key)
        end = body.get("expires_at", self.now + DEFAULT_LIFETIME)
        refusals = [
            *key.asked_for(caller, "api_keys:write"),
            (key.revoked_at or key.replaced, "conflict"),
            (self.is_wrong(end), "invalid_input"),
        ]
        if response := self.ask(caller, "POST", f"{path}/renew", refusals, body):
            key.renew(self.now, end)
            key.log(self.now, "renewed", caller)
            self.agree([response.json()], [key])

    @rule(caller=callers, key=keys_or_current, overlap=st.sampled_from([0, 1, 3600, 2_592_000]))
    def rotate_key(self, caller: Key, key: Key | None, overlap: int) -> None:
        key, path = self.meant(caller, key)
        refusals = [
            *key.asked_for(caller, "api_keys:write", own_is_free=True),
            (key.revoked_at or key.replaced or not key.enabled, "conflict"),
            (caller.lacks(*key.scopes) and key is not caller, "insufficient_scope"),
        ]
        body = {"overlap_seconds": overlap}
        if response := self.ask(caller, "POST", f"{path}/rotate", refusals, body, success=201):
            successor = Key(response.json()["api_key"], key.owner, self.now, key.name, key.scopes, key.allowed_cidrs)
            self.add(successor, None if key.lifetime is None else self.now + key.lifetime, caller)
            self.agree([response.json()], [successor])
            self.key = key
            end = self.now + timedelta(seconds=overlap)
            key.expires_at, key.replaced = min(key.expires_at or end, end), True
            key.log(self.now, "rotated", caller)
            assert response.json()["previous"] == {"id": key.id, "expires_at": plain(key.expires_at)}

    # Users

    @rule(caller=callers, email=emails, more=some_of(is_admin=yes_or_no, last_name=names))
    def create_user(self, caller: Key, email: str, more: Said) -> None:
        is_taken = any(user.email == email.lower() and not user.deleted for user in self.users)
        refusals: Refusals = [(caller.lacks("admin"), "insufficient_scope"), (is_taken, "conflict")]
        if response := self.ask(caller, "POST", USERS, refusals, {"email": email, **more}, success=201):
            user = User(response.json()["id"], self.now, email.lower())
            vars(user).update(more)
            self.users.append(user)
            self.agree([response.json()], [user])

    @rule(caller=callers, query=some_of(limit=limits, q=parts, is_active=yes_or_no), go_on=yes_or_no)
    def list_users(self, caller: Key, query: Said, go_on: bool) -> None:
        rows = [user for user in reversed(self.users) if user.passes(query)]
        self.ask_for_page(caller, USERS, [(caller.lacks("admin"), "insufficient_scope")], rows, query, go_on=go_on)

    @rule(caller=callers, user=st.none() | users_ever)
    def read_user(self, caller: Key, user: User | None) -> None:
        path, refusals = (f"{USERS}/{user.id}", user.asked_for(caller)) if user else (f"{USERS}/me", [])
        if response := self.ask(caller, "GET", path, refusals):
            self.agree([response.json()], [user or caller.owner])

    @rule(caller=callers, user=users_ever, changes=some_of(first_name=names, is_active=yes_or_no, is_admin=yes_or_no))
    def change_user(self, caller: Key, user: User, changes: Said) -> None:
        is_loss = not (changes.get("is_active", True) and changes.get("is_admin", True))
        refusals = [*user.asked_for(caller), (is_loss and self.is_last_admin(user), "conflict")]
        if response := self.ask(caller, "PATCH", f"{USERS}/{user.id}", refusals, changes):
            vars(user).update(changes)
            self.agree([response.json()], [user])
            self.key = next((key for key in reversed(self.keys) if key.owner is user), self.key)

    @rule(caller=callers, user=users_ever)
    def delete_user(self, caller: Key, user: User) -> None:
        refusals = [*user.asked_for(caller), (self.is_last_admin(user), "conflict")]
        if self.ask(caller, "DELETE", f"{USERS}/{user.id}", refusals, success=204):
            user.deleted = True

    @rule(caller=callers, user=users_ever)
    def revoke_all_keys(self, caller: Key, user: User) -> None:
        unrevoked = [key for key in self.keys if key.owner is user and not key.revoked_at]
        if response := self.ask(caller, "DELETE", f"{USERS}/{user.id}/api-keys", user.asked_for(caller)):
            assert response.json() == {"revoked": len(unrevoked)}
            for key in unrevoked:
                key.revoke(self.now, caller)

    @rule(caller=callers, changes=some_of(first_name=names, last_name=names))
    def change_me(self, caller: Key, changes: Said) -> None:
        refusals: Refusals = [(caller.lacks("users:write"), "insufficient_scope")]
        if response := self.ask(caller, "PATCH", f"{USERS}/me", refusals, changes):
            vars(caller.owner).update(changes)
            self.agree([response.json()], [caller.owner])

    # The world around

    @rule(moment=moments)
    def wait(self, moment: datetime) -> None:
        """So that the next step comes at this moment."""
        self.now = max(self.now, moment - SECOND)

    @rule(address=st.sampled_from(ADDRESSES))
    def move(self, address: str) -> None:
        self.address = address

    @invariant()
    def an_admin_sees_what_the_model_holds(self) -> None:
        self.now += SECOND
        if not self.mighty():
            self.help_an_admin()
        if USERS in self.unseen:
            self.list_users(self.mighty()[0], {"limit": 100}, go_on=False)
        if KEYS in self.unseen:
            self.list_keys(self.mighty()[0], {"limit": 100}, go_on=False)
        self.unseen.clear()

    def help_an_admin(self) -> None:
        admin = next(user for user in self.users if user.is_admin and user.is_active and not user.deleted)
        if self.is_full(admin):
            self.by_command_line(lambda session: api_keys.revoke_all(session, UUID(admin.id), None))
            for key in self.keys:
                if key.owner is admin:
                    key.revoke(self.now, None)
        self.create_key_by_command_line(admin, set(Scope))
        self.now += SECOND


@pytest.fixture(params=[None, 20 * DAY])
def served(request: pytest.FixtureRequest, make_database: MakeDatabase) -> Iterator[Served]:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        served = Served(runner, make_database(), longest=request.param)
        yield served
        runner.run(served.database.dispose())


def test_the_app_does_what_the_model_does(served: Served) -> None:
    examples = os.environ.get("HYPOTHESIS_EXAMPLES")
    far = settings(
        Walk.TestCase.settings,
        max_examples=int(examples or 3),
        stateful_step_count=40,
        derandomize=examples is None,
    )

    def walk() -> Walk:
        return Walk(served)

    if examples is None:
        seed(1)(walk)
    run_state_machine_as_test(walk, settings=far)  # type: ignore[arg-type] # it only calls it
