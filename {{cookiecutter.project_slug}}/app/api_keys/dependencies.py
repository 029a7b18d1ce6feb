from ipaddress import IPv6Address, ip_address
from typing import Annotated, cast
from urllib.parse import parse_qsl

from fastapi import Depends, Path, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.types import Scope as AsgiScope

from app import errors
from app.api_keys import service
from app.api_keys.models import UserApiKey
from app.api_keys.verifier import Caller, Verifier
from app.database import SessionDep
from app.rate_limit import Address, RateLimiter
from app.scopes import Scope
from app.settings import Location, Settings
from app.users.models import User


def presented_key(scope: AsgiScope, locations: list[Location]) -> str:
    """The one key in a request, read from the raw headers: the parsed ones hide that there are two.

    Raises NotAuthenticated where there is none, InvalidRequest where there is more than one.
    """
    authorizations = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(authorizations) > 1:
        raise errors.InvalidRequest("This request has more than one Authorization header.")
    found: list[bytes] = []
    if "bearer" in locations and authorizations:
        scheme, _, credential = authorizations[0].partition(b" ")
        if scheme.lower() == b"bearer" and credential:
            found.append(credential)
    if "header" in locations:
        found += [value for name, value in scope["headers"] if name == b"x-api-key"]
    if "query" in locations:
        query = parse_qsl(scope["query_string"], keep_blank_values=True)
        found += [value for name, value in query if name == b"api_key"]
    if not found:
        raise errors.NotAuthenticated
    if len(found) > 1:
        raise errors.InvalidRequest("This request carries more than one API key.")
    return found[0].decode("latin-1")  # never fails; what isn't ASCII isn't the format of a key


async def get_app_settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


SettingsDep = Annotated[Settings, Depends(get_app_settings)]


def client_address(request: Request) -> Address | None:
    """Who sent the request, behind TRUSTED_PROXIES; None for what has no address, such as a Unix socket."""
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


async def authenticate(request: Request) -> Caller:
    """The caller of a request: a usable key, from an address where it may be used, within its rate limit."""
    settings: Settings = request.app.state.settings
    verifier: Verifier = request.app.state.verifier
    limiter: RateLimiter = request.app.state.rate_limiter
    address = client_address(request)
    text = presented_key(request.scope, settings.api_key_locations)
    if not verifier.was_here(text):
        # Whoever guesses is stopped before the database is asked; whoever shares an address with them goes on.
        await limiter.refuse_guesser(address)
    try:
        caller = await verifier.verify(text, address)
    except errors.ApiKeyInvalid:
        await limiter.count_failure(address)
        raise
    request.state.caller = caller  # before the limit, so that usage counts what it refuses
    await limiter.hit(caller.key_id, caller.rate_limit)
    return caller


async def current_caller(request: Request) -> Caller:
    """The second to ask in a request gets what the first was told."""
    if not hasattr(request.state, "caller"):
        request.state.caller = await request.app.state.authenticate(request)
    return cast(Caller, request.state.caller)


class RequiresKey(SecurityBase):
    """A route that asks for this refuses every request without a usable key that has all of `scopes`."""

    model = HTTPBearer(description="An API key, as in `Authorization: Bearer <key>`.")
    scheme_name = "bearer"

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Caller:
        caller = await current_caller(request)
        caller.require(*self.scopes)
        return caller


def requires(*scopes: Scope) -> object:
    """For a route's signature: `caller: Annotated[Caller, requires(Scope.ITEMS_READ)]`."""
    return Security(RequiresKey(*scopes), scopes=scopes)


CurrentCaller = Annotated[Caller, Security(RequiresKey())]


async def get_current_user(caller: CurrentCaller, session: SessionDep) -> User:
    user = await session.get(User, caller.user_id)
    if user is None:  # deleted since the key was verified
        raise errors.ApiKeyInvalid
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]

KeyId = Annotated[
    str,
    Path(
        pattern="^([0-9a-z]{16}|current)$",
        description="The key's id, or `current` for the key that is calling.",
        examples=["current"],
    ),
]


class RequiresOwnedKey:
    """Gives the key that the path names, if it is the caller's own or the caller is an admin; else NotFound.

    `current_is_free`: whoever holds a key may do this to it, whatever its scopes.
    """

    def __init__(self, scope: Scope, *, current_is_free: bool) -> None:
        self.scope = scope
        self.current_is_free = current_is_free

    async def __call__(self, request: Request, key_id: KeyId, caller: CurrentCaller, session: SessionDep) -> UserApiKey:
        is_current = key_id in {"current", caller.key_id}
        if not (is_current and self.current_is_free):
            caller.require(self.scope)
        return await service.get(session, caller.key_id if is_current else key_id, caller, lock=request.method != "GET")


def owned_key(scope: Scope, *, current_is_free: bool = False) -> object:
    """For a route's signature: `key: Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ)]`."""
    return Security(RequiresOwnedKey(scope, current_is_free=current_is_free), scopes=[] if current_is_free else [scope])
