import json
import re

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.api_keys import format as key_format
from app.openapi import Problem
from tests.conftest import AsUser
from tests.test_main import v1_operations

KEY = re.compile(r"[a-z][a-z0-9]+_(live|test)_[0-9a-z]{16}_[0-9A-Za-z]{49}")


async def test_every_v1_route_is_described_with_its_key_and_its_refusals(app: FastAPI) -> None:
    document = app.openapi()
    for method, path in v1_operations(app):
        operation = document["paths"][path][method]
        assert [[*scheme] for scheme in operation["security"]] == [["bearer"]]
        assert {"400", "401", "403", "429", "500", "503"} <= operation["responses"].keys()
        assert ("404" in operation["responses"]) == ("{" in path)
        assert not any("anyOf" in parameter["schema"] for parameter in operation.get("parameters", ()))
        assert ({"413", "415", "422"} <= operation["responses"].keys()) == ("requestBody" in operation)
    create = document["paths"]["/v1/api-keys"]["post"]
    assert create["security"] == [{"bearer": ["api_keys:write"]}]
    assert app.openapi() is document


async def test_a_conflict_is_described_in_the_words_of_its_route(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert paths["/v1/users/{user_id}"]["delete"]["responses"]["409"] == {
        "$ref": "#/components/responses/409",
        "description": "This is the last active admin.",
    }
    assert "409" not in paths["/v1/users/me"]["patch"]["responses"]


async def test_a_route_is_summed_up_by_the_first_sentence_of_its_docstring(app: FastAPI) -> None:
    described = [operation for item in app.openapi()["paths"].values() for operation in item.values()]
    for unique in ("summary", "operationId"):
        assert len({operation[unique] for operation in described}) == len(described)
    revoke = app.openapi()["paths"]["/v1/api-keys/{key_id}"]["delete"]
    assert (revoke["operationId"], revoke["summary"]) == ("revoke_api_key", "Revoke a key for good")
    assert revoke["description"].startswith("To do it again changes nothing.")


def test_every_error_has_an_example_and_its_headers(app: FastAPI) -> None:
    components = app.openapi()["components"]
    examples: dict[str, dict[str, dict[str, object]]] = {}
    for response in components["responses"].values():
        [(media_type, content)] = response["content"].items()
        assert media_type == "application/problem+json"
        assert "X-Request-ID" in response["headers"]
        examples |= content["examples"]
    assert examples.keys() == {*components["schemas"]["Problem"]["properties"]["code"]["enum"]}
    for code, example in examples.items():
        assert Problem.model_validate(example["value"]).code == code
    assert examples["invalid_input"]["value"]["errors"] == [{"pointer": "/body/name", "detail": "Field required"}]

    of_status = {
        status: {*response["headers"]} - {"X-Request-ID"} for status, response in components["responses"].items()
    }
    with_a_header = {status: names for status, names in of_status.items() if names}
    assert with_a_header == {
        "400": {"WWW-Authenticate"},
        "401": {"WWW-Authenticate"},
        "403": {"WWW-Authenticate"},
        "429": {"Retry-After", "RateLimit-Policy", "RateLimit"},
        "503": {"Retry-After"},
    }


def test_every_success_is_described_with_its_headers(app: FastAPI) -> None:
    found = {}
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            [success] = [response for status, response in operation["responses"].items() if status < "300"]
            assert success["headers"]["X-Request-ID"] == {"$ref": "#/components/headers/X-Request-ID"}
            if names := success["headers"].keys() - {"X-Request-ID"}:
                found[f"{method} {path}"] = names
    ours = {
        "post /v1/users": {"Location"},
        "post /v1/api-keys": {"Location", "Cache-Control"},
        "post /v1/api-keys/{key_id}/rotate": {"Location", "Cache-Control"},
    }
    assert found | ours == found  # other resources have other headers


def test_every_body_has_an_example(app: FastAPI) -> None:
    document = app.openapi()
    schemas = document["components"]["schemas"]
    of_requests = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for item in document["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    }
    assert all("examples" in schemas[name] for name in of_requests)
    for name in schemas.keys() - of_requests - {"Problem", "InvalidPart"}:
        for field, about in schemas[name].get("properties", {}).items():
            kinds = about.get("anyOf", [about])
            is_free_text = any(kind.get("type") == "string" and not kind.keys() & {"format", "const"} for kind in kinds)
            assert "examples" in about or not is_free_text, f"{name}.{field}"


def test_keys_in_examples_are_no_keys(app: FastAPI) -> None:
    examples = {match[0] for match in KEY.finditer(json.dumps(app.openapi()))}
    assert len(examples) == 1
    for example in examples:
        prefix, environment, *_ = example.split("_")
        assert key_format.checksum(example[:-6]) != example[-6:]
        assert key_format.parse(example, prefix, environment) is None


@pytest.mark.parametrize("settings", [{"api_key_locations": ["header", "query"]}], indirect=True)
async def test_only_places_that_are_on_are_described(app: FastAPI) -> None:
    document = app.openapi()
    assert [*document["components"]["securitySchemes"]] == ["header", "query"]
    assert document["paths"]["/v1/users/me"]["get"]["security"] == [{"header": []}, {"query": []}]


@pytest.mark.parametrize("settings", [{"api_key_locations": ["bearer", "header", "query"]}], indirect=True)
async def test_what_the_authorize_button_sends_is_let_in(app: FastAPI, client: AsyncClient, as_user: AsUser) -> None:
    api_key = (await as_user()).api_key
    document = app.openapi()
    for alternative in document["paths"]["/v1/users/me"]["get"]["security"]:
        [scheme] = [document["components"]["securitySchemes"][name] for name in alternative]
        # What Swagger UI makes of a scheme.
        if (scheme["type"], scheme.get("scheme")) == ("http", "bearer"):
            response = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {api_key}"})
        elif scheme["in"] == "header":
            response = await client.get("/v1/users/me", headers={scheme["name"]: api_key})
        else:
            response = await client.get("/v1/users/me", params={scheme["name"]: api_key})
        assert response.status_code == 200, scheme


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"docs_enabled": False}, 404)], indirect=["settings"])
async def test_the_docs_can_be_hidden(client: AsyncClient, status: int) -> None:
    for path in ("/docs", "/openapi.json"):
        assert (await client.get(path)).status_code == status
