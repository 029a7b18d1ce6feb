"""What this API promises about users and keys, said a second time, in plain Python and without the app."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypedDict

from hypothesis.vendor.pretty import RepresentationPrinter

START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT_LIFETIME = timedelta(days=15)
STATUS = {
    "not_authenticated": 401,
    "api_key_invalid": 401,
    "api_key_revoked": 401,
    "api_key_disabled": 401,
    "api_key_expired": 401,
    "user_inactive": 401,
    "address_not_allowed": 403,
    "insufficient_scope": 403,
    "not_found": 404,
    "conflict": 409,
    "invalid_input": 422,
}

Values = Mapping[str, object]
Refusals = list[tuple[object, str]]  # whether it applies, and its code; of several that apply, the first is told


class Said(TypedDict, total=False):
    """What requests say in their bodies and queries."""

    name: str
    scopes: frozenset[str]
    enabled: bool
    allowed_cidrs: list[str] | None
    expires_at: datetime | None
    user_id: "User | None"
    email: str
    first_name: str
    last_name: str
    is_active: bool
    is_admin: bool
    q: str
    status: str
    expires_before: datetime
    unused_since: datetime
    limit: int


class Row(Protocol):
    """What a list is made of."""

    created_at: datetime

    def shown(self, now: datetime) -> Values: ...


@dataclass(eq=False)
class User:
    id: str
    created_at: datetime
    email: str
    first_name: str = ""
    last_name: str = ""
    is_active: bool = True
    is_admin: bool = False
    deleted: bool = False

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        printer.text(f"<{self.email}>")

    def shown(self, now: datetime) -> Values:
        return {name: value for name, value in vars(self).items() if name != "deleted"}

    def passes(self, query: Said) -> bool:
        searched = f"{self.email}\n{self.first_name}\n{self.last_name}".lower()
        is_found = query.get("q", "").lower() in searched and query.get("is_active") in {None, self.is_active}
        return is_found and not self.deleted

    def asked_for(self, caller: "Key") -> Refusals:
        """What every route of users asks first."""
        return [(caller.lacks("admin"), "insufficient_scope"), (self.deleted, "not_found")]


@dataclass
class Event:
    created_at: datetime
    action: str
    actor: "Key | None"  # None: the command line

    def shown(self, now: datetime) -> Values:
        by = {"actor_user_id": self.actor and self.actor.owner, "actor_key_id": self.actor and self.actor.id}
        return by | {"action": self.action, "created_at": self.created_at}


@dataclass(eq=False)
class Key:
    text: str
    owner: User
    created_at: datetime = START
    name: str = ""
    scopes: frozenset[str] = frozenset()
    allowed_cidrs: list[str] | None = None
    expires_at: datetime | None = None
    enabled: bool = True
    revoked_at: datetime | None = None
    lifetime: timedelta | None = None
    replaced: bool = False
    last_used_at: datetime | None = None
    requests: list[tuple[datetime, bool]] = field(default_factory=list)  # when, and whether it was refused
    events: list[Event] = field(default_factory=list)  # newest first

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        printer.text(f"<key {self.id} of {self.owner.email}>")

    @property
    def id(self) -> str:
        return self.text[10:26]

    def status(self, now: datetime) -> str:
        if self.revoked_at:
            return "revoked"
        if not self.enabled:
            return "disabled"
        return "expired" if self.expires_at and self.expires_at <= now else "active"

    def refusal(self, now: datetime, address: str) -> str | None:
        """Why a request with this key is refused, whatever it asks for."""
        if not self.text:
            return "not_authenticated"
        if self.owner.deleted:
            return "api_key_invalid"
        if self.status(now) != "active":
            return f"api_key_{self.status(now)}"
        if not self.owner.is_active:
            return "user_inactive"
        return None if self.allowed_cidrs in (None, [f"{address}/32"]) else "address_not_allowed"

    def lacks(self, *needed: str) -> bool:
        return not self.scopes.issuperset(needed) or ("admin" in needed and not self.owner.is_admin)

    def sees(self, other: "Key") -> bool:
        return not other.owner.deleted and (self.owner is other.owner or not self.lacks("admin"))

    def asked_for(self, caller: "Key", scope: str, *, own_is_free: bool = False) -> Refusals:
        """What every route of a key asks first."""
        lacks_scope = caller.lacks(scope) and not (own_is_free and caller is self)
        return [(lacks_scope, "insufficient_scope"), (not caller.sees(self), "not_found")]

    def shown(self, now: datetime) -> Values:
        names = ("id", "name", "scopes", "allowed_cidrs", "created_at", "expires_at", "last_used_at", "revoked_at")
        more = {"user_id": self.owner, "status": self.status(now), "hint": f"{self.text[:26]}…{self.text[-4:]}"}
        return {name: getattr(self, name) for name in names} | more

    def passes(self, query: Said, now: datetime) -> bool:
        expires_before, unused_since = query.get("expires_before"), query.get("unused_since")
        return (
            query.get("q", "").lower() in self.name.lower()
            and query.get("status") in {None, self.status(now)}
            and query.get("user_id") in {None, self.owner}
            and (expires_before is None or (self.expires_at is not None and self.expires_at < expires_before))
            and (unused_since is None or (self.last_used_at or self.created_at) < unused_since)
        )

    def log(self, now: datetime, action: str, actor: "Key | None") -> None:
        self.events.insert(0, Event(now, action, actor))

    def revoke(self, now: datetime, actor: "Key | None") -> None:
        if not self.revoked_at:
            self.revoked_at = now
            self.log(now, "revoked", actor)

    def renew(self, now: datetime, end: datetime | None) -> None:
        self.expires_at, self.lifetime = end, None if end is None else end - now


def plain(value: object) -> object:
    """As JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset):
        return sorted(value)
    return value.id if isinstance(value, User) else value


def as_json(values: Values) -> dict[str, object]:
    return {name: plain(value) for name, value in values.items()}
