"""What FastAPI cannot know of this API: where it takes keys, how it refuses, and with which headers it answers."""

from collections.abc import Iterable
from http.client import responses as phrases
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from app import errors
from app.settings import Location

# Any, below, is what a JSON document is to FastAPI.

SCHEMES: dict[Location, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <key>`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: <key>`"},
    "query": {"type": "apiKey", "in": "query", "name": "api_key", "description": "`?api_key=<key>`"},
}

REQUEST_ID = "9f0c6a1e5d7b4c0f8a2e4b6d8c0a1e3f"
HEADERS: dict[str, tuple[str, str | int]] = {  # what they mean, and an example
    "X-Request-ID": ("The caller's own, if it is 1 to 64 of `A-Z a-z 0-9 . _ -`; else a new one.", REQUEST_ID),
    "Location": ("Where to find what was made.", "/v1/api-keys/4k1z9q0v7m2c8x5b"),
    "Cache-Control": ("Nobody may keep this response: it holds a key.", "no-store"),
    "WWW-Authenticate": ("What is wrong with the credentials (RFC 6750, 3).", 'Bearer realm="…", error="…"'),
    "Retry-After": ("In how many seconds to try again.", 17),
    "RateLimit-Policy": ("The limit: `q` requests in every `w` seconds.", '"key";q=600;w=60'),
    "RateLimit": ("What is left of it: `r` requests, for another `t` seconds.", '"key";r=0;t=17'),
}

# The errors whose class alone does not tell what they say.
EXAMPLES: dict[type[errors.ApiError], errors.ApiError] = {
    errors.InsufficientScope: errors.InsufficientScope("api_keys:write"),
    errors.InvalidInput: errors.InvalidInput(("/body/name", "Field required")),
    errors.RateLimited: errors.RateLimited("key", 600, 60, 17),
}

PROBLEM_JSON = "application/problem+json"


class InvalidPart(BaseModel):
    pointer: str = Field(description="A JSON pointer (RFC 6901) into `{body, query, path}`.")
    detail: str


class Problem(BaseModel):
    """Any error, in the form of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="What to tell errors apart by.")
    request_id: str
    errors: list[InvalidPart] | None = Field(None, description="With `invalid_input` only: what does not fit.")


class Api(FastAPI):
    """FastAPI, whose description also says how the API refuses."""

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            describe(super().openapi(), self.state.settings.api_key_locations)
        return self.openapi_schema or {}


def headers(*names: str) -> dict[str, Any]:
    """For a route: `responses={201: {"headers": headers("Location")}}`."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def describe(document: dict[str, Any], locations: list[Location]) -> None:
    components = document["components"]
    for fastapis_own in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(fastapis_own, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    problem["properties"]["code"]["enum"] = sorted(kind.code for kind in _kinds(errors.ApiError))
    components["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
    components["securitySchemes"] = {location: SCHEMES[location] for location in locations}
    components["headers"] = {name: _header(name, *about) for name, about in HEADERS.items()}
    components["responses"] = {}
    for kind in _kinds(errors.ApiError):
        _add_example(components["responses"], EXAMPLES.get(kind, kind))
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe(path, operation, components)


def _kinds(kind: type[errors.ApiError]) -> Iterable[type[errors.ApiError]]:
    for child in kind.__subclasses__():
        yield from _kinds(child) if child.__subclasses__() else [child]


def _header(name: str, description: str, example: str | int) -> dict[str, Any]:
    return {
        "description": description,
        "required": name != "WWW-Authenticate",  # one of the two kinds of 403 goes without
        "schema": {"type": "integer" if isinstance(example, int) else "string", "examples": [example]},
    }


def _add_example(responses: dict[str, Any], error: errors.ApiError | type[errors.ApiError]) -> None:
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
    empty = {"description": phrases[error.status], "headers": {}, "content": {PROBLEM_JSON: content}}
    response = responses.setdefault(f"{error.status}", empty)
    challenge = [] if error.challenge is None else ["WWW-Authenticate"]
    response["headers"] |= headers("X-Request-ID", *challenge, *error.headers)
    example = errors.as_json(error, "/v1/api-keys", REQUEST_ID)
    response["content"][PROBLEM_JSON]["examples"][error.code] = {"value": example}


def _describe(path: str, operation: dict[str, Any], components: dict[str, Any]) -> None:
    # The docstring: its first sentence, and the rest.
    summary, _, description = operation.get("description", operation["summary"]).partition(". ")
    operation |= {"summary": summary.rstrip("."), "description": description}
    if "security" in operation:
        scopes = sorted({scope for scheme in operation["security"] for scope in scheme["bearer"]})
        operation["security"] = [{location: scopes} for location in components["securitySchemes"]]
    for parameter in operation.get("parameters", ()):
        # Null is not among the values of an optional parameter: `?q=null` looks for "null".
        kinds = parameter["schema"].pop("anyOf", ())
        parameter["schema"] |= next((kind for kind in kinds if kind != {"type": "null"}), {})
    responses = {status: {} for status in _refusals(path, operation)} | operation["responses"]
    for status, response in responses.items():
        if status in components["responses"]:  # the route may have described it in words of its own: those stay
            response.pop("content", None)
            response["$ref"] = f"#/components/responses/{status}"
        else:
            response["headers"] = response.get("headers", {}) | headers("X-Request-ID")
    operation["responses"] = dict(sorted(responses.items()))


def _refusals(path: str, operation: dict[str, Any]) -> Iterable[str]:
    if "security" in operation:
        yield from ("400", "401", "403", "429", "500", "503")
    if "{" in path:
        yield "404"
    if "requestBody" in operation:
        yield from ("413", "415")
