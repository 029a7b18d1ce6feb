import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from uuid import UUID

from sqlalchemy import Row, bindparam, select, update
from sqlmodel import col

from app import errors
from app.api_keys import format as key_format
from app.api_keys.models import Status, UserApiKey
from app.database import Database, utc_now
from app.rate_limit import Address
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
MOST_SEEN = 10_000  # digests of used keys, some 2 MB


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


class Verifier:
    """Turns the text of a key into its caller, or refuses it, in the order that docs/security.md explains."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._prefix = settings.api_key_prefix
        self._environment = settings.key_environment
        self._peppers = {number: secret.get_secret_value() for number, secret in settings.api_key_peppers.items()}
        self._newest = max(self._peppers)
        self._database = database
        self._seen: dict[bytes, None] = {}  # digests, oldest first
        self._nobody = secrets.token_bytes(32)  # compared with where there is no key, so that it takes as long

    def was_here(self, text: str) -> bool:
        """Whether this very key was verified in this process before, as far as that is remembered."""
        return len(text) <= key_format.LONGEST_KEY and self._sign(self._newest, text) in self._seen

    def _sign(self, pepper_id: int, text: str) -> bytes:
        return key_format.digest(self._peppers[pepper_id], text)

    async def verify(self, text: str, address: Address | None) -> Caller:
        key_id = key_format.parse(text, self._prefix, self._environment)
        if key_id is None:
            raise errors.ApiKeyInvalid
        async with self._database.connection() as connection:
            row = (await connection.execute(LOOK_UP, {"id": key_id})).first()
        pepper_id = row.pepper_id if row is not None else self._newest
        if pepper_id not in self._peppers:
            logger.warning("key %s was signed with pepper %s, which API_KEY_PEPPERS no longer holds", key_id, pepper_id)
            raise errors.ApiKeyInvalid
        presented = self._sign(pepper_id, text)
        if not hmac.compare_digest(presented, row.digest if row is not None else self._nobody) or row is None:
            raise errors.ApiKeyInvalid
        refuse_unusable(row, utc_now())
        self._remember(self._sign(self._newest, text))
        if row.allowed_cidrs is not None and not is_within(address, row.allowed_cidrs):
            raise errors.AddressNotAllowed
        if pepper_id != self._newest:
            await self._sign_again(key_id, text, presented)
        return Caller(key_id, row.user_id, effective(row.scopes, owner_is_admin=row.is_admin), row.rate_limit)

    def _remember(self, digest: bytes) -> None:
        self._seen[digest] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    async def _sign_again(self, key_id: str, text: str, old: bytes) -> None:
        async with self._database.session() as session:
            await session.exec(
                update(UserApiKey)
                .where(col(UserApiKey.id) == key_id, col(UserApiKey.digest) == old)
                .values(
                    digest=self._sign(self._newest, text),
                    pepper_id=self._newest,
                    updated_at=col(UserApiKey.updated_at),
                )
            )


def refuse_unusable(row: Row[*tuple[object, ...]], now: datetime) -> None:
    status = Status.of(revoked_at=row.revoked_at, enabled=row.enabled, expires_at=row.expires_at, now=now)
    if refusal := REFUSALS.get(status):
        raise refusal
    if not row.is_active:
        raise errors.UserInactive


def is_within(address: Address | None, networks: list[str]) -> bool:
    return address is not None and any(address in ip_network(network) for network in networks)
