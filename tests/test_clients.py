"""Generated clients and linters accept the OpenAPI document of a running project."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bakery import run
from tests.servers import Instance, SqliteStore
from tests.validators import BIN

# For a client that openapi-python-client generates.
USE = """
import sys
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from client import AuthenticatedClient
from client.api.api_keys import create_api_key, list_api_keys, read_api_key, revoke_api_key, rotate_api_key
from client.api.monitoring import live, read_metrics
from client.api.users import create_user, read_me
from client.models import ApiKeyCreate, Problem, Scope, Status, UserCreate

url, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)

assert live.sync(client=client).status == "ok"
assert read_me.sync(client=client).email == "admin@example.com"
assert "http_requests_total" in read_metrics.sync(client=client)

expires_at = datetime.now(UTC) + timedelta(days=1)
new = ApiKeyCreate(name="ci", scopes=[Scope.USERS_READ], expires_at=expires_at, allowed_cidrs=["192.0.2.0/24"])
created = create_api_key.sync(client=client, body=new)
assert created.api_key.startswith("myapi_")
assert (created.status, created.expires_at) == (Status.ACTIVE, expires_at)

for moment, names in ((expires_at + timedelta(seconds=1), ["ci"]), (expires_at, [])):
    page = list_api_keys.sync(client=client, expires_before=moment, status=Status.ACTIVE, q="ci")
    assert [item.name for item in page.items] == names
first = list_api_keys.sync(client=client, limit=1)
assert list_api_keys.sync(client=client, cursor=first.next_cursor).items[0].id != first.items[0].id

rotated = rotate_api_key.sync(created.id, client=client)
assert rotated.previous.id == created.id
assert revoke_api_key.sync_detailed(rotated.id, client=client).status_code == HTTPStatus.NO_CONTENT
assert read_api_key.sync(rotated.id, client=client).status == Status.REVOKED

invalid = create_user.sync(client=client, body=UserCreate(email="x"))
assert isinstance(invalid, Problem)
assert (invalid.status, invalid.code, invalid.errors[0].pointer) == (422, "invalid_input", "/body/email")
unknown = read_api_key.sync("0" * 16, client=client)
assert (unknown.code, bool(unknown.errors)) == ("not_found", False)
stranger = AuthenticatedClient(base_url=url, token="wrong")
assert read_me.sync(client=stranger).code == "api_key_invalid"
"""


@pytest.fixture
def instance(project: Path, sqlite_seed: SqliteStore, tmp_path: Path) -> Iterator[Instance]:
    store = sqlite_seed.copy(tmp_path / "app.db")
    instance = Instance(project, store, DOCS_ENABLED="true", METRICS_ENABLED="true")
    with instance.running():
        yield instance


@pytest.fixture
def document(instance: Instance, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(instance.get("/openapi.json").body), "utf-8")
    return path


def generate(document: Path) -> Path:
    folder = document.with_name("client")
    options = ["--meta", "none", "--fail-on-warning", "--output-path", str(folder)]
    path = f"{BIN}:/usr/bin:/bin"  # the generator formats its code with ruff
    run([BIN / "openapi-python-client", "generate", "--path", document, *options], document.parent, PATH=path)
    return folder


def test_the_document_is_valid(document: Path) -> None:
    run([BIN / "openapi-spec-validator", "--errors", "all", document], document.parent)


def test_an_invalid_document_is_not(document: Path) -> None:
    document.write_text(document.read_text("utf-8").replace('"in": "path"', '"in": "nowhere"'), "utf-8")
    with pytest.raises(AssertionError, match="nowhere"):
        run([BIN / "openapi-spec-validator", document], document.parent)


def test_a_generated_client_manages_keys(instance: Instance, document: Path) -> None:
    script = generate(document).with_name("use.py")
    script.write_text(USE, "utf-8")
    run([sys.executable, script, f"http://127.0.0.1:{instance.port}", instance.store.key], script.parent)


def test_a_generated_client_accepts_codes_that_are_added_later(document: Path) -> None:
    """Its own check of a response would reject a code that is not in an enum."""
    script = generate(document).with_name("use.py")
    problem = dict.fromkeys(("type", "title", "detail", "instance", "request_id"), "x") | {"status": 400}
    script.write_text(
        f"from client.models import Problem\nassert Problem.from_dict({problem} | {{'code': 'new'}}).code == 'new'\n",
        "utf-8",
    )
    run([sys.executable, script], script.parent)
