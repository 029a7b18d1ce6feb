from enum import StrEnum


class Scope(StrEnum):
    """What a key may be allowed to do. Add your own here, and ask for it in a route with `requires(Scope.…)`."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    API_KEYS_READ = "api_keys:read"
    API_KEYS_WRITE = "api_keys:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


def effective(granted: list[str], *, owner_is_admin: bool) -> frozenset[Scope]:
    """A key's scopes, cut down to what its owner may do now. Scopes that a later version has dropped give nothing."""
    known = frozenset(scope for scope in Scope if scope in granted)
    return known if owner_is_admin else known - {Scope.ADMIN}
