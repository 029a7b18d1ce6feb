import asyncio

from httpx import ASGITransport, AsyncClient

from app.main import create_app
from app.settings import get_settings
from tests.cli.conftest import ADMIN, Run


async def test_a_key_of_the_command_line_works_until_the_command_line_revokes_it(run: Run) -> None:
    api_key = (await asyncio.to_thread(run, "start", ADMIN)).stdout.strip()
    app = create_app(get_settings().model_copy(update={"api_key_cache_seconds": 0}))
    headers = {"Authorization": f"Bearer {api_key}"}
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        assert (await client.get("/v1/users/me")).json()["email"] == ADMIN
        await asyncio.to_thread(run, "keys", "revoke", api_key.split("_")[2])
        response = await client.get("/v1/users/me")
    await app.state.database.dispose()
    assert (response.status_code, response.json()["code"]) == (401, "api_key_revoked")
