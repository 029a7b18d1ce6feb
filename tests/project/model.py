"""The documented rules for users, keys and audit events, in plain Python and without the app."""

from collections.abc import Mapping
from dataclasses import dataclass
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
RECORDED = {"is_active", "is_admin", "scopes", "enabled", "expires_at", "allowed_cidrs"}

Values = Mapping[str, object]
# Conditions and the error codes that they cause. The first condition that holds decides.
Rejections = list[tuple[object, str]]


class Fields(TypedDict, total=False):
    """The fields of bodies and queries."""

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
    action: str
    actor_key_id: "Key"
    target_key_id: "Key"
    target_user_id: "User"


class Row(Protocol):
    """An item of a list."""

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

    def matches(self, query: Fields) -> bool:
        searched = f"{self.email}\n{self.first_name}\n{self.last_name}".lower()
        is_active = query.get("is_active", self.is_active)
        found = query.get("q", "").lower() in searched and is_active == self.is_active
        return found and not self.deleted

    def rejections(self, caller: "Key") -> Rejections:
        """The first checks of every route for admins that names a user."""
        return [(caller.lacks("admin"), "insufficient_scope"), (self.deleted, "not_found")]


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

    def __post_init__(self) -> None:
        self.requests: list[tuple[datetime, bool]] = []  # when, and whether it failed

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

    def is_working(self, now: datetime) -> bool:
        """It counts for the maximum number of keys."""
        return not self.revoked_at and (self.expires_at is None or self.expires_at > now)

    def rejection(self, now: datetime, address: str) -> str | None:
        """The error code of every request with this key, if it is not usable."""
        if not self.text:
            return "not_authenticated"
        if self.owner.deleted:
            return "api_key_invalid"
        if self.status(now) != "active":
            return f"api_key_{self.status(now)}"
        if not self.owner.is_active:
            return "user_inactive"
        return None if self.allowed_cidrs in (None, [f"{address}/32"]) else "address_not_allowed"

    def lacks(self, *scopes: str) -> bool:
        is_demoted = "admin" in scopes and not self.owner.is_admin
        return is_demoted or not self.scopes.issuperset(scopes)

    def sees(self, other: "Key") -> bool:
        return not other.owner.deleted and (self.owner is other.owner or not self.lacks("admin"))

    def rejections(
        self, caller: "Key", scope: str, *, free_for_current: bool = False
    ) -> Rejections:
        """The first checks of every route that names a key."""
        lacks_scope = caller.lacks(scope) and not (free_for_current and caller is self)
        return [(lacks_scope, "insufficient_scope"), (not caller.sees(self), "not_found")]

    def shown(self, now: datetime) -> Values:
        fields = "id name scopes allowed_cidrs created_at expires_at last_used_at revoked_at"
        return {name: getattr(self, name) for name in fields.split()} | {
            "user_id": self.owner,
            "status": self.status(now),
            "hint": f"{self.text[:26]}…{self.text[-4:]}",
        }

    def matches(self, query: Fields, now: datetime) -> bool:
        before, since = query.get("expires_before"), query.get("unused_since")
        return (
            query.get("q", "").lower() in self.name.lower()
            and query.get("status") in {None, self.status(now)}
            and query.get("user_id") in {None, self.owner}
            and (before is None or (self.expires_at is not None and self.expires_at < before))
            and (since is None or (self.last_used_at or self.created_at) < since)
        )

    def renew(self, now: datetime, expires_at: datetime | None) -> None:
        self.expires_at = expires_at
        self.lifetime = None if expires_at is None else expires_at - now


@dataclass(eq=False)
class Event:
    created_at: datetime  # the API shows the time of the database, which cannot be set
    action: str
    actor: Key | None  # None: the command line
    target_user: User
    target_key: Key | None
    changes: dict[str, object]

    def matches(self, query: Fields) -> bool:
        return (
            query.get("action") in {None, self.action}
            and query.get("actor_key_id") in {None, self.actor}
            and query.get("target_key_id") in {None, self.target_key}
            and query.get("target_user_id") in {None, self.target_user}
        )

    def shown(self, now: datetime) -> Values:
        return {
            "action": self.action,
            "actor_user_id": self.actor and self.actor.owner,
            "actor_key_id": self.actor and self.actor.id,
            "target_user_id": self.target_user,
            "target_key_id": self.target_key and self.target_key.id,
            "changes": self.changes,
        }


def differences(row: User | Key, fields: Values) -> dict[str, object]:
    """The `changes` of an audit event."""
    return {
        name: [plain(getattr(row, name)), plain(new)] if name in RECORDED else None
        for name, new in fields.items()
        if getattr(row, name) != new
    }


def plain(value: object) -> object:
    """The value in JSON."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset):
        return sorted(value)
    return value.id if isinstance(value, User | Key) else value


def as_json(values: Values) -> dict[str, object]:
    return {name: plain(value) for name, value in values.items()}
