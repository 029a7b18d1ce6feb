import hmac
import logging
import secrets
from functools import partial
from ipaddress import ip_network
from math import inf
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import class_mapper
from sqlmodel import col

from app.api_keys.models import Status, UserApiKey
from app.auth import key_format
from app.auth.cache import KeyCache
from app.auth.caller import Caller
from app.auth.scopes import effective_scopes
from app.core import errors
from app.core.database import Database
from app.settings import Settings
from app.users.models import User

logger = logging.getLogger(__name__)

# Columns instead of entities, and both tables in one statement, because this runs often.
FIND_KEY = (
    select(
        *class_mapper(UserApiKey).columns,
        col(User.is_active),
        col(User.is_admin),
    )
    .join(User, col(User.id) == col(UserApiKey.user_id))
    .where(col(UserApiKey.id) == bindparam("id"))
)

ERRORS = {
    Status.REVOKED: errors.ApiKeyRevoked,
    Status.DISABLED: errors.ApiKeyDisabled,
    Status.EXPIRED: errors.ApiKeyExpired,
}

KeyRow = Row[*tuple[Any, ...]]  # Any: the columns of FIND_KEY


def caller_of(row: KeyRow) -> Caller:
    """Also of a key that cannot be used. Its `rejection` explains why."""
    rejection = ERRORS.get(Status.of(row.revoked_at, row.enabled, row.expires_at))
    if rejection is None and not row.is_active:
        rejection = errors.UserInactive
    return Caller(
        key_id=row.id,
        user_id=row.user_id,
        scopes=effective_scopes(row.scopes, owner_is_admin=row.is_admin),
        rate_limit=row.rate_limit,
        original_id=row.original_id,
        expires_at=row.expires_at.timestamp() if row.expires_at else inf,
        networks=row.allowed_cidrs and tuple(map(ip_network, row.allowed_cidrs)),
        rejection=rejection,
    )


class Verifier:
    """Finds the caller for a key. docs/security.md explains the order of the checks."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.cache = KeyCache(database, settings.api_key_cache_seconds)
        self._prefix = settings.api_key_prefix
        self._environment = settings.key_environment
        self._peppers = {
            pepper_id: pepper.get_secret_value()
            for pepper_id, pepper in settings.api_key_peppers.items()
        }
        self._newest_pepper = max(self._peppers)
        self._database = database
        self._dummy_digest = secrets.token_bytes(32)  # of an unknown id

    async def verify(self, key: SecretStr) -> Caller:
        """The caller, even of a key that cannot be used. Raises ApiKeyInvalid."""
        key_id = key_format.parse(key.get_secret_value(), self._prefix, self._environment)
        if key_id is None:
            raise errors.ApiKeyInvalid
        return await self.cache.look_up(key, partial(self._look_up, key_id))

    async def _look_up(self, key_id: str, key: SecretStr) -> Caller:
        rows = await self._database.fetch_all(FIND_KEY, {"id": key_id})
        row = rows[0] if rows else None
        pepper_id = row.pepper_id if row else self._newest_pepper
        if pepper_id not in self._peppers:
            logger.warning(
                "key %s needs pepper %s, which API_KEY_PEPPERS does not contain", key_id, pepper_id
            )
            raise errors.ApiKeyInvalid
        digest = key_format.digest(self._peppers[pepper_id], key.get_secret_value())
        stored_digest = row.digest if row else self._dummy_digest
        if not hmac.compare_digest(digest, stored_digest) or row is None:
            raise errors.ApiKeyInvalid
        caller = caller_of(row)
        if pepper_id != self._newest_pepper and not caller.rejection:
            await self._sign_again(key_id, key, digest)
        return caller

    async def _sign_again(self, key_id: str, key: SecretStr, old_digest: bytes) -> None:
        """Sign the key with the newest pepper, so that the old one can be removed."""
        new_digest = key_format.digest(self._peppers[self._newest_pepper], key.get_secret_value())
        statement = (
            update(UserApiKey)
            .where(col(UserApiKey.id) == key_id, col(UserApiKey.digest) == old_digest)
            .values(
                digest=new_digest,
                pepper_id=self._newest_pepper,
                updated_at=col(UserApiKey.updated_at),
            )
        )
        try:
            async with self._database.session() as session:
                await (await session.connection()).execute(statement)
        except SQLAlchemyError as error:  # the database may be read-only; the key is still valid
            logger.warning("key %s was not signed with the newest pepper: %s", key_id, error)
