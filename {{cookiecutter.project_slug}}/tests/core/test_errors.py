import re
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import literal, select
from starlette.exceptions import HTTPException

from app.core.database import SessionDep
from app.core.errors import Conflict, InsufficientScope, NotFound
from app.users.models import User
from tests.conftest import TEST_DATABASE_URL, AsUser

KEYS = "/v1/api-keys"
JSON = {"Content-Type": "application/json"}


def is_problem(response: Response, status: int, code: str) -> bool:
    body = response.json()
    return (
        (response.status_code, body["status"], body["code"]) == (status, status, code)
        and response.headers["content-type"] == "application/problem+json"
        and body["request_id"] == response.headers["x-request-id"]
        and {"type", "title", "detail", "instance"} <= body.keys()
    )


def test_an_error_in_a_log_explains_itself() -> None:
    assert f"{Conflict('The box is full.')} {NotFound()}" == "The box is full. Not found."
    assert f"{InsufficientScope('a')}" == "This API key lacks the scope a."
    assert f"{InsufficientScope('a', 'b')}" == "This API key lacks the scopes a and b."


async def test_an_unknown_path_is_a_problem_without_the_query(client: AsyncClient) -> None:
    response = await client.get("/nothing?api_key=secret")
    assert is_problem(response, 404, "not_found")
    assert response.json()["instance"] == "/nothing"


@pytest.mark.parametrize(("path", "methods"), [(KEYS, "GET, POST"), ("/v1/users/me", "GET, PATCH")])
async def test_a_method_that_is_not_allowed_is_a_problem_that_names_all_that_are(
    client: AsyncClient, path: str, methods: str
) -> None:
    response = await client.put(path)
    assert is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == methods


@pytest.mark.parametrize(("root_path", "in_path"), [("", False), ("/sub", True), ("/sub", False)])
async def test_location_and_allow_are_correct_behind_a_proxy_that_serves_a_sub_path(
    app: FastAPI, as_user: AsUser, root_path: str, in_path: bool
) -> None:
    app.root_path = root_path
    prefix = root_path if in_path else ""
    me = await as_user(admin=True)
    created = await me.post(f"{prefix}{KEYS}", json={"name": "ci", "scopes": []})
    key = f"{KEYS}/{created.json()['id']}"
    assert created.headers["location"] == f"{root_path}{key}"
    rotated = await me.post(f"{prefix}{key}/rotate")
    assert rotated.headers["location"] == f"{root_path}{KEYS}/{rotated.json()['id']}"
    user = await me.post(f"{prefix}/v1/users", json={"email": "ada@example.com"})
    assert user.headers["location"] == f"{root_path}/v1/users/{user.json()['id']}"
    assert (await me.put(f"{prefix}{KEYS}")).headers["allow"] == "GET, POST"


@pytest.mark.parametrize(("path", "allow"), [("me", "GET, PATCH"), ("me/api-keys", None)])
async def test_me_is_never_an_id_of_a_user(as_user: AsUser, path: str, allow: str | None) -> None:
    response = await (await as_user()).delete(f"/v1/users/{path}")
    assert response.status_code == (405 if allow else 404)
    assert response.headers.get("allow") == allow


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
async def test_a_body_of_another_media_type_is_rejected(
    as_user: AsUser, headers: dict[str, str]
) -> None:
    me = await as_user()
    response = await me.post(KEYS, content=b'{"name": "x", "scopes": []}', headers=headers)
    assert is_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("encoding", "status"),
    [("gzip", 415), ("BR", 415), ("identity, gzip", 415), ("Identity", 201), ("", 201)],
)
async def test_a_compressed_body_is_rejected(as_user: AsUser, encoding: str, status: int) -> None:
    headers = {"Content-Encoding": encoding}
    body = {"name": "x", "scopes": []}
    response = await (await as_user()).post(KEYS, json=body, headers=headers)
    assert response.status_code == status
    if status == 415:
        assert is_problem(response, 415, "unsupported_media_type")
        assert response.headers["accept-encoding"] == "identity"


# Operations that need another id in their path are left out.
IDS = {"key_id": "current", "user_id": str(uuid4())}


