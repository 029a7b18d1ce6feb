from starlette.datastructures import QueryParams
from starlette.types import Scope

from app.core.errors import InvalidRequest, NotAuthenticated
from app.settings import Location


def find_key(scope: Scope, locations: list[Location]) -> str:
    """The one key in a request. Whitespace around it is ignored (RFC 9110, 5.5 and 11.4).

    Raises NotAuthenticated if there is none, InvalidRequest if there is more than one.
    """
    found: list[str] = []
    authorization = None
    for name, value in scope["headers"]:  # the parsed headers hide duplicates
        if name == b"authorization":
            if authorization is not None:
                raise InvalidRequest("This request has more than one Authorization header.")
            authorization = value
        elif name == b"x-api-key" and "header" in locations:
            found.append(value.decode("latin-1"))
    if authorization is not None and "bearer" in locations:
        scheme, _, credential = authorization.strip().partition(b" ")
        if scheme.lower() == b"bearer" and credential:
            found.append(credential.decode("latin-1"))
    if "query" in locations:
        found += keys_in_query(scope)
    if not found:
        raise NotAuthenticated
    if len(found) > 1:
        raise InvalidRequest("This request has more than one API key.")
    return found[0].strip(" \t")


def keys_in_query(scope: Scope) -> list[str]:
    return QueryParams(scope["query_string"]).getlist("api_key")
