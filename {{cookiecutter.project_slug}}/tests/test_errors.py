import re
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from starlette.exceptions import HTTPException

from app.api_keys import service
from tests.conftest import AsUser


def is_problem(response: Response, status: int, code: str) -> bool:
    body = response.json()
    return (
        (response.status_code, body["status"], body["code"]) == (status, status, code)
        and response.headers["content-type"] == "application/problem+json"
        and body["request_id"] == response.headers["x-request-id"]
        and {"type", "title", "detail", "instance"} <= body.keys()
    )


async def test_an_unknown_path_is_a_problem(client: AsyncClient) -> None:
    response = await client.get("/nothing?api_key=secret")
    assert is_problem(response, 404, "not_found")
    assert response.json()["instance"] == "/nothing"


async def test_a_wrong_method_names_all_the_right_ones(client: AsyncClient) -> None:
    for path, methods in {"/v1/api-keys": "GET, POST", "/v1/users/me": "GET, PATCH"}.items():
        response = await client.put(path)
        assert is_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == methods


async def test_a_body_that_is_not_declared_as_json_is_refused(as_user: AsUser) -> None:
    me = await as_user()
    for headers in ({}, {"Content-Type": "text/plain"}):
        response = await me.post("/v1/api-keys", content=b'{"name": "x", "scopes": []}', headers=headers)
        assert is_problem(response, 415, "unsupported_media_type")


# What to write in paths; an operation that needs another id is left out.
IDS = {"key_id": "current", "user_id": str(uuid4())}


def takes_only_these_ids(path: str) -> bool:
    return IDS.keys() >= {*re.findall(r"{(\w+)}", path)}


def bodies(app: FastAPI) -> Iterator[tuple[str, str, list[str]]]:
    """Method, path and the body's fields of every operation that takes one."""
    document = app.openapi()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "requestBody" in operation and takes_only_these_ids(path):
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                schema = document["components"]["schemas"][reference.rpartition("/")[2]]
                yield method, path.format(**IDS), [*schema["properties"]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"\x00", 422),
        (b"\xff\xfe", 422),
        (b'{"name": "\xed\xa0\x80"}', 422),
        (b'{"name": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"name": "' + b"a" * 2_000_000 + b'"}', 413),
    ],
    ids=["half", "NUL", "binary", "surrogate", "5000 digits", "100000 deep", "2 MB"],
)
async def test_a_body_that_cannot_be_read_is_refused_by_all(
    app: FastAPI, no_auth: AsyncClient, body: bytes, status: int
) -> None:
    for method, path, _ in bodies(app):
        response = await no_auth.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status, path
        assert is_problem(response, status, response.json()["code"])


@pytest.mark.parametrize("value", ['"\\ud800"', '"a\\u0000b"', "NaN", "1e999", "-Infinity", "1" + "0" * 30])
async def test_a_value_that_json_can_hold_and_we_cannot_is_refused_in_every_field(
    app: FastAPI, no_auth: AsyncClient, value: str
) -> None:
    for method, path, fields in bodies(app):
        for field in fields:
            body = f'{{"{field}": {value}}}'
            response = await no_auth.request(method, path, content=body, headers={"Content-Type": "application/json"})
            assert is_problem(response, 422, "invalid_input"), (path, field)
            pointers = [error["pointer"] for error in response.json()["errors"]]
            assert any(pointer.startswith(f"/body/{field}") for pointer in pointers)


@pytest.mark.parametrize("value", ["%00", "a" * 1000])
async def test_a_text_that_cannot_be_is_refused_in_every_parameter(
    app: FastAPI, no_auth: AsyncClient, value: str
) -> None:
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()) if takes_only_these_ids(path) else ():
                name = parameter["name"]
                ids = IDS | ({name: value} if parameter["in"] == "path" else {})
                query = f"?{name}={value}" if parameter["in"] == "query" else ""
                response = await no_auth.request(method, path.format(**ids) + query, json=None)
                assert is_problem(response, 422, "invalid_input"), (path, name)


async def test_a_body_over_a_mebibyte_is_refused_declared_or_not(as_user: AsUser) -> None:
    me = await as_user()

    async def streamed() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 100_000

    for content in (b"a" * 2_000_000, streamed()):
        response = await me.post("/v1/api-keys", content=content, headers={"Content-Type": "application/json"})
        assert is_problem(response, 413, "content_too_large")


async def test_rejected_values_and_long_names_are_not_echoed(as_user: AsUser) -> None:
    me = await as_user()
    body = {"name": ["value-that-is-wrong"], "scopes": [], me.api_key: 1, "a/b~c": 1}
    response = await me.post("/v1/api-keys", json=body)
    assert is_problem(response, 422, "invalid_input")
    assert "value-that-is-wrong" not in response.text
    assert me.api_key not in response.text
    assert {error["pointer"] for error in response.json()["errors"]} == {"/body/name", "/body/…", "/body/a~1b~0c"}


async def test_no_answer_lists_errors_without_end(as_user: AsUser) -> None:
    me = await as_user()
    response = await me.post("/v1/api-keys", json={f"field{number}": 1 for number in range(1000)})
    assert len(response.json()["errors"]) == 20


async def test_what_nothing_else_caught_is_a_500_that_says_nothing_of_the_inside(
    as_user: AsUser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise LookupError("internal detail")

    monkeypatch.setattr(service, "page", fail)
    response = await (await as_user()).get("/v1/api-keys")
    assert is_problem(response, 500, "internal_error")
    assert "internal detail" not in response.text
    assert "internal detail" in caplog.text


async def test_an_http_exception_of_a_library_is_a_problem_too(app: FastAPI, client: AsyncClient) -> None:
    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(400, headers={"X-Kind": "pot"})

    response = await client.get("/teapot")
    assert is_problem(response, 400, "invalid_request")
    assert response.headers["x-kind"] == "pot"


async def test_a_lone_surrogate_in_a_path_is_no_500(as_user: AsUser) -> None:
    response = await (await as_user()).get("/v1/api-keys/%ED%A0%80")
    assert 400 <= response.status_code < 500
