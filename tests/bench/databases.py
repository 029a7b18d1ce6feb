"""Databases for the benchmark, each with so many keys."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit
from uuid import uuid4

from tests.bakery import run, user_environ
from tests.servers import PEPPER

ON_SERVER = """
import sys, sqlalchemy
engine = sqlalchemy.create_engine(sys.argv[1], isolation_level="AUTOCOMMIT")
with engine.connect() as connection:
    connection.execute(sqlalchemy.text(sys.argv[2]))
"""


class Keys(TypedDict):
    """What bench_seed.py writes."""

    hot: str
    limited: str
    uncounted: str
    revoked: str
    admin: str
    wrong: list[str]
    malformed: str
    even: list[str]


class Database:
    """`server` is the URL of a PostgreSQL server, or empty for SQLite."""

    def __init__(self, project: Path, server: str, size: int) -> None:
        self.project, self.size, self._server = project, size, server
        self.name = f"bench_{uuid4().hex}"
        self.title = "PostgreSQL" if server else "SQLite"
        at_home = f"sqlite:///{project.parent / self.name}.db"
        self.url = urlsplit(server)._replace(path=self.name).geturl() if server else at_home
        self._keys_file = project.parent / f"{self.name}.json"

    @contextmanager
    def ready(self) -> Iterator["Database"]:
        with ExitStack() as stack:
            if self._server:
                self._on_server(f"CREATE DATABASE {self.name}")
                stack.callback(self._on_server, f"DROP DATABASE {self.name} WITH (FORCE)")
            run([".venv/bin/alembic", "upgrade", "head"], self.project, **self.environment())
            seed = [".venv/bin/python", "bench_seed.py", f"{self._keys_file}", f"{self.size}"]
            run(seed, self.project, **self.environment())
            self.keys: Keys = json.loads(self._keys_file.read_text("utf-8"))
            yield self

    def _on_server(self, statement: str) -> None:
        url = re.sub(r"^postgres\w*", "postgresql+psycopg", self._server)
        run([".venv/bin/python", "-c", ON_SERVER, url, statement], self.project)

    def environment(self, **settings: str) -> dict[str, str]:
        """A server's: limits are off, also that of wrong keys, which would answer 429 instead of what is measured."""
        usual = {
            "API_KEY_PEPPERS": PEPPER,
            "DATABASE_URL": self.url,
            "ENVIRONMENT": "production",
            "FAILED_AUTH_LIMIT": "",
            "KEYS_FILE": str(self._keys_file),
            "RATE_LIMIT": "",
        }
        return user_environ() | usual | settings
