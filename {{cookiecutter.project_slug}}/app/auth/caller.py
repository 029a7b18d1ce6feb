from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from math import inf
from uuid import UUID

from app.auth.scopes import Scope
from app.core.errors import InsufficientScope, Unauthorized


@dataclass(frozen=True, slots=True)
class Caller:
    """The calling key, and what it may do."""

    key_id: str
    user_id: UUID
    scopes: frozenset[Scope]
    rate_limit: str | None = None
    original_id: str = ""  # requests are counted by it, so that a rotation does not reset the limit
    expires_at: float = inf  # seconds since 1970
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    rejection: type[Unauthorized] | None = None  # why the key cannot be used

    def require(self, *scopes: str) -> None:
        """Raises Unauthorized if the key cannot be used, and InsufficientScope."""
        if self.rejection:
            raise self.rejection
        if missing := set(scopes) - self.scopes:
            raise InsufficientScope(*sorted(missing))

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes
