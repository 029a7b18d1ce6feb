import hmac
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from app import errors
from app.api_keys import format as key_format
from app.api_keys.cache import KeyCache
from app.api_keys.models import Status, UserApiKey
from app.database import Database, utc_now
from app.scopes import Scope, effective
from app.settings import Settings
from app.users.models import User

logger = logging.getLogger(__name__)

# Columns, not entities, and key and owner in one statement: this runs on every request.
LOOK_UP = (
    select(
        col(UserApiKey.digest),
        col(UserApiKey.pepper_id),
        col(UserApiKey.user_id),
        col(UserApiKey.scopes),
        col(UserApiKey.allowed_cidrs),
        col(UserApiKey.rate_limit),
        col(UserApiKey.enabled),
        col(UserApiKey.expires_at),
        col(UserApiKey.revoked_at),
        col(User.is_active),
        col(User.is_admin),
    )
    .join(User, col(User.id) == col(UserApiKey.user_id))
    .where(col(UserApiKey.id) == bindparam("id"))
)

REFUSALS = {
    Status.REVOKED: errors.ApiKeyRevoked,
    Status.DISABLED: errors.ApiKeyDisabled,
    Status.EXPIRED: errors.ApiKeyExpired,
}
MOST_SEEN = 10_000  # fingerprints of used keys, some 1 MB


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: a key, and what it may do at this moment."""

    key_id: str
    user_id: UUID
    scopes: frozenset[Scope]
    rate_limit: str | None = None

    def require(self, *needed: Scope) -> None:
        if not self.scopes.issuperset(needed):
            raise errors.InsufficientScope(*needed)

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes


class Verified(NamedTuple):
    """A usable key: until when and from where it may be used."""

    caller: Caller
    expires_at: float  # in seconds since 1970; infinite if never
    networks: tuple[IPv4Network | IPv6Network, ...] | None


class Verifier:
    """Turns the text of a key into its caller, or refuses it, in the order that docs/security.md explains."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._prefix = settings.api_key_prefix
        self._environment = settings.key_environment
        self._peppers = {number: secret.get_secret_value() for number, secret in settings.api_key_peppers.items()}
        self._newest = max(self._peppers)
        self._database = database
        self.cache: KeyCache[Verified] = KeyCache(database, enabled=settings.api_key_cache)
        self._seen: dict[bytes, None] = {}  # fingerprints, oldest first
        self._nobody = secrets.token_bytes(32)  # compared with where there is no key, so that it takes as long

    def recall(self, fingerprint: bytes) -> Verified | None:
        """What was found of a key a moment ago, if that is still so."""
        known = self.cache.get(fingerprint)
        return known if known and known.expires_at > time.time() else None

    def was_here(self, fingerprint: bytes) -> bool:
        """Whether this very key was verified in this process before, as far as that is remembered."""
        return fingerprint in self._seen

    def is_malformed(self, text: str) -> bool:
        return key_format.parse(text, self._prefix, self._environment) is None

    def _sign(self, pepper_id: int, text: str) -> bytes:
        return key_format.digest(self._peppers[pepper_id], text)

    async def verify(self, text: str) -> Verified:
        key_id = key_format.parse(text, self._prefix, self._environment)
        if key_id is None:
            raise errors.ApiKeyInvalid
        generation = self.cache.generation
        row = await self._database.look_up(LOOK_UP, {"id": key_id})
        pepper_id = row.pepper_id if row is not None else self._newest
        if pepper_id not in self._peppers:
            logger.warning("key %s was signed with pepper %s, which API_KEY_PEPPERS no longer holds", key_id, pepper_id)
            raise errors.ApiKeyInvalid
        presented = self._sign(pepper_id, text)
        if not hmac.compare_digest(presented, row.digest if row is not None else self._nobody) or row is None:
            raise errors.ApiKeyInvalid
        refuse_unusable(row, utc_now())
        if pepper_id != self._newest:
            await self._sign_again(key_id, text, presented)
        scopes = effective(row.scopes, owner_is_admin=row.is_admin)
        networks = None if row.allowed_cidrs is None else tuple(map(ip_network, row.allowed_cidrs))
        expires_at = inf if row.expires_at is None else row.expires_at.timestamp()
        verified = Verified(Caller(key_id, row.user_id, scopes, row.rate_limit), expires_at, networks)
        fingerprint = key_format.fingerprint(text)
        self._remember(fingerprint)
        self.cache.put(fingerprint, verified, generation)
        return verified

    def _remember(self, fingerprint: bytes) -> None:
        self._seen[fingerprint] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    async def _sign_again(self, key_id: str, text: str, old: bytes) -> None:
        signed_again = (
            update(UserApiKey)
            .where(col(UserApiKey.id) == key_id, col(UserApiKey.digest) == old)
            .values(
                digest=self._sign(self._newest, text), pepper_id=self._newest, updated_at=col(UserApiKey.updated_at)
            )
        )
        try:
            async with self._database.session() as session:
                await (await session.connection()).execute(signed_again)
        except SQLAlchemyError as error:  # a standby, say: the key is good all the same
            logger.warning("key %s could not be signed with the newest pepper: %s", key_id, error)


def refuse_unusable(row: Row[*tuple[object, ...]], now: datetime) -> None:
    status = Status.of(revoked_at=row.revoked_at, enabled=row.enabled, expires_at=row.expires_at, now=now)
    if refusal := REFUSALS.get(status):
        raise refusal
    if not row.is_active:
        raise errors.UserInactive
