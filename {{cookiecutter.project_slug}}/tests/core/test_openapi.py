import json
import re
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient

from app.auth import key_format
from app.auth.dependencies import get_caller
from app.auth.scopes import Scope
from app.core.openapi import Problem
from app.main import create_app
from app.settings import PYPROJECT, Settings
from tests.conftest import AsUser
from tests.test_main import operations

KEY = re.compile(r"[a-z][a-z0-9]+_(live|test)_[0-9a-z]{16}_[0-9A-Za-z]{49}")


async def test_every_operation_describes_its_key_and_its_errors(
    openapi: dict[str, Any],
) -> None:
    for method, path in operations(openapi):
        operation = openapi["paths"][path][method]
        assert [[*scheme] for scheme in operation["security"]] == [["bearer"]]
        responses = operation["responses"]
        assert {"400", "401", "403", "422", "429", "500", "503"} <= responses.keys()
        assert ("404" in responses) == ("{" in path)
        assert ({"408", "413", "415"} <= responses.keys()) == ("requestBody" in operation)
        assert ("409" in responses) == (method != "get")
        assert [*responses] == sorted(responses)
        for status in responses:
            assert ("application/problem+json" in str(responses[status])) == (status >= "400")
    assert openapi["paths"]["/v1/api-keys"]["post"]["security"] == [{"bearer": ["api_keys:write"]}]
    assert openapi["paths"]["/health/live"]["get"]["security"] == []
    assert "503" in openapi["paths"]["/health/ready"]["get"]["responses"]


async def test_summaries_and_ids_are_unique_and_come_from_the_route(
    openapi: dict[str, Any],
) -> None:
    described = [operation for item in openapi["paths"].values() for operation in item.values()]
    for unique in ("summary", "operationId"):
        assert len({operation[unique] for operation in described}) == len(described)
    revoke = openapi["paths"]["/v1/api-keys/{key_id}"]["delete"]
    assert (revoke["operationId"], revoke["summary"]) == ("revoke_api_key", "Revoke an API key")
    assert revoke["description"].startswith("Permanent and idempotent.")
    assert "description" not in openapi["paths"]["/v1/users/me"]["get"]


def test_a_route_without_a_docstring_keeps_its_name_as_its_summary(app: FastAPI) -> None:
    app.add_api_route(
        "/untold", lambda _: None, name="list_untold", dependencies=[Depends(get_caller)]
    )
    operation = app.openapi()["paths"]["/untold"]["get"]
    assert app.openapi()["paths"]["/untold"]["get"] is operation
    assert (operation["summary"], operation.get("description")) == ("List Untold", None)


