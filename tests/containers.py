"""What the deployment files say, and processes that run as they say."""

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bakery import PROJECT
from tests.demo import PATIENCE, serves

PEPPER = "1:gZ0b-3m1Qe7xU9fWc5sKt8yRj2vHnL4aPdXo6iTuEMk"


class Dockerfile:
    """The instructions of each stage, as pairs of a word and the rest."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
        self.stages: list[list[tuple[str, str]]] = []
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                self.stages.append([])
            self.stages[-1].append((word, rest.strip()))

    def rests(self, word: str, stage: int = -1) -> list[str]:
        return [rest for name, rest in self.stages[stage] if name == word]

    def rest(self, word: str, stage: int = -1) -> str:
        (rest,) = self.rests(word, stage)
        return rest

    @property
    def script(self) -> str:
        shell, option, script = json.loads(self.rest("CMD"))
        assert (shell, option) == ("sh", "-c")
        return str(script)

    @property
    def command(self) -> list[str]:
        """The server, which replaces the shell after the check."""
        return self.script.removeprefix("python -m app check && exec ").split()

    @property
    def health_check(self) -> list[str]:
        return [str(part) for part in json.loads(self.rest("HEALTHCHECK").partition("CMD ")[2])]


DOCKERFILE = Dockerfile(PROJECT / "Dockerfile")


def checked_command(port: int) -> list[str]:
    return ["sh", "-c", DOCKERFILE.script.replace("8000", str(port))]


def start_command(port: int) -> list[str]:
    command = DOCKERFILE.command
    assert command.count("8000") == 1
    return [str(port) if part == "8000" else part for part in command]


@contextmanager
def running(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], log: Path, port: int
) -> Iterator[subprocess.Popen[str]]:
    """From the moment it takes connections at the port; killed in the end, if it is still there."""
    with (
        log.open("w") as talk,
        subprocess.Popen(command, cwd=folder, env=variables, stdout=talk, stderr=talk, text=True) as process,
    ):
        try:
            assert serves(process, port), log.read_text()
            yield process
        finally:
            process.kill()


def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    body: str | bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    source: str = "127.0.0.1",
    timeout: float = PATIENCE,
) -> tuple[int, dict[str, str], str]:
    """The status, the headers and the body of the response, even if it is truncated."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout, source_address=(source, 0))
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        try:
            content = response.read()
        except http.client.IncompleteRead as error:
            content = error.partial
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content.decode()
    finally:
        connection.close()