def operations(openapi: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation."""
    found = [
        (method, path, operation)
        for path, item in openapi["paths"].items()
        if IDS.keys() >= {*re.findall(r"{(\w+)}", path)}
        for method, operation in item.items()
    ]
    assert found
    return found


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"\x00", 422),
        (b"\xff\xfe", 422),
        (b'{"name": "\xed\xa0\x80"}', 422),
        (b'{"name": "\xe9"}', 422),
        (b'{"name": ' + b"9" * 5000 + b"}", 422),
        (b"[" * 30_000 + b"]" * 30_000, 422),
        (b'{"name": "' + b"a" * 70_000 + b'"}', 413),
    ],
    ids=["half", "NUL", "binary", "surrogate", "Latin-1", "5000 digits", "30000 deep", "70 kB"],
)
async def test_every_operation_rejects_a_body_that_cannot_be_read(
    openapi: dict[str, Any], no_auth: AsyncClient, body: bytes, status: int
) -> None:
    for method, path, operation in operations(openapi):
        if "requestBody" in operation:
            response = await no_auth.request(method, path.format(**IDS), content=body, headers=JSON)
            assert response.status_code == status, path
            assert is_problem(response, status, response.json()["code"])
            assert not re.search(r'"/body/\d', response.text)  # the position in the text


async def test_the_message_about_an_invalid_id_does_not_quote_it(as_user: AsUser) -> None:
    response = await (await as_user(admin=True)).get("/v1/users/zebra")
    [error] = response.json()["errors"]
    assert error == {"pointer": "/path/user_id", "detail": "Input should be a valid UUID"}


@pytest.mark.parametrize(
    "value", ['"\\ud800"', '"a\\u0000b"', "NaN", "1e999", "-Infinity", "1" + "0" * 400]
)
async def test_every_field_rejects_a_json_value_that_the_database_cannot_hold(
    openapi: dict[str, Any], no_auth: AsyncClient, value: str
) -> None:
    schemas = openapi["components"]["schemas"]
    for method, path, operation in operations(openapi):
        [name] = re.findall(r"schemas/(\w+)", str(operation.get("requestBody"))) or [None]
        for field in schemas[name]["properties"] if name else ():
            body = f'{{"{field}": {value}}}'
            response = await no_auth.request(method, path.format(**IDS), content=body, headers=JSON)
            assert is_problem(response, 422, "invalid_input"), (path, field)
            pointers = [error["pointer"] for error in response.json()["errors"]]
            assert any(pointer.startswith(f"/body/{field}") for pointer in pointers)


@pytest.mark.parametrize("value", ["%00", "a" * 1000])
async def test_every_parameter_rejects_text_that_no_value_can_have(
    openapi: dict[str, Any], no_auth: AsyncClient, value: str
) -> None:
    for method, path, operation in operations(openapi):
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            ids = IDS | ({name: value} if parameter["in"] == "path" else {})
            query = f"?{name}={value}" if parameter["in"] == "query" else ""
            response = await no_auth.request(method, path.format(**ids) + query, json=None)
            assert is_problem(response, 422, "invalid_input"), (path, name)


@pytest.mark.parametrize("value", ["\ud800", 2**70])
async def test_a_value_that_the_database_rejects_is_invalid_input(
    app: FastAPI, client: AsyncClient, value: str | int
) -> None:
    @app.get("/stored")
    async def store(session: SessionDep) -> None:
        await (await session.connection()).execute(select(literal(value)))

    response = await client.get("/stored")
    assert is_problem(response, 422, "invalid_input")
    assert response.json()["errors"][0]["pointer"] == ""


@pytest.mark.skipif(TEST_DATABASE_URL is None, reason="SQLite stores NUL")
async def test_text_with_nul_is_invalid_input(app: FastAPI, client: AsyncClient) -> None:
    @app.post("/stored")
    async def store(session: SessionDep) -> None:
        session.add(User(email="a\0@example.com"))

    assert is_problem(await client.post("/stored"), 422, "invalid_input")


async def test_a_validation_error_echoes_neither_values_nor_long_names(as_user: AsUser) -> None:
    me = await as_user()
    body = {"name": ["value-that-is-wrong"], "scopes": [], me.api_key: 1, "a/b~c": 1}
    response = await me.post(KEYS, json=body)
    assert is_problem(response, 422, "invalid_input")
    assert "value-that-is-wrong" not in response.text
    assert me.api_key not in response.text
    pointers = {error["pointer"] for error in response.json()["errors"]}
    assert pointers == {"/body/name", "/body/…", "/body/a~1b~0c"}


async def test_a_key_in_a_path_is_not_echoed(as_user: AsUser) -> None:
    me = await as_user()
    response = await me.get(f"{KEYS}/{me.api_key}")
    assert is_problem(response, 422, "invalid_input")
    assert me.api_key.rpartition("_")[2] not in response.text


async def test_a_response_lists_20_errors_at_most(as_user: AsUser) -> None:
    body = {f"field{number}": 1 for number in range(1000)}
    response = await (await as_user()).post(KEYS, json=body)
    assert len(response.json()["errors"]) == 20


async def test_an_unhandled_exception_is_a_500_that_reveals_nothing(
    app: FastAPI, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("internal detail")

    response = await client.get("/broken")
    assert is_problem(response, 500, "internal_error")
    assert "internal detail" not in response.text
    assert "internal detail" in caplog.text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (402, "payment_required"),
        (404, "not_found"),
        (409, "conflict"),
        (413, "content_too_large"),
        (415, "unsupported_media_type"),
        (500, "internal_error"),
        (503, "unavailable"),
    ],
)
async def test_an_http_exception_is_a_problem_with_its_status_detail_and_headers(
    app: FastAPI, client: AsyncClient, status: int, code: str
) -> None:
    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(status, "It is closed.", headers={"X-Kind": "pot"})

    response = await client.get("/teapot")
    assert is_problem(response, status, code)
    assert response.json()["detail"] == "It is closed."
    assert response.headers["x-kind"] == "pot"


async def test_a_lone_surrogate_in_a_path_does_not_break_the_response(as_user: AsUser) -> None:
    response = await (await as_user()).get(f"{KEYS}/%ED%A0%80")
    assert is_problem(response, 422, "invalid_input")
