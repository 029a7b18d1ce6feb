import re
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from app.console import STATIC
from app.core.database import Database
from app.main import create_app
from app.settings import Settings
from tests.conftest import make_settings

MAX_BYTES = 150_000  # of all files, uncompressed
FILES = sorted(path.name for path in STATIC.iterdir())

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Elements(HTMLParser):
    """The start tags of a page, and whether it has any script or style in between."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(text)
    return parser.tags


async def test_every_file_is_served_with_the_headers_of_the_console(client: AsyncClient) -> None:
    for path in ("", *FILES):
        response = await client.get(f"/console/{path}")
        assert response.status_code == 200, path
        assert response.headers["content-security-policy"] == POLICY
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_has_not_changed_is_not_sent_again(client: AsyncClient) -> None:
    first = await client.get("/console/main.js")
    headers = {"If-None-Match": first.headers["etag"]}
    again = await client.get("/console/main.js", headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize(
    ("size", "encoding", "status"), [(100, "", 200), (100_000, "", 413), (100, "gzip", 415)]
)
async def test_a_body_never_truncates_a_file(
    client: AsyncClient, size: int, encoding: str, status: int
) -> None:
    headers = {"Content-Encoding": encoding}
    content = b"a" * size
    response = await client.request("GET", "/console/main.js", content=content, headers=headers)
    assert response.status_code == status
    assert len(response.content) == int(response.headers["content-length"])


async def test_a_path_with_dots_is_not_found(client: AsyncClient) -> None:
    for path in ("/console/%2e", "/console/..%2fstatic"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_the_start_page_leads_to_the_console(app: FastAPI, client: AsyncClient) -> None:
    for path in ("/", "/console"):
        assert (await client.head(path)).headers["location"] == "/console/"
    for root_path in ("/api", "/api/"):
        transport = ASGITransport(app, root_path=root_path)
        async with AsyncClient(transport=transport) as behind_proxy:
            home = await behind_proxy.get(f"http://test{root_path}/")
        assert home.headers["location"] == "/api/console/"


@pytest.mark.parametrize(
    ("environment", "enabled", "status"),
    [
        ("development", "", 200),
        ("production", "", 404),
        ("production", "true", 200),
        ("development", "false", 404),
    ],
)
async def test_production_must_enable_the_console(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    enabled: str,
    status: int,
) -> None:
    monkeypatch.setenv("CONSOLE_ENABLED", enabled)
    settings: Settings = make_settings(environment=environment)
    transport = ASGITransport(create_app(settings, database))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/console/", "/console/main.js"):
            assert (await client.get(path)).status_code == status


def test_the_page_has_no_inline_script_or_style_and_no_other_origin() -> None:
    page = (STATIC / "index.html").read_text("utf-8")
    for tag, attributes in elements(page):
        assert tag != "style"
        assert tag != "script" or attributes == {"type": "module", "src": "main.js"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            target = attributes.get(name) or "#"
            assert target.startswith("#") or target in FILES
    assert "<noscript><p" in page


def test_the_page_loads_every_module_at_once() -> None:
    tags = elements((STATIC / "index.html").read_text("utf-8"))
    preloaded = [values["href"] for _, values in tags if values.get("rel") == "modulepreload"]
    assert preloaded == [name for name in FILES if name.endswith(".js") and name != "main.js"]


def test_the_modules_import_only_each_other_and_parse_no_html() -> None:
    for name in FILES:
        text = (STATIC / name).read_text("utf-8")
        if name.endswith(".js"):
            imported = re.findall(r'from "(.*?)"|import\("(.*?)"\)', text)
            assert {"".join(one) for one in imported} <= {f"./{other}" for other in FILES}
        assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\b", text)
        assert "localStorage" not in text
        assert "cookie" not in text


def test_the_files_are_small() -> None:
    assert sum((STATIC / name).stat().st_size for name in FILES) <= MAX_BYTES
