from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, cast

from fastapi import Depends, Path, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from app import errors
from app.api_keys import service
from app.api_keys.models import UserApiKey
from app.api_keys.request import PresentedKey, presented_key
from app.api_keys.verifier import Caller, Verified, Verifier
from app.database import SessionDep
from app.rate_limit import Address, RateLimiter
from app.scopes import Scope
from app.settings import Location, Settings
from app.users.models import User


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


async def authenticate(locations: list[Location], verifier: Verifier, limiter: RateLimiter, request: Request) -> Caller:
    """The caller of a request: a usable key, from an address where it may be used, within its rate limit."""
    key = presented_key(request.scope, locations)
    verified = verifier.recall(key.fingerprint) or await _verify(key, client_address(request), verifier, limiter)
    if verified.networks is not None:
        refuse_elsewhere(client_address(request), verified.networks)
    caller = verified.caller
    request.scope["state"]["caller"] = caller  # before the limit, so that usage counts what it refuses
    await limiter.hit(caller.key_id, caller.rate_limit)
    return caller


async def _verify(key: PresentedKey, address: Address | None, verifier: Verifier, limiter: RateLimiter) -> Verified:
    if not verifier.was_here(key.fingerprint):
        # Whoever guesses is stopped before the database is asked; whoever shares an address with them goes on.
        await limiter.refuse_guesser(address)
    try:
        return await verifier.verify(key.text)
    except errors.ApiKeyInvalid:
        await limiter.count_failure(address)
        raise


def refuse_elsewhere(address: Address | None, networks: Iterable[IPv4Network | IPv6Network]) -> None:
    if address is None or not any(address in network for network in networks):
        raise errors.AddressNotAllowed


class RequiresKey(SecurityBase):
    """A route that asks for this refuses every request without a usable key that has all of `scopes`."""

    model = HTTPBearer(description="An API key, as in `Authorization: Bearer <key>`.")
    scheme_name = "bearer"

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Caller:
        caller: Caller | None = request.scope["state"].get("caller")  # told to whoever asked before in this request
        if caller is None:
            caller = request.scope["state"]["caller"] = await request.app.state.authenticate(request)
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
