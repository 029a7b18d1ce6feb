import base64
import re
from hashlib import sha256

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from app.core import pages


async def test_the_docs_contact_no_other_origin(client: AsyncClient) -> None:
    page = await client.get("/docs")
    links = re.findall(r'(?:src|href)="(.*?)"', page.text)
    assert len(links) == 3
    for link in links:
        file = await client.get(f"/{link}")
        assert file.status_code == 200
        assert file.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert "url: 'openapi.json'" in page.text


async def test_the_policy_of_the_docs_allows_their_script_and_no_other(client: AsyncClient) -> None:
    page = await client.get("/docs")
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


async def test_only_the_files_of_the_folder_can_be_read(client: AsyncClient) -> None:
    for path in ("../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "nothing.js", ""):
        response = await client.get(f"/docs/{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    response = await client.post("/docs/swagger-ui.css")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_a_range_is_ignored(client: AsyncClient) -> None:
    response = await client.get("/docs/swagger-ui.css", headers={"Range": "bytes=9999999-"})
    assert response.status_code == 200
    assert "accept-ranges" not in response.headers


@pytest.mark.parametrize(
    ("home", "status", "location"), [("/docs", 307, "/docs"), (None, 404, None)]
)
async def test_the_start_page_leads_to_a_page_or_is_not_found(
    app: FastAPI, client: AsyncClient, home: str | None, status: int, location: str | None
) -> None:
    app.state.home = home
    response = await client.get("/")
    assert (response.status_code, response.headers.get("location")) == (status, location)


async def test_without_other_pages_the_start_page_leads_to_the_docs() -> None:
    app = FastAPI()
    pages.serve_home(app)
    pages.serve_docs(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/")).headers["location"] == "/docs"
