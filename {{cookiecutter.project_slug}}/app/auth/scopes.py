from collections.abc import Collection
from enum import StrEnum


# Add your own here, and require them with `requires(Scope.…)`. OpenAPI contains the docstring.
class Scope(StrEnum):
    """What a key can do. New scopes can be added."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    API_KEYS_READ = "api_keys:read"
    API_KEYS_WRITE = "api_keys:write"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


def effective_scopes(granted: Collection[str], *, owner_is_admin: bool) -> frozenset[Scope]:
    """A key's scopes, without `admin` if the owner is no admin, and without unknown ones."""
    scopes = frozenset(filter(granted.__contains__, Scope))
    return scopes if owner_is_admin else scopes - {Scope.ADMIN}
