from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple
from uuid import UUID

from app.auth.scopes import Scope
from app.core.errors import InsufficientScope


@dataclass(frozen=True, slots=True)
class Caller:
    """The calling key, and what it may do."""

    key_id: str
    user_id: UUID
    scopes: frozenset[Scope]
    rate_limit: str | None = None

    def require(self, *scopes: str) -> None:
        """Raises InsufficientScope."""
        if missing := set(scopes) - self.scopes:
            raise InsufficientScope(*sorted(missing))

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes


class Verified(NamedTuple):
    """A usable key, and when and from where it is usable."""

    caller: Caller
    expires_at: float  # seconds since 1970, or infinity
    networks: tuple[IPv4Network | IPv6Network, ...] | None
