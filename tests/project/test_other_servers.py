"""What `test_server.py` tests of uvicorn, with other commands."""

from collections.abc import Iterator

import pytest

from tests.conftest import MakeDatabase
from tests.test_server import (
    Server,
    logging_to,
    test_a_process_on_the_same_machine_cannot_forge_its_address,
    test_a_trailer_field_is_not_a_header,
    test_the_log_of_the_server_redacts_keys,
    test_the_server_accepts_only_requests_with_a_key,
)

__all__ = [
    "test_a_process_on_the_same_machine_cannot_forge_its_address",
    "test_a_trailer_field_is_not_a_header",
    "test_the_log_of_the_server_redacts_keys",
    "test_the_server_accepts_only_requests_with_a_key",
]

COMMANDS = {
    "fastapi run": ["fastapi", "run"],
    "workers": ["uvicorn", "app.main:app", "--workers", "2"],
    "fastapi dev": ["fastapi", "dev"],
}


@pytest.fixture(scope="module", params=COMMANDS.values(), ids=[*COMMANDS])
def server(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with logging_to(log, make_database(), request.param) as server:
        yield server
