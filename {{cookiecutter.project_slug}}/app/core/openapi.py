"""What FastAPI cannot derive: the errors, and which text is for callers."""

from collections.abc import Iterable
from http.client import responses as phrases
from typing import Any

from pydantic import BaseModel, Field

from app.core import errors

# Any, below, is a part of a JSON document.

CODES = sorted(
    f"`{kind.code}`"
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ApiError) and hasattr(kind, "code")
)


class InvalidPart(BaseModel):
    pointer: str = Field(description="A JSON pointer (RFC 6901) into `{body, query, path}`.")
    detail: str


class Problem(BaseModel):
    """Any error (RFC 9457)."""

    type: str = Field(examples=["urn:problem-type:not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["Not found."])
    instance: str = Field(examples=["/v1/api-keys/4k1z9q0v7m2c8x5b"])
    code: str = Field(
        description=f"Accept other codes too, because new ones can be added: {', '.join(CODES)}.",
        examples=["not_found"],
    )
    request_id: str = Field(examples=["9f0c6a1e5d7b4c0f8a2e4b6d8c0a1e3f"])
    errors: list[InvalidPart] = Field(
        default_factory=list, description="Only with `invalid_input`."
    )


SCHEMA = {"$ref": "#/components/schemas/Problem"}


def describe_errors(document: dict[str, Any]) -> None:
    """Add the possible errors, and split docstrings into summary and description."""
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**problem.pop("$defs"), "Problem": problem}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            summary, _, description = operation.pop("description", "").partition("\n\n")
            operation["summary"] = summary or operation["summary"]
            if description:
                operation["description"] = description
            responses = operation["responses"]
            for status in _possible_errors(path, method, operation):
                response = responses.setdefault(status, {"description": phrases[int(status)]})
                response["content"] = {"application/problem+json": {"schema": SCHEMA}}
            operation["responses"] = dict(sorted(responses.items()))


def _possible_errors(path: str, method: str, operation: dict[str, Any]) -> Iterable[str]:
    yield from [status for status in operation["responses"] if status >= "400"]
    if operation["security"]:
        yield from ("400", "401", "403", "422", "429", "500", "503")
    if "{" in path:
        yield "404"
    if method != "get":
        yield "409"
    if "requestBody" in operation:
        yield from ("408", "413", "415")
