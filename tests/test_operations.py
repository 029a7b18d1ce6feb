"""Does what docs/operations.md says, in a generated project."""

import getpass
import http.client
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from tests.bakery import PROJECT, PYTHONS, lend_environment, run, user_environ
from tests.conftest import Bake
from tests.containers import DOCKERFILE, ask, running, start_command
from tests.demo import free_port
from tests.servers import Instance, PostgreSQL, PostgresqlStore, environment, until
from tests.validators import BIN

PAGE = (PROJECT / "docs/operations.md").read_text("utf-8")
ADMIN = "admin@example.com"


def commands(heading: str) -> list[str]:
    """The blocks of `sh` below a heading."""
    (section,) = re.findall(rf"^##+ {heading}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def block(language: str) -> str:
    """The only block of the page in a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def typed(text: str, project: Path, **variables: str) -> None:
    run(["bash", "-euxo", "pipefail", "-c", text], project, **variables)


@pytest.fixture
def project(bake: Bake) -> Path:
    project = bake()
    lend_environment(project, next(iter(PYTHONS.values())))
    return project


def app(project: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [".venv/bin/python", "-m", "app", *arguments],
        cwd=project,
        env=user_environ() | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def users(project: Path, **variables: str) -> list[str]:
    return [line.split("\t")[1] for line in app(project, "users", "list", **variables).splitlines()]


def test_a_backup_of_sqlite_is_restored(project: Path, tmp_path: Path) -> None:
    backup, restore = commands("SQLite")
    key = app(project, "start", ADMIN)
    port = free_port()
    variables = {"PATH": f"{project}/.venv/bin:/usr/bin:/bin"}
    with running(start_command(port), project, variables, tmp_path / "log", port):
        assert ask(port, "/v1/users/me", headers={"Authorization": f"Bearer {key}"})[0] == 200
        typed(backup, project)
        app(project, "users", "create", "late@example.com")
    # The server was killed, so its journal still exists and contains the late user.
    assert (project / "app.db-wal").stat().st_size
    typed(restore, project)
    assert users(project) == [ADMIN]
    with running(start_command(port), project, variables, tmp_path / "log", port):
        assert ask(port, "/v1/users/me", headers={"Authorization": f"Bearer {key}"})[0] == 200


def required(program: str) -> str:
    return shutil.which(program, path="/usr/sbin:/usr/bin:/bin") or pytest.skip(f"{program} is not installed")


def test_the_unit_of_systemd_is_valid_and_starts_uvicorn_as_the_image_does(project: Path) -> None:
    user = getpass.getuser()
    unit = block("ini").replace("/srv/api", str(project)).replace("User=api", f"User={user}")
    (project / "api.service").write_text(unit)
    run([required("systemd-analyze"), "verify", "--man=no", "./api.service"], project)
    (start,) = re.findall(r"^ExecStart=\S+/uvicorn ((?:.*\\\n)*.*)", unit, re.MULTILINE)
    options = set(start.replace("\\\n", " ").split()) - {"--workers", "2"}
    of_containers = {"--host", "0.0.0.0", "--port", "8000"}  # noqa: S104
    assert options == set(DOCKERFILE.command[1:]) - of_containers


def test_nginx_forwards_requests_and_responds_with_problems(project: Path, tmp_path: Path) -> None:
    nginx = required("nginx")
    port, plain_port, tls_port = (free_port() for _ in range(3))
    certificate = ["-keyout", "key.pem", "-out", "certificate.pem", "-subj", "/CN=localhost", "-days", "1"]
    certificate += ["-addext", "subjectAltName=IP:127.0.0.1"]
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *certificate], tmp_path)
    servers = block("nginx")
    for old, new in (
        ("listen 80", f"listen 127.0.0.1:{plain_port}"),
        ("listen 443", f"listen 127.0.0.1:{tls_port}"),
        ("127.0.0.1:8000", f"127.0.0.1:{port}"),
        ("/etc/ssl/api.example.com.pem", f"{tmp_path}/certificate.pem"),
        ("/etc/ssl/api.example.com.key", f"{tmp_path}/key.pem"),
    ):
        assert servers.count(old) == 1
        servers = servers.replace(old, new)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {tmp_path}/{name};\n" for name in names)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} {servers} }}\n"
    )
    key = app(project, "start", ADMIN)
    authorized = {"Authorization": f"Bearer {key}"}
    variables = {"PATH": f"{project}/.venv/bin:/usr/bin:/bin", "TRUSTED_PROXIES": "127.0.0.1", "LOG_FORMAT": "json"}
    context = ssl.create_default_context(cafile=tmp_path / "certificate.pem")

    def ask_nginx(**headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
        with closing(http.client.HTTPSConnection("127.0.0.1", tls_port, context=context, timeout=10)) as connection:
            connection.request("GET", "/v1/users/me", headers=authorized | headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), json.loads(response.read())

    with running([nginx, "-c", f"{tmp_path}/nginx.conf"], tmp_path, {}, tmp_path / "nginx.log", tls_port):
        with running(start_command(port), project, variables, tmp_path / "log", port):
            status, headers, me = ask_nginx(**{"X-Forwarded-For": "192.0.2.1"})
            until(lambda: "/users/me" in (tmp_path / "log").read_text())
        assert (status, me["email"]) == (200, ADMIN)
        assert headers["Strict-Transport-Security"] == "max-age=31536000"
        line = next(json.loads(one) for one in (tmp_path / "log").read_text().splitlines() if "/users/me" in one)
        assert line["client"] == "127.0.0.1"  # not what the client claims
        status, headers, problem = ask_nginx()
        assert (status, problem["code"], headers["Retry-After"]) == (503, "unavailable", "5")
        status, _, body = ask(plain_port, "/v1/users/me", headers=authorized)
        assert (status, json.loads(body)["code"]) == (403, "https_required")


def test_the_configuration_of_caddy_is_valid(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(block("caddyfile"))
    run([BIN / "caddy", "validate", "--config", "Caddyfile"], tmp_path, HOME=str(tmp_path))
    run([BIN / "caddy", "fmt", "--diff", "Caddyfile"], tmp_path, HOME=str(tmp_path))


WRITTEN = re.compile(r"(?<![\w.$])(?:[\w-]+\.(?:env|dump|db)|\.env)(?:[.-]\w+)*")


def test_git_and_docker_ignore_every_secret_file_that_the_docs_tell_people_to_write(bake: Bake) -> None:
    project = bake(deployment="compose")
    pages = [*PROJECT.rglob("*.md"), *map(PROJECT.joinpath, ("compose.yaml", "Makefile", ".env.example"))]
    names = {name for page in pages for name in WRITTEN.findall(page.read_text("utf-8"))} - {".env.example"}
    assert names >= {".env", "app.db-wal", "backup.db", "backup.dump", "migration.env", "secrets.env"}
    for name in names | {".env.production"}:
        (project / name).touch()
    run(["git", "init", "--quiet"], project)
    before = set(run(["git", "ls-files", "--others"], project).split())
    run(["git", "add", "."], project)
    staged = set(run(["git", "ls-files"], project).split())
    assert before - staged == names | {".env.production"}
    everything, *lines = [line for line in (project / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert everything == "*"
    assert not names & {line.removeprefix("!") for line in lines}


def named(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


def sql(url: str, statement: str) -> None:
    run(["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", statement, url], PROJECT)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """A separate database. The programs of PostgreSQL are required."""
    if missing := [name for name in ("createdb", "pg_dump", "pg_restore", "psql") if not shutil.which(name)]:
        pytest.skip(f"{missing} are not installed")
    name = f"test_{uuid4().hex}"
    sql(postgresql, f"CREATE DATABASE {name}")
    yield named(postgresql, name)
    sql(postgresql, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_backup_of_postgresql_is_restored(project: Path, postgresql_url: str) -> None:
    backup, restore = commands("PostgreSQL")
    key = app(project, "start", ADMIN, DATABASE_URL=postgresql_url)
    typed(backup, project, DATABASE_URL=postgresql_url)
    app(project, "users", "create", "late@example.com", DATABASE_URL=postgresql_url)
    name = f"test_{uuid4().hex}"
    assert restore.count("restored") == 2
    try:
        typed(restore.replace("restored", name), project, DATABASE_URL=postgresql_url)
        restored = named(postgresql_url, name)
        assert users(project, DATABASE_URL=restored) == [ADMIN]
        assert key.split("_")[2] in app(project, "keys", "list", DATABASE_URL=restored)
        assert len(users(project, DATABASE_URL=postgresql_url)) == 2
    finally:
        sql(postgresql_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    return str(request.getfixturevalue("postgresql_url"))


def expand(project: Path) -> None:
    """Make the next version, whose users have a nullable nickname."""
    models = project / "app/users/models.py"
    last_name = '    last_name: str = Field(default="", max_length=100)\n'
    text = models.read_text("utf-8")
    assert text.count(last_name) == 1
    nickname = "    nickname: str | None = Field(default=None, max_length=100)\n"
    models.write_text(text.replace(last_name, last_name + nickname), "utf-8")
    run(["make", "migration", "m=add nicknames"], project, DATABASE_URL="sqlite:///scratch.db")


def test_an_upgrade_has_no_downtime(project: Path, database_url: str, tmp_path: Path) -> None:
    """The old and the new version serve the same database at the same time."""
    new = Path(shutil.copytree(project, tmp_path / "new", symlinks=True))
    expand(new)
    variables = {"DATABASE_URL": database_url, "PATH": f"{project}/.venv/bin:/usr/bin:/bin", "RATE_LIMIT": ""}
    key = app(project, "start", ADMIN, **variables)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    old_port, new_port = free_port(), free_port()
    stop = Event()

    def client(port: int) -> set[int]:
        """Creates users, reads them and asks for readiness until told to stop. Returns the statuses."""
        statuses = set()
        while not stop.is_set():
            body = f'{{"email": "{uuid4().hex}@example.com"}}'
            statuses.add(ask(port, "/v1/users", method="POST", body=body, headers=headers)[0])
            statuses |= {ask(port, path, headers=headers)[0] for path in ("/v1/users", "/health/ready")}
        return statuses

    with (
        running(start_command(old_port), project, variables, tmp_path / "old.log", old_port),
        running(start_command(new_port), new, variables, tmp_path / "new.log", new_port),
        ThreadPoolExecutor() as pool,
    ):
        of_the_old = pool.submit(client, old_port)
        try:
            assert ask(new_port, "/health/ready")[0] == 503
            run([".venv/bin/alembic", "upgrade", "head"], new, **variables)
            of_the_new = pool.submit(client, new_port)
            time.sleep(2)  # side by side
        finally:
            stop.set()
        assert of_the_old.result() == of_the_new.result() == {200, 201}


FORBIDDEN = [
    "CREATE TABLE mine (id int)",
    "CREATE TEMPORARY TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE users ADD COLUMN mine int",
    "DROP TABLE audit_events",
    "TRUNCATE audit_events",
    "CREATE INDEX mine ON users (email)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "UPDATE alembic_version SET version_num = ''",
    "DELETE FROM alembic_version",
    "SET ROLE api_owner",
    "CREATE ROLE mine",
]


def test_the_app_works_with_a_role_that_cannot_change_the_schema(project: Path, cluster: PostgreSQL) -> None:
    (create_roles,) = commands("Database roles")
    store = PostgresqlStore.create(cluster)
    by_role = {role: store.url.replace("postgres@", f"{role}@") for role in ("api_owner", "api")}
    typed(create_roles, project, ADMIN_DATABASE_URL=store.url)
    run([".venv/bin/alembic", "upgrade", "head"], project, DATABASE_URL=by_role["api_owner"])

    store.url = by_role["api"]
    store.key = app(project, "start", ADMIN, **environment(store))
    instance = Instance(project, store, USAGE_FLUSH_SECONDS=0.1)
    with instance.running():
        user = instance.ask("POST", "/v1/users", {"email": "ada@example.com"}).body["id"]
        key = instance.create_key().body["id"]
        for method, path, body in (
            ("GET", "/health/ready", None),
            ("GET", "/v1/users", None),
            ("GET", "/v1/api-keys", None),
            ("PATCH", "/v1/users/me", {"first_name": "Grace"}),
            ("PATCH", f"/v1/api-keys/{key}", {"name": "ci"}),
            ("POST", f"/v1/api-keys/{key}/rotate", {}),
            ("DELETE", f"/v1/api-keys/{key}", None),
            ("DELETE", f"/v1/users/{user}", None),
            ("GET", "/v1/audit-events", None),
        ):
            assert instance.ask(method, path, body).status in {200, 201, 204}, path
        until(lambda: instance.get("/v1/api-keys/current/usage").body["total"])
    for statement in FORBIDDEN:
        with pytest.raises(AssertionError, match=r"permission denied|must be owner"):
            sql(store.url, statement)

    backup, restore = commands("PostgreSQL")
    cluster.sql("ALTER ROLE api_owner CREATEDB")
    typed(backup + restore, project, DATABASE_URL=by_role["api_owner"])
    restored = named(store.url, "restored")
    assert users(project, DATABASE_URL=restored) == [ADMIN]
    with pytest.raises(AssertionError, match="must be owner"):
        sql(restored, "DROP TABLE users")
