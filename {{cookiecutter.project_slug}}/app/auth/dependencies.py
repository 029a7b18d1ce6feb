"""For a route's signature: who is the caller, and what may they do?"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Security
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from app.auth.caller import Caller
from app.auth.credentials import find_key
from app.auth.rate_limit import RateLimiter
from app.auth.scopes import Scope
from app.auth.verifier import Verifier
from app.core import errors
from app.core.database import SessionDep
from app.core.middleware import client_address
from app.users.models import User


async def get_caller(connection: HTTPConnection, scopes: SecurityScopes) -> Caller:
    """The caller, if its key is usable and has all the scopes that the route requires.

    Tests replace this function with `app.dependency_overrides[get_caller]`.
    """
    state = connection.scope["state"]
    if "authentication_error" in state:  # of AuthenticationMiddleware
        raise state["authentication_error"]
    caller: Caller | None = state.get("caller")
    if caller is None:  # a route can depend on the caller several times
        caller = await authenticate(connection)
    if scopes.scopes:
        caller.require(*scopes.scopes)
    if connection.scope["query_string"]:
        reject_unknown_query(connection)
    return caller


async def authenticate(connection: HTTPConnection) -> Caller:
    state = connection.scope["state"]
    state["is_protected"] = True  # the route cannot change its Cache-Control
    verifier: Verifier = connection.app.state.verifier
    rate_limiter: RateLimiter = connection.app.state.rate_limiter
    key = find_key(connection.scope)
    try:
        caller = verifier.cache.get(key) or await verifier.verify(key)
        state["key_id"], state["user_id"] = caller.key_id, caller.user_id
        if caller.rejection:
            raise caller.rejection
    except errors.Unauthorized:
        await rate_limiter.count_failure(client_address(connection.scope))
        raise
    if caller.networks is not None:
        address = client_address(connection.scope)
        if address is None or not any(address in network for network in caller.networks):
            raise errors.AddressNotAllowed
    state["caller"] = caller  # before the rate limit: requests over it are authenticated too
    await rate_limiter.count_request(caller.original_id, caller.rate_limit)
    return caller


def reject_unknown_query(connection: HTTPConnection) -> None:
    """A misspelled filter would otherwise be ignored. Raises RequestValidationError."""
    known = connection.app.state.protected_endpoints.get(connection.scope.get("endpoint"))
    if known is not None and (unknown := connection.query_params.keys() - known):
        message = "Extra inputs are not permitted"
        found = [{"loc": ("query", name), "msg": message} for name in sorted(unknown)]
        raise RequestValidationError(found)


def requires(*scopes: Scope) -> Any:  # Any: as FastAPI's Security
    """`caller: Annotated[Caller, requires(Scope.ITEMS_READ)]`"""
    return Security(get_caller, scopes=scopes)


CurrentCaller = Annotated[Caller, Security(get_caller)]


async def get_current_user(
    caller: CurrentCaller, session: SessionDep, connection: HTTPConnection
) -> User:
    user = await session.get(User, caller.user_id)
    if user is None and connection.app.state.settings.database_replica_url:
        raise errors.Unavailable  # a new user may not be on the replica yet
    if user is None:  # deleted since the key was verified
        raise errors.ApiKeyInvalid
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


def required_scopes(dependant: Dependant) -> list[str] | None:
    """The scopes that a route requires. None if it needs no key."""
    if dependant.call is get_caller:
        return [*(dependant.parent_oauth_scopes or ()), *(dependant.own_oauth_scopes or ())]
    found = [required_scopes(one) for one in dependant.dependencies]
    if all(scopes is None for scopes in found):
        return None
    return sorted({scope for scopes in found for scope in scopes or ()})


def check_routes(app: FastAPI, public: Iterable[str]) -> None:
    """Exit if a route needs no key and is not public, whatever its kind and path.

    Sets `app.state.protected_endpoints`: the functions that are only called with a key, and the
    names of their query parameters.
    """
    in_query = {"api_key"} if "query" in app.state.settings.api_key_locations else set()
    protected: dict[object, set[str]] = defaultdict(in_query.copy)
    public_endpoints = set()
    for path, dependant in _all_routes(app):
        if dependant and required_scopes(dependant) is not None:
            protected[dependant.call] |= _query_names(dependant)
        elif path in public:
            public_endpoints.add(dependant and dependant.call)
        else:
            raise SystemExit(
                f"{path} needs no API key: add `caller: CurrentCaller` or `requires(Scope.…)` to "
                f"its signature, or add the path to PUBLIC in app/main.py."
            )
    for endpoint in public_endpoints:
        protected.pop(endpoint, None)
    app.state.protected_endpoints = protected


def _query_names(dependant: Dependant) -> set[str]:
    fields = get_flat_params(Dependant(query_params=dependant.query_params))
    own = {field.alias for field in fields}
    return own.union(*map(_query_names, dependant.dependencies))


def _all_routes(app: FastAPI) -> Iterable[tuple[str, Dependant | None]]:
    for route in iter_route_contexts(app.routes):
        path = route.path or type(route.original_route).__name__
        yield path, getattr(route, "dependant", None)
    # FastAPI lists what app.frontend() and router.frontend() add only here.
    groups: Any = app.router._iter_low_priority_routes()  # Any: of private types
    for group in groups:
        prefix = getattr(group, "frontend_prefix", "")
        for frontend in getattr(group, "original_route", group).routes:
            yield f"{prefix}{frontend.path}", group.dependant


SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer <key>`",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "api_key"},
}


def describe_security(document: dict[str, Any], app: FastAPI) -> None:  # Any: a JSON document
    """Add the enabled locations of keys, and the scopes that each operation requires, to OpenAPI.

    x-enum-varnames gives generated clients the names of the members, such as USERS_READ.
    """
    locations = app.state.settings.api_key_locations
    document["components"]["securitySchemes"] = {one: SECURITY_SCHEMES[one] for one in locations}
    document["components"]["schemas"]["Scope"]["x-enum-varnames"] = [scope.name for scope in Scope]
    for route in iter_route_contexts(app.routes):
        operations = document["paths"].get(route.path_format, {})
        for method in operations.keys() & {method.lower() for method in route.methods or ()}:
            scopes = required_scopes(route.dependant)
            operations[method]["security"] = [
                {one: scopes} for one in locations if scopes is not None
            ]