async def test_the_problem_is_described_and_its_code_is_an_open_set(
    openapi: dict[str, Any], client: AsyncClient, as_user: AsUser
) -> None:
    schemas = openapi["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    code = schemas["Problem"]["properties"]["code"]
    assert code["type"] == "string"
    assert code["examples"]
    assert "enum" not in code
    assert "`api_key_expired`, " in code["description"]
    response = await client.get("/nothing")
    assert Problem.model_validate(response.json()).code == "not_found"
    assert schemas["Problem"]["properties"].keys() - response.json().keys() == {"errors"}
    me = await as_user()
    [error] = (await me.post("/v1/api-keys", json={"name": "ci"})).json()["errors"]
    assert error.keys() == schemas["InvalidPart"]["properties"].keys()


def test_the_name_and_the_version_are_those_of_the_project(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = {"name": "box", "description": "Boxes.", "version": "2.0"}
    monkeypatch.setitem(PYPROJECT, "project", project)
    info = create_app(settings).openapi()["info"]
    assert info == {"title": settings.project_name, "description": "Boxes.", "version": "2.0"}


def test_every_tag_has_a_description(openapi: dict[str, Any]) -> None:
    described = {tag["name"] for tag in openapi["tags"] if tag["description"]}
    assert described == {"users", "api keys", "audit events", "monitoring"}
    operations = [one for item in openapi["paths"].values() for one in item.values()]
    assert described <= {tag for operation in operations for tag in operation["tags"]}


@pytest.mark.parametrize(
    ("root_path", "servers"),
    [("", [{"url": "/"}]), ("/api", [{"url": "/api"}, {"url": "/"}])],
)
async def test_the_first_server_is_the_one_that_serves_the_document(
    app: FastAPI, root_path: str, servers: list[dict[str, str]]
) -> None:
    transport = ASGITransport(app, root_path=root_path)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get(f"{root_path}/openapi.json")).json()["servers"] == servers


def test_generated_clients_name_scopes_as_the_code_does(openapi: dict[str, Any]) -> None:
    schema = openapi["components"]["schemas"]["Scope"]
    assert dict(zip(schema["x-enum-varnames"], schema["enum"], strict=True)) == {
        scope.name: scope for scope in Scope
    }


def test_no_text_for_developers_is_published(openapi: dict[str, Any]) -> None:
    """Pydantic and FastAPI publish the docstrings of models, enums and routes."""
    published = json.dumps([openapi["paths"], openapi["components"]])
    for text in ("requires(", "Scope.", "app.", "app/"):
        assert text not in published


def test_every_format_is_one_of_json_schema(openapi: dict[str, Any]) -> None:
    formats = set(re.findall(r'"format": "(.*?)"', json.dumps(openapi)))
    assert formats >= {"date-time", "uuid"}
    assert formats <= {"date-time", "date", "time", "duration", "email", "uuid", "uri", "binary"}


def test_no_field_of_a_request_has_a_default(openapi: dict[str, Any]) -> None:
    """openapi-typescript would require it."""
    schemas = openapi["components"]["schemas"]
    assert schemas["UserCreate"]["required"] == ["email"]
    for name in ("UserCreate", "UserUpdate", "ApiKeyCreate", "ApiKeyUpdate", "ApiKeyRotate"):
        assert all("default" not in field for field in schemas[name]["properties"].values())


def test_every_required_text_has_an_example(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    for name in schemas.keys() - {"InvalidPart"}:
        for field in schemas[name].get("required", ()):
            about = schemas[name]["properties"][field]
            for kind in about.get("anyOf", [about]):
                is_text = kind.get("type") == "string" and "format" not in kind
                assert "examples" in about or not is_text, f"{name}.{field}"


def test_every_list_in_a_request_has_a_maximum_length(openapi: dict[str, Any]) -> None:
    """Validation stops there. Otherwise it would build an error for each of many items."""
    schemas = openapi["components"]["schemas"]
    requests = [schema for schema in schemas.values() if "additionalProperties" in schema]
    assert len(requests) >= 5
    for schema in requests:
        for name, about in schema["properties"].items():
            for kind in about.get("anyOf", [about]):
                assert "maxItems" in kind or kind.get("type") != "array", name


def test_no_example_is_a_valid_key_or_the_calling_key(openapi: dict[str, Any]) -> None:
    [example] = {match[0] for match in KEY.finditer(json.dumps(openapi))}
    prefix, environment, *_ = example.split("_")
    assert key_format.parse(example, prefix, environment) is None
    [parameter] = openapi["paths"]["/v1/api-keys/{key_id}"]["delete"]["parameters"]
    assert re.fullmatch("[0-9a-z]{16}", *parameter["schema"]["examples"])
    assert "current" not in parameter["schema"]["pattern"]  # importers choose an alternative


@pytest.mark.parametrize("settings", [{"api_key_locations": ["header", "query"]}], indirect=True)
def test_only_enabled_locations_are_described(app: FastAPI) -> None:
    document = app.openapi()
    assert [*document["components"]["securitySchemes"]] == ["header", "query"]
    assert document["paths"]["/v1/users/me"]["get"]["security"] == [{"header": []}, {"query": []}]


@pytest.mark.parametrize(
    "settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True
)
async def test_a_key_sent_as_described_is_accepted(
    app: FastAPI, client: AsyncClient, as_user: AsUser
) -> None:
    api_key = (await as_user()).api_key
    bearer, header, query = app.openapi()["components"]["securitySchemes"].values()
    assert (header["in"], query["in"]) == ("header", "query")
    for headers, params in (
        ({"Authorization": f"{bearer['scheme']} {api_key}"}, {}),
        ({header["name"]: api_key}, {}),
        ({}, {query["name"]: api_key}),
    ):
        response = await client.get("/v1/users/me", headers=headers, params=params)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("settings", "status"), [({}, 200), ({"docs_enabled": False}, 404)], indirect=["settings"]
)
async def test_the_docs_can_be_hidden(client: AsyncClient, status: int) -> None:
    for path in ("/docs", "/openapi.json"):
        assert (await client.get(path)).status_code == status
