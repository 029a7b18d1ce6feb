"""Random requests: each response is the one that the model in `model.py` predicts.

The requests are always the same. HYPOTHESIS_EXAMPLES=1000 sends others.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
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

from app.api_keys import service as api_keys
from app.api_keys.schemas import ApiKeyCreate
from app.audit.models import Action, AuditEvent
from app.auth import key_format
from app.auth.scopes import Scope
from app.core.database import Database
from app.core.retention import purge
from app.main import create_app
from app.users import models
from app.users import service as users
from app.users.schemas import UserCreate
from tests.conftest import MakeDatabase, make_settings
from tests.model import (
    DEFAULT_LIFETIME,
    START,
    STATUS,
    Event,
    Fields,
    Key,
    Rejections,
    Row,
    User,
    Values,
    as_json,
    differences,
    plain,
)

EXAMPLES = os.environ.get("HYPOTHESIS_EXAMPLES")
KEYS, USERS, EVENTS = "/v1/api-keys", "/v1/users", "/v1/audit-events"
MAX_KEYS = 3  # of one user
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
RETENTION = 2 * DAY
ADDRESSES = ["192.0.2.1", "192.0.2.2"]
NOBODY = User("", START, "", deleted=True)
NO_KEY, UNKNOWN_KEY = Key("", NOBODY), Key(key_format.generate("acme", "test").text, NOBODY)

T = TypeVar("T")


class AppRunner:
    """The app in a separate event loop, at any time, for clients with any address."""

    def __init__(self, runner: asyncio.Runner, url: str, max_lifetime: timedelta | None) -> None:
        self.runner = runner
        self.database = Database(url)
        self.max_lifetime = max_lifetime
        self.settings = make_settings(
            rate_limit="",
            failed_auth_limit="",
            api_key_max_per_user=MAX_KEYS,
            api_key_max_expire_days=max_lifetime and max_lifetime.days,
            log_level="error",
        )
        self.app = create_app(self.settings, self.database)

    def at(self, now: datetime, work: Coroutine[None, None, T]) -> T:
        with time_machine.travel(now, tick=False):
            return self.runner.run(work)

    async def flush_usage(self, *, delete_old: bool) -> None:
        await self.app.state.usage.flush()
        if delete_old:
            async for _ in purge(self.database, self.app.state.retention):
                pass

    async def request(
        self, key: Key, address: str, method: str, path: str, body: Values | None, query: Values
    ) -> Response:
        headers = {"Authorization": f"Bearer {key.text}"} if key.text else {}
        transport = ASGITransport(self.app, client=(address, 1))
        params = {name: str(value) for name, value in query.items()}
        async with AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            return await client.request(method, path, json=body, params=params)


# Strategies. Some draw from the users, keys and times of the machine.

callers = st.runner().flatmap(lambda machine: machine.draw_caller())
any_key = st.runner().flatmap(lambda machine: machine.draw_key())
key_or_current = st.none() | any_key
any_user = st.runner().flatmap(lambda machine: st.sampled_from(machine.users[::-1]))
moments = st.runner().flatmap(lambda machine: machine.draw_moment())
names = st.sampled_from(["laptop", "Laptop 2", "100%", "a_b"])
parts = st.sampled_from(["", "LAPTOP", "%", "_", "ADA"])
emails = st.sampled_from(
    ["ada@example.com", "Ada@Example.com", "bob@example.com", "eve@example.com"]
)
scope_sets = st.just(frozenset(Scope)) | st.frozensets(st.sampled_from(Scope))
networks = st.none() | st.sampled_from([[f"{address}/32"] for address in ADDRESSES])
expiries = st.none() | moments
statuses = st.sampled_from(["active", "disabled", "expired", "revoked"])
limits = st.sampled_from([1, 2, 100])


def some_of(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=fields)


class Machine(RuleBasedStateMachine):
    def __init__(self, runner: AppRunner) -> None:
        """It starts with two admins and one other user."""
        super().__init__()
        self.runner = runner
        self.now = START
        self.address = ADDRESSES[0]
        self.users: list[User] = []
        self.keys: list[Key] = []
        self.events: list[Event] = []  # newest first
        # By path: the next_cursor of the last page, and the time of its last row.
        self.cursors: dict[str, tuple[str, datetime]] = {}
        self.changed = {KEYS, USERS}  # lists that may have changed since they were compared
        self.by_command_line(lambda session: session.exec(delete(models.User)))
        self.by_command_line(lambda session: session.exec(delete(AuditEvent)))
        for name in ("root", "eve", "mia"):
            is_admin = name != "mia"
            self.create_user_by_command_line(f"{name}@example.com", is_admin)
            scopes = set(Scope) if is_admin else set(Scope) - {Scope.ADMIN}
            self.create_key_by_command_line(self.users[-1], scopes)
        self.create_key_by_command_line(self.users[-1], {Scope.API_KEYS_WRITE})
        self.key = self.keys[-1]  # the key in the last request

    def by_command_line(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """A second later, so that no two rows have the same created_at."""

        async def run() -> T:
            async with self.runner.database.session() as session:
                return await work(session)

        self.now += SECOND
        return self.runner.at(self.now, run())

    def create_user_by_command_line(self, email: str, is_admin: bool) -> None:
        new = UserCreate(email=email, is_admin=is_admin)
        row = self.by_command_line(lambda session: users.create(session, new, None))
        self.add_user(User(str(row.id), self.now, email, is_admin=is_admin), None)

    def create_key_by_command_line(self, user: User, scopes: set[Scope]) -> None:
        new = ApiKeyCreate(name="by hand", scopes=[*scopes], user_id=UUID(user.id))
        settings = self.runner.settings
        created = self.by_command_line(
            lambda session: api_keys.create(session, settings, new, None)
        )
        key = Key(created.text.get_secret_value(), user, self.now, new.name, frozenset(scopes))
        self.add_key(key, self.now + DEFAULT_LIFETIME, None)

    def usable_keys(self) -> list[Key]:
        return [key for key in reversed(self.keys) if not key.rejection(self.now, self.address)]

    def admin_keys(self) -> list[Key]:
        return [key for key in self.usable_keys() if not key.lacks(*Scope)]

    def draw_caller(self) -> st.SearchStrategy[Key]:
        anyone = [*reversed(self.keys), UNKNOWN_KEY, NO_KEY]
        return st.one_of(
            st.just(self.key),
            st.sampled_from(self.admin_keys()),
            st.sampled_from(self.usable_keys()),
            st.sampled_from(anyone),
        )

    def draw_key(self) -> st.SearchStrategy[Key]:
        """Every second time it is the same key as before."""
        return st.just(self.key) | st.sampled_from(self.keys[::-1])

    def draw_moment(self) -> st.SearchStrategy[datetime]:
        distances = (-DAY, 0 * DAY, DAY / 9, 3 * DAY, 20 * DAY, 20 * DAY + SECOND)
        known = [
            moment
            for key in self.keys
            for moment in (key.created_at, key.last_used_at, key.expires_at)
            if moment
        ]
        near = [self.now + distance for distance in distances]
        return st.sampled_from(near) | st.sampled_from(known)

    # Shared by the rules

    def send(
        self,
        caller: Key,
        method: str,
        path: str,
        rejections: Rejections,
        body: Values | None = None,
        *,
        query: Values | None = None,
        success: int = 200,
    ) -> Response | None:
        """The response, or None if it is the expected error."""
        code = caller.rejection(self.now, self.address)
        if code is None:
            code = next((code for applies, code in rejections if applies), None)
            caller.requests.append((self.now, code is not None))
            if method != "GET":
                self.changed.add(KEYS if "api-keys" in path else USERS)
        sent = None if body is None else as_json(body)
        work = self.runner.request(caller, self.address, method, path, sent, as_json(query or {}))
        response = self.runner.at(self.now, work)
        expected = (code, STATUS[code] if code else success)
        found = response.json()["code"] if response.is_error else None
        assert (found, response.status_code) == expected
        shows_key = success == 201 and path.startswith(KEYS) and not code
        assert ('"api_key":' in response.text) == shows_key
        assert not shows_key or response.headers["cache-control"] == "no-store"
        assert not any(key.text in response.text for key in self.keys)
        return None if code else response

    def compare_page(
        self,
        caller: Key,
        path: str,
        rejections: Rejections,
        rows: Sequence[Row],
        query: Fields,
        *,
        next_page: bool,
    ) -> None:
        """Request the first page, or the page after the last one that was requested."""
        cursor = {}
        older = rows
        if next_page and path in self.cursors:
            cursor["cursor"], last = self.cursors[path]
            older = [row for row in rows if row.created_at < last]
        if response := self.send(caller, "GET", path, rejections, query={**query, **cursor}):
            page, limit = response.json(), query.get("limit", 50)
            self.compare(page["items"], older[:limit])
            assert (page["next_cursor"] is not None) == (len(older) > limit)
            if page["next_cursor"]:
                self.cursors[path] = page["next_cursor"], older[limit - 1].created_at
                if not cursor:
                    self.compare_page(caller, path, rejections, rows, query, next_page=True)

    def compare(self, items: Sequence[dict[str, object]], rows: Sequence[Row]) -> None:
        """An item may have more fields than the model knows."""
        pairs = zip(items, rows, strict=True)
        assert items == [item | as_json(row.shown(self.now)) for item, row in pairs]

    def resolve(self, caller: Key, key: Key | None) -> tuple[Key, str]:
        """The key and its path. None stands for `current`."""
        self.key = key or (caller if caller in self.keys else self.key)
        return (key, f"{KEYS}/{key.id}") if key else (caller, f"{KEYS}/current")

    def record(
        self, action: str, actor: Key | None, target: User | Key, changes: Values | None = None
    ) -> None:
        user, key = (target, None) if isinstance(target, User) else (target.owner, target)
        self.events.insert(0, Event(self.now, action, actor, user, key, dict(changes or {})))

    def add_user(self, user: User, actor: Key | None) -> None:
        self.users.append(user)
        self.record("user.created", actor, user)

    def update_user(self, user: User, fields: Fields, actor: Key) -> None:
        if changes := differences(user, fields):
            self.record("user.updated", actor, user, changes)
        vars(user).update(fields)

    def add_key(self, key: Key, expires_at: datetime | None, actor: Key | None) -> None:
        key.renew(self.now, expires_at)
        self.key = key
        self.keys.append(key)
        self.record("api_key.created", actor, key)

    def revoke(self, key: Key, actor: Key | None) -> None:
        if not key.revoked_at:
            key.revoked_at = self.now
            self.record("api_key.revoked", actor, key)

    def working_keys(self, user: User) -> list[Key]:
        return [key for key in self.keys if key.owner is user and key.is_working(self.now)]

    def is_last_admin(self, user: User) -> bool:
        found = [one for one in self.users if one.is_admin and one.is_active and not one.deleted]
        return found == [user]

    def is_invalid_expiry(self, expires_at: datetime | None) -> bool:
        max_lifetime = self.runner.max_lifetime
        if expires_at is None:
            return max_lifetime is not None
        too_late = max_lifetime is not None and expires_at > self.now + max_lifetime
        return expires_at <= self.now or too_late

    # Keys

    @rule(
        caller=callers,
        name=names,
        scopes=scope_sets,
        more=some_of(expires_at=expiries, allowed_cidrs=networks, user_id=st.none() | any_user),
    )
    def create_key(self, caller: Key, name: str, scopes: frozenset[str], more: Fields) -> None:
        owner = more.get("user_id") or caller.owner
        expires_at = more.get("expires_at", self.now + DEFAULT_LIFETIME)
        rejections: Rejections = [
            (caller.lacks("api_keys:write"), "insufficient_scope"),
            (caller.lacks("admin") and owner is not caller.owner, "insufficient_scope"),
            (caller.lacks(*scopes), "insufficient_scope"),
            (owner.deleted, "invalid_input"),
            ("admin" in scopes and not owner.is_admin, "invalid_input"),
            (len(self.working_keys(owner)) >= MAX_KEYS, "conflict"),
            (self.is_invalid_expiry(expires_at), "invalid_input"),
        ]
        body = {"name": name, "scopes": scopes, **more}
        if response := self.send(caller, "POST", KEYS, rejections, body, success=201):
            text, allowed_cidrs = response.json()["api_key"], more.get("allowed_cidrs")
            key = Key(text, owner, self.now, name, scopes, allowed_cidrs)
            self.add_key(key, expires_at, caller)
            self.compare([response.json()], [key])

    @rule(
        caller=callers,
        query=some_of(
            limit=limits,
            q=parts,
            status=statuses,
            expires_before=moments,
            unused_since=moments,
            user_id=any_user,
        ),
        next_page=st.booleans(),
    )
    def list_keys(self, caller: Key, query: Fields, next_page: bool) -> None:
        is_others = query.get("user_id", caller.owner) is not caller.owner
        rejections: Rejections = [
            (caller.lacks("api_keys:read"), "insufficient_scope"),
            (caller.lacks("admin") and is_others, "insufficient_scope"),
        ]
        visible = [key for key in reversed(self.keys) if caller.sees(key)]
        rows = [key for key in visible if key.matches(query, self.now)]
        self.compare_page(caller, KEYS, rejections, rows, query, next_page=next_page)

    @rule(caller=callers, key=key_or_current)
    def read_key(self, caller: Key, key: Key | None) -> None:
        key, path = self.resolve(caller, key)
        rejections = key.rejections(caller, "api_keys:read", free_for_current=True)
        if response := self.send(caller, "GET", path, rejections):
            self.compare([response.json()], [key])

    @rule(caller=callers, key=key_or_current, limit=limits, next_page=st.booleans())
    def list_key_events(self, caller: Key, key: Key | None, limit: int, next_page: bool) -> None:
        key, path = self.resolve(caller, key)
        rejections = key.rejections(caller, "api_keys:read")
        rows = [event for event in self.events if event.target_key is key]
        query: Fields = {"limit": limit}
        path = f"{path}/events"
        self.compare_page(caller, path, rejections, rows, query, next_page=next_page)

    @rule(caller=callers, key=key_or_current, delete_old=st.booleans())
    def read_usage(self, caller: Key, key: Key | None, delete_old: bool) -> None:
        self.runner.at(self.now, self.runner.flush_usage(delete_old=delete_old))
        for used in self.keys:
            if used.requests:
                used.last_used_at = max(moment for moment, _ in used.requests)
            if delete_old:
                used.requests = [
                    (moment, failed)
                    for moment, failed in used.requests
                    if moment.replace(minute=0, second=0) >= self.now - RETENTION
                ]
        key, path = self.resolve(caller, key)
        first_day = (self.now - 30 * DAY).date()
        counted = [
            (moment.date(), failed) for moment, failed in key.requests if moment.date() >= first_day
        ]
        rejections = key.rejections(caller, "api_keys:read", free_for_current=True)
        if response := self.send(caller, "GET", f"{path}/usage", rejections):
            usage = response.json()
            errors = sum(failed for _, failed in counted)
            assert (usage["total"], usage["errors"]) == (len(counted), errors)
            buckets = {bucket["start"]: bucket["requests"] for bucket in usage["buckets"]}
            used_buckets = {start: requests for start, requests in buckets.items() if requests}
            assert used_buckets == Counter(f"{day}T00:00:00Z" for day, _ in counted)

    @rule(
        caller=callers,
        key=key_or_current,
        fields=some_of(
            name=names, scopes=scope_sets, enabled=st.booleans(), allowed_cidrs=networks
        ),
    )
    def update_key(self, caller: Key, key: Key | None, fields: Fields) -> None:
        key, path = self.resolve(caller, key)
        added = fields.get("scopes", frozenset()) - key.scopes
        old, new = key.allowed_cidrs, fields.get("allowed_cidrs", key.allowed_cidrs)
        widens = old is not None and new != old
        rejections = [
            *key.rejections(caller, "api_keys:write"),
            (key.revoked_at, "conflict"),
            (caller.lacks(*added), "insufficient_scope"),
            ("admin" in added and not key.owner.is_admin, "invalid_input"),
            (
                (added or widens) and key is not caller and caller.lacks(*key.scopes),
                "insufficient_scope",
            ),
        ]
        if response := self.send(caller, "PATCH", path, rejections, fields):
            if changes := differences(key, fields):
                self.record("api_key.updated", caller, key, changes)
            vars(key).update(fields)
            self.compare([response.json()], [key])

    @rule(caller=callers, key=key_or_current)
    def revoke_key(self, caller: Key, key: Key | None) -> None:
        key, path = self.resolve(caller, key)
        rejections = key.rejections(caller, "api_keys:write", free_for_current=True)
        if self.send(caller, "DELETE", path, rejections, success=204):
            self.revoke(key, caller)

    @rule(caller=callers, key=key_or_current, body=some_of(expires_at=expiries))
    def renew_key(self, caller: Key, key: Key | None, body: Fields) -> None:
        key, path = self.resolve(caller, key)
        expires_at = body.get("expires_at", self.now + DEFAULT_LIFETIME)
        is_later = key.expires_at and (expires_at is None or expires_at > key.expires_at)
        working = self.working_keys(key.owner)
        rejections = [
            *key.rejections(caller, "api_keys:write"),
            (key.revoked_at or key.replaced, "conflict"),
            (self.is_invalid_expiry(expires_at), "invalid_input"),
            (is_later and caller.lacks(*key.scopes) and key is not caller, "insufficient_scope"),
            (key not in working and len(working) >= MAX_KEYS, "conflict"),
        ]
        if response := self.send(caller, "POST", f"{path}/renew", rejections, body):
            changes = differences(key, {"expires_at": expires_at})
            self.record("api_key.renewed", caller, key, changes)
            key.renew(self.now, expires_at)
            self.compare([response.json()], [key])

    @rule(caller=callers, key=key_or_current, overlap=st.sampled_from([0, 1, 3600, 2_592_000]))
    def rotate_key(self, caller: Key, key: Key | None, overlap: int) -> None:
        key, path = self.resolve(caller, key)
        end = self.now + timedelta(seconds=overlap)
        expires_at = min(key.expires_at or end, end)
        stays = expires_at > self.now
        working = {*self.working_keys(key.owner)} - {key}
        rejections = [
            *key.rejections(caller, "api_keys:write", free_for_current=True),
            (key.revoked_at or key.replaced or not key.enabled, "conflict"),
            (caller.lacks(*key.scopes) and key is not caller, "insufficient_scope"),
            (len(working) + stays >= MAX_KEYS, "conflict"),
        ]
        body = {"overlap_seconds": overlap}
        if response := self.send(caller, "POST", f"{path}/rotate", rejections, body, success=201):
            text = response.json()["api_key"]
            new = Key(text, key.owner, self.now, key.name, key.scopes, key.allowed_cidrs)
            self.add_key(new, None if key.lifetime is None else self.now + key.lifetime, caller)
            self.compare([response.json()], [new])
            self.key = key
            changes = differences(key, {"expires_at": expires_at})
            self.record("api_key.rotated", caller, key, changes)
            key.expires_at, key.replaced = expires_at, True
            previous = {"id": key.id, "expires_at": plain(expires_at)}
            assert response.json()["previous"] == previous

    # Users

    @rule(caller=callers, email=emails, more=some_of(is_admin=st.booleans(), last_name=names))
    def create_user(self, caller: Key, email: str, more: Fields) -> None:
        is_taken = any(user.email == email.lower() and not user.deleted for user in self.users)
        rejections: Rejections = [
            (caller.lacks("admin"), "insufficient_scope"),
            (is_taken, "conflict"),
        ]
        body = {"email": email, **more}
        if response := self.send(caller, "POST", USERS, rejections, body, success=201):
            user = User(response.json()["id"], self.now, email.lower())
            vars(user).update(more)
            self.add_user(user, caller)
            self.compare([response.json()], [user])

    @rule(
        caller=callers,
        query=some_of(limit=limits, q=parts, is_active=st.booleans()),
        next_page=st.booleans(),
    )
    def list_users(self, caller: Key, query: Fields, next_page: bool) -> None:
        rows = [user for user in reversed(self.users) if user.matches(query)]
        rejections: Rejections = [(caller.lacks("admin"), "insufficient_scope")]
        self.compare_page(caller, USERS, rejections, rows, query, next_page=next_page)

    @rule(caller=callers, user=st.none() | any_user)
    def read_user(self, caller: Key, user: User | None) -> None:
        path = f"{USERS}/{user.id}" if user else f"{USERS}/me"
        if response := self.send(caller, "GET", path, user.rejections(caller) if user else []):
            self.compare([response.json()], [user or caller.owner])

    @rule(
        caller=callers,
        user=any_user,
        fields=some_of(first_name=names, is_active=st.booleans(), is_admin=st.booleans()),
    )
    def update_user_as_admin(self, caller: Key, user: User, fields: Fields) -> None:
        stays_admin = fields.get("is_active", True) and fields.get("is_admin", True)
        is_last = self.is_last_admin(user)
        rejections = [*user.rejections(caller), (is_last and not stays_admin, "conflict")]
        if response := self.send(caller, "PATCH", f"{USERS}/{user.id}", rejections, fields):
            self.update_user(user, fields, caller)
            self.compare([response.json()], [user])
            self.key = next((key for key in reversed(self.keys) if key.owner is user), self.key)

    @rule(caller=callers, fields=some_of(first_name=names, last_name=names))
    def update_me(self, caller: Key, fields: Fields) -> None:
        rejections: Rejections = [(caller.lacks("users:write"), "insufficient_scope")]
        if response := self.send(caller, "PATCH", f"{USERS}/me", rejections, fields):
            self.update_user(caller.owner, fields, caller)
            self.compare([response.json()], [caller.owner])

    @rule(caller=callers, user=any_user)
    def delete_user(self, caller: Key, user: User) -> None:
        rejections = [*user.rejections(caller), (self.is_last_admin(user), "conflict")]
        if self.send(caller, "DELETE", f"{USERS}/{user.id}", rejections, success=204):
            user.deleted = True
            self.record("user.deleted", caller, user)

    @rule(caller=callers, user=any_user)
    def revoke_all_keys(self, caller: Key, user: User) -> None:
        unrevoked = [key for key in self.keys if key.owner is user and not key.revoked_at]
        path = f"{USERS}/{user.id}/api-keys"
        if response := self.send(caller, "DELETE", path, user.rejections(caller)):
            assert response.json() == {"revoked": len(unrevoked)}
            for key in unrevoked:
                self.revoke(key, caller)

    @rule(
        caller=callers,
        query=some_of(
            action=st.sampled_from([str(action) for action in Action]),
            actor_key_id=any_key,
            target_key_id=any_key,
            target_user_id=any_user,
        ),
    )
    def list_audit_events(self, caller: Key, query: Fields) -> None:
        """In any order, because one request can write several events at the same time."""
        rejections: Rejections = [(caller.lacks("admin"), "insufficient_scope")]
        sent = {"limit": 100, **query}
        if response := self.send(caller, "GET", EVENTS, rejections, query=sent):
            expected = [
                as_json(event.shown(self.now)) for event in self.events if event.matches(query)
            ]
            found = [
                {name: value for name, value in item.items() if name not in {"id", "created_at"}}
                for item in response.json()["items"]
            ]
            if len(expected) <= 100:
                assert sorted(map(as_text, found)) == sorted(map(as_text, expected))

    # Time and place

    @rule(moment=moments)
    def wait(self, moment: datetime) -> None:
        """The next request is sent at this moment."""
        self.now = max(self.now, moment - SECOND)

    @rule(address=st.sampled_from(ADDRESSES))
    def move(self, address: str) -> None:
        self.address = address

    @invariant()
    def an_admin_sees_everything_that_the_model_holds(self) -> None:
        self.now += SECOND
        if not self.admin_keys():
            self.create_admin_key()
        if USERS in self.changed:
            self.list_users(self.admin_keys()[0], {"limit": 100}, next_page=False)
        if KEYS in self.changed:
            self.list_keys(self.admin_keys()[0], {"limit": 100}, next_page=False)
        if self.changed:
            self.list_audit_events(self.admin_keys()[0], {})
        self.changed.clear()

    def create_admin_key(self) -> None:
        admins = (one for one in self.users if one.is_admin and one.is_active)
        admin = next(one for one in admins if not one.deleted)
        if len(self.working_keys(admin)) >= MAX_KEYS:
            for key in self.working_keys(admin):
                self.by_command_line(partial(revoke_by_id, key.id))
                self.revoke(key, None)
        self.create_key_by_command_line(admin, set(Scope))
        self.now += SECOND


def as_text(item: dict[str, object]) -> str:
    return json.dumps(item, sort_keys=True)


async def revoke_by_id(key_id: str, session: AsyncSession) -> None:
    await api_keys.revoke(session, await api_keys.lock(session, key_id, None))


@pytest.fixture(params=[None, 20 * DAY])
def runner(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AppRunner]:
    monkeypatch.setenv("USAGE_RETENTION_DAYS", f"{RETENTION.days}")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        runner = AppRunner(loop, make_database(), max_lifetime=request.param)
        yield runner
        loop.run(runner.database.dispose())


def test_every_response_is_the_one_that_the_model_predicts(runner: AppRunner) -> None:
    options = settings(
        Machine.TestCase.settings,
        max_examples=int(EXAMPLES or 25),
        stateful_step_count=40,
        derandomize=EXAMPLES is None,
    )

    def machine() -> Machine:
        return Machine(runner)

    if EXAMPLES is None:
        seed(1)(machine)
    run_state_machine_as_test(machine, settings=options)  # type: ignore[arg-type] # it only calls it
