"""What FastAPI cannot know of this API: how it refuses, and where this installation takes keys."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from app import errors
from app.settings import Location

SCHEMES: dict[Location, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <key>`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: <key>`"},
    "query": {"type": "apiKey", "in": "query", "name": "api_key", "description": "`?api_key=<key>`"},
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


def describe(document: dict[str, Any], locations: list[Location]) -> None:
    components = document["components"]
    components["securitySchemes"] = {location: SCHEMES[location] for location in locations}
    for fastapis_own in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(fastapis_own, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if "security" in operation:
                scopes = sorted({scope for scheme in operation["security"] for scope in scheme["bearer"]})
                operation["security"] = [{location: scopes} for location in locations]
            for error in _refusals(path, operation):
                _document(operation["responses"], error, path)


def _refusals(path: str, operation: dict[str, Any]) -> list[type[errors.ApiError]]:
    found: list[type[errors.ApiError]] = []
    if "security" in operation:
        found += [errors.InvalidRequest, errors.NotAuthenticated, *errors.KEY_REFUSALS, errors.AddressNotAllowed]
        found += [errors.RateLimited]
        found += [errors.InsufficientScope] if any(operation["security"][0].values()) or "{" in path else []
    if "{" in path:
        found += [errors.NotFound]
    if "requestBody" in operation:
        found += [errors.Conflict, errors.ContentTooLarge, errors.UnsupportedMediaType]
    if "requestBody" in operation or "parameters" in operation:
        found += [errors.InvalidInput]
    return [*found, errors.Unavailable]


def _document(responses: dict[str, Any], error: type[errors.ApiError], path: str) -> None:
    response = responses.setdefault(
        str(error.status),
        {
            "description": error.title,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
            },
        },
    )
    example = {
        "type": f"urn:problem-type:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": path,
        "code": error.code,
        "request_id": "9f0c6a1e5d7b4c0f8a2e4b6d8c0a1e3f",
    }
    response["content"][PROBLEM_JSON]["examples"][error.code] = {"value": example}
