import subprocess
import sys
import time

from app.auth.cache import TRUST_SECONDS
from app.settings import ROOT
from tests.conftest import MakeDatabase
from tests.test_server import environment_of, running


def test_a_key_of_the_command_line_works_until_the_command_line_revokes_it(
    make_database: MakeDatabase,
) -> None:
    url = make_database(migrated=False)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "app", *arguments]
        environment = environment_of(url)
        return subprocess.check_output(command, cwd=ROOT, env=environment, text=True).strip()

    api_key = run("start", "admin@example.com")
    assert api_key.startswith("acme_live_")
    with running(url, api_key=api_key) as (server, _):
        assert server.get("/v1/users/me").json()["email"] == "admin@example.com"
        run("keys", "revoke", api_key.split("_")[2])
        time.sleep(TRUST_SECONDS)
        response = server.get("/v1/users/me")
    assert (response.status_code, response.json()["code"]) == (401, "api_key_revoked")
