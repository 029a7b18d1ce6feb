"""The deployment files: the real validators check them, and their commands are run, without containers."""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.bakery import PROJECT, PYTHONS, bake, run
from tests.containers import DOCKERFILE, PEPPER, ask, checked_command, running, start_command
from tests.demo import PATIENCE, free_port
from tests.validators import BIN, Validator, copied, expect_refusal

PYTHON = list(PYTHONS.values())[-1]
DEFAULT_CONNECTIONS = 100 - 3  # PostgreSQL's max_connections, less superuser_reserved_connections
MANIFESTS = sorted((PROJECT / "kubernetes").glob("*.yaml"))
FILES = [PROJECT / name for name in (".dockerignore", "Caddyfile", "Dockerfile", "compose.yaml")] + MANIFESTS
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text("utf-8"))
DOCUMENTS = [yaml.safe_load(path.read_text("utf-8")) for path in MANIFESTS]
KUBERNETES = {document["kind"]: document for document in DOCUMENTS}
WORKLOADS = [KUBERNETES[kind]["spec"] for kind in ("Deployment", "Job")]
PASSWORDS = {"POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "POSTGRES_APP_PASSWORD"}
APPS = [COMPOSE["services"][name] for name in ("app-1", "app-2", "migrate")]


def constant(file: str, name: str) -> int:
    """The number that the generated project assigns to a name, or its default in the settings."""
    pattern = rf"^ *{name}(?:: int)? = (?:Field\(default=)?([\d_]+)"
    (text,) = re.findall(pattern, (PROJECT / file).read_text("utf-8"), re.MULTILINE)
    return int(text)


def setting_names() -> set[str]:
    """Of all features: the fields of each class whose name ends with Settings."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PROJECT.glob("app/**/settings.py")]
    classes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    fields = (node for one in classes if one.name.endswith("Settings") for node in one.body)
    targets = (node.target for node in fields if isinstance(node, ast.AnnAssign))
    return {target.id.upper() for target in targets if isinstance(target, ast.Name)}


# The validators


def hadolint(project: Path) -> None:
    run([BIN / "hadolint", "Dockerfile"], project)


def compose_schema(project: Path) -> None:
    run([BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"], project)


def caddy(project: Path) -> None:
    run([BIN / "caddy", "validate", "--config", "Caddyfile", "--adapter", "caddyfile"], project, **caddy_home(project))
    run([BIN / "caddy", "fmt", "--diff", "Caddyfile"], project)


def caddy_home(folder: Path) -> dict[str, str]:
    return {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def kubernetes(project: Path) -> None:
    """As kustomize puts it together, because that is what a cluster gets."""
    built = project / "built.yaml"
    built.write_text(run([BIN / "kubectl", "kustomize", "kubernetes"], project), "utf-8")
    assert len(list(yaml.safe_load_all(built.read_text("utf-8")))) == len(MANIFESTS)  # the ConfigMap is generated
    run([BIN / "kubernetes-validate", "--strict", built.name], project)


VALIDATORS = [hadolint, compose_schema, caddy, kubernetes]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copied(FILES, tmp_path)


@pytest.mark.parametrize("validate", VALIDATORS)
def test_it_is_valid(copy: Path, validate: Validator) -> None:
    validate(copy)


@pytest.mark.parametrize(
    ("validate", "file", "good", "bad"),
    [
        (hadolint, "Dockerfile", "FROM python:3.13-slim\n", "FROM python\n"),
        (hadolint, "Dockerfile", "WORKDIR /srv", "WORKDIR srv"),
        (hadolint, "Dockerfile", 'CMD ["sh"', "CMD sh"),
        (hadolint, "Dockerfile", "uv==", "uv #"),
        (compose_schema, "compose.yaml", "read_only:", "readonly:"),
        (compose_schema, "compose.yaml", "service_completed_successfully", "service_completed"),
        (compose_schema, "compose.yaml", "user: redis", "user: [redis]"),
        (caddy, "Caddyfile", "read_header", "read_headers"),
        (caddy, "Caddyfile", "1MiB", "one"),
        (kubernetes, "kubernetes/deployment.yaml", "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        (kubernetes, "kubernetes/deployment.yaml", "periodSeconds: 1\n", "periodSeconds: 1s\n"),
        (kubernetes, "kubernetes/migration.yaml", "backoffLimit: 3", "backoffLimits: 3"),
        (kubernetes, "kubernetes/kustomization.yaml", "service.yaml", "services.yaml"),
        (kubernetes, "kubernetes/network-policy.yaml", "podSelector", "podSelectors"),
    ],
)
def test_a_broken_copy_is_not(copy: Path, validate: Validator, file: str, good: str, bad: str) -> None:
    expect_refusal(validate, copy, file, good, bad)


# What no validator knows


def test_no_container_runs_as_root_or_can_write_to_its_disk() -> None:
    user, _, group = DOCKERFILE.rest("USER").partition(":")
    for workload in WORKLOADS:
        pod = workload["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == int(user) > 0
        assert context["runAsGroup"] == int(group) > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].keys() == {"requests", "limits"}
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert {name for name, service in services.items() if "front" in service["networks"]} == {"proxy", "app-1", "app-2"}
    policy = KUBERNETES["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for workload in WORKLOADS:
        assert policy["podSelector"]["matchLabels"].items() <= workload["template"]["metadata"]["labels"].items()
    assert sorted(port["port"] for rule in policy["egress"] for port in rule["ports"]) == [53, 53, 5432, 6379]


def test_the_app_trusts_the_proxy_in_front_of_it() -> None:
    (network,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    assert [app["environment"]["TRUSTED_PROXIES"] for app in APPS] == [network["subnet"]] * 3
    assert COMPOSE["services"]["proxy"]["networks"] == ["front"]


def test_selectors_find_the_server_and_not_the_migration() -> None:
    labels, others = (workload["template"]["metadata"]["labels"] for workload in WORKLOADS)
    selectors = [
        KUBERNETES["Service"]["spec"]["selector"],
        KUBERNETES["Deployment"]["spec"]["selector"]["matchLabels"],
        KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= others.items()
    assert KUBERNETES["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "api"


def environments() -> dict[str, dict[str, str]]:
    (generator,) = KUBERNETES["Kustomization"]["configMapGenerator"]
    literals = dict(literal.split("=", 1) for literal in generator["literals"])
    return {"compose": APPS[0]["environment"], "kubernetes": literals}


@pytest.mark.parametrize(("name", "variables"), environments().items())
def test_every_variable_is_a_setting(name: str, variables: dict[str, str]) -> None:
    assert {variable for variable, value in variables.items() if value} <= setting_names()
    assert variables["ENVIRONMENT"] == "production"


def test_the_comment_names_the_settings_in_the_secret() -> None:
    text = (PROJECT / "kubernetes/kustomization.yaml").read_text("utf-8")
    (names,) = re.findall(r"^# (.*) are in the Secret", text, re.MULTILINE)
    assert set(re.findall(r"[A-Z_]{3,}", names)) == {"DATABASE_URL", "REDIS_URL", "API_KEY_PEPPERS"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_is_in_a_file(path: Path) -> None:
    text = path.read_text("utf-8")
    for value in re.findall(r"(?:PASSWORD|PEPPERS|SECRET|TOKEN)\w*(?:: |=)(\S+)", text):
        assert value.startswith(("${", "$(openssl", '""')), value
    for password in re.findall(r"://[^/\s]*?:([^/\s]*)@", text):
        assert password.startswith("${"), password
    assert not re.search(r"^kind: Secret$", text, re.MULTILINE)
    assert not re.search(r"[0-9A-Za-z_-]{30,}", text.replace("service_completed_successfully", ""))


def test_a_missing_secret_stops_compose() -> None:
    text = (PROJECT / "compose.yaml").read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {"API_KEY_PEPPERS", *PASSWORDS}


def test_the_app_gets_no_password_but_its_own() -> None:
    """`env_file` would give it all of them."""
    *apps, migration = [app["environment"] for app in APPS]
    for variables in apps:
        assert "//api:${POSTGRES_APP_PASSWORD:" in variables["DATABASE_URL"]
        assert [name for name in PASSWORDS if variables.get(name) != ""] == ["POSTGRES_APP_PASSWORD"]
    assert "//api_owner:${POSTGRES_OWNER_PASSWORD:" in migration["DATABASE_URL"]
    (_, roles) = COMPOSE["services"]["postgres"]["volumes"]
    assert roles == "./migrations/roles.sql:/docker-entrypoint-initdb.d/roles.sql:ro"
    server, job = (workload["template"]["spec"]["containers"][0]["envFrom"] for workload in WORKLOADS)
    assert job == [*server, {"secretRef": {"name": "api-migration"}}]  # the last one wins


def test_images_are_pinned() -> None:
    images = [rest.partition(" ")[0] for stage in range(2) for rest in DOCKERFILE.rests("FROM", stage)]
    images += [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)?(-slim)?", image), image


def test_an_instance_has_enough_time_to_stop() -> None:
    graceful = int(DOCKERFILE.command[DOCKERFILE.command.index("--timeout-graceful-shutdown") + 1])
    needed = graceful + constant("app/usage/recorder.py", "SHUTDOWN_SECONDS")
    assert {app["stop_grace_period"] for app in APPS} == {"20s"}
    assert needed < 20
    pod = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
    delay = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert delay + needed < pod["terminationGracePeriodSeconds"]


def test_probes_use_the_right_path_and_wait_long_enough() -> None:
    (container,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    assert container["readinessProbe"]["timeoutSeconds"] > 1  # /health/ready answers within a second, whatever is wrong


def test_the_autoscaler_leaves_postgresql_enough_connections() -> None:
    most = KUBERNETES["HorizontalPodAutoscaler"]["spec"]["maxReplicas"]
    surge = KUBERNETES["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    migration = 1
    names = ("SESSION_CONNECTIONS", "LOOKUP_CONNECTIONS", "CHECK_CONNECTIONS")
    of_each_process = sum(constant("app/core/database.py", name) for name in names)
    assert (most + surge) * of_each_process + migration <= DEFAULT_CONNECTIONS


def test_the_proxy_limits_what_the_app_does_not_limit() -> None:
    text = (PROJECT / "Caddyfile").read_text("utf-8")
    for name in ("read_header", "read_body", "write", "idle", "max_header_size", "dial_timeout"):
        assert re.search(rf"^\t+{name} \d+(s|m|KiB)$", text, re.MULTILINE), name
    assert "max_size 1MiB\n" in text
    assert constant("app/settings.py", "request_body_limit") <= 1024 * 1024
    kept_by_proxy = int(re.findall(r"keepalive (\d+)s", text)[0])
    assert int(DOCKERFILE.command[DOCKERFILE.command.index("--timeout-keep-alive") + 1]) > kept_by_proxy


# What is started


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the Dockerfile puts into an image, made by its own commands."""
    project = bake(tmp_path_factory.mktemp("deployment") / "baked", "deployment=compose")
    allowed = [line[1:] for line in (project / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"]
    image = project.parent / "srv"
    image.mkdir()
    for rest in DOCKERFILE.rests("COPY"):
        *sources, target = rest.split()
        if sources[0].startswith("--from=build"):
            assert (sources[1], target) == ("/srv/.venv", ".venv")
            continue
        for source in sources:
            assert source in allowed
            copy_into = image if target == "./" else image / target
            if (project / source).is_dir():
                shutil.copytree(project / source, copy_into)
            else:
                shutil.copy(project / source, copy_into)
    sync(image)
    return image


def sync(folder: Path) -> None:
    """What the build stage does in a folder that has pyproject.toml and maybe uv.lock."""
    command = next(rest for rest in DOCKERFILE.rests("RUN", 0) if "uv sync" in rest)
    variables = dict(pair.split("=", 1) for pair in DOCKERFILE.rest("ENV", 0).split())
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    run(["sh", "-ec", re.sub(r"--mount=\S+", "", command)], folder, **variables, UV_PYTHON=PYTHON, PATH=path)


def test_a_lock_file_stays_unchanged(image: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(image / name, tmp_path)
    before = (tmp_path / "uv.lock").read_bytes()
    sync(tmp_path)
    assert (tmp_path / "uv.lock").read_bytes() == before


def test_an_image_contains_only_what_it_needs(image: Path) -> None:
    assert {path.name for path in image.iterdir()} - {"uv.lock"} == {
        ".venv",
        "app",
        "migrations",
        "pyproject.toml",
    }
    assert not (image / ".venv/bin/pytest").exists()


def environment(image: Path, database: Path) -> dict[str, str]:
    """All that a container has: nothing of this machine, so that nothing of it can help."""
    variables = APPS[0]["environment"] | {
        "API_KEY_PEPPERS": PEPPER,
        "DATABASE_URL": f"sqlite:///{database}",
        "REDIS_URL": "",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    return {**variables, "PATH": f"{image}/.venv/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}


MIGRATIONS = {
    "compose": COMPOSE["services"]["migrate"]["command"],
    "kubernetes": KUBERNETES["Job"]["spec"]["template"]["spec"]["containers"][0]["args"],
}


def migrate(image: Path, variables: dict[str, str], command: list[str]) -> None:
    done = subprocess.run(command, cwd=image, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_the_server_in_production_does_not_disclose_its_software() -> None:
    command = " ".join(DOCKERFILE.command)
    assert command.startswith("uvicorn app.main:app --host 0.0.0.0 ")
    for option in ("--no-access-log", "--no-proxy-headers", "--no-server-header"):
        assert option in command


@pytest.mark.parametrize("command", MIGRATIONS.values(), ids=MIGRATIONS.keys())
def test_the_commands_migrate_serve_check_and_stop(image: Path, tmp_path: Path, command: list[str]) -> None:
    port = free_port()
    variables = environment(image, tmp_path / "app.db")
    check = [part.replace("8000", str(port)) for part in DOCKERFILE.health_check]

    def is_healthy() -> bool:
        done = subprocess.run(check, cwd=image, env=variables, capture_output=True, timeout=PATIENCE)
        return done.returncode == 0

    assert not is_healthy()
    start = checked_command(port)
    stopped = subprocess.run(start, cwd=image, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert (stopped.returncode, stopped.stderr.count("\n")) == (1, 1)
    assert "not migrated" in stopped.stderr
    migrate(image, variables, command)
    with running(start, image, variables, tmp_path / "log", port) as process:
        assert is_healthy()
        assert ask(port, "/health/ready")[0] == 200
        assert "server" not in ask(port, "/health/live")[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


@dataclass
class Front:
    """A proxy that gives a request's head one second, and two instances behind it; their logs are in the folder."""

    port: int  # the tests have no certificate: this is where the site is, in place of HTTPS
    plain_port: int  # in place of port 80
    apps: list[subprocess.Popen[str]]
    folder: Path


@pytest.fixture(scope="module")
def front(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronted(image, tmp_path_factory.mktemp("front")) as front:
        yield front


@contextmanager
def fronted(image: Path, folder: Path) -> Iterator[Front]:
    variables = environment(image, folder / "app.db")
    migrate(image, variables, MIGRATIONS["compose"])
    ports = [free_port() for _ in range(4)]
    text = (PROJECT / "Caddyfile").read_text("utf-8")
    for old, new in [
        ("app-1:8000", f"127.0.0.1:{ports[1]}"),
        ("app-2:8000", f"127.0.0.1:{ports[2]}"),
        ("read_header 10s", "read_header 1s"),
        ("\tadmin off\n", f"\tadmin off\n\thttp_port {ports[3]}\n"),
    ]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "Caddyfile").write_text(text, "utf-8")
    with ExitStack() as stack:
        apps = [
            stack.enter_context(running(start_command(port), image, variables, folder / f"app-{port}", port))
            for port in ports[1:3]
        ]
        command = [f"{BIN}/caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        here = {**caddy_home(folder), "SITE_ADDRESS": f"http://:{ports[0]}"}
        stack.enter_context(running(command, folder, here, folder / "proxy", ports[0]))
        yield Front(ports[0], ports[3], apps, folder)


def test_the_app_sees_the_address_of_the_client_and_not_the_one_it_claims(front: Front) -> None:
    headers = {"X-Forwarded-For": "192.0.2.66", "X-Request-ID": "forged"}
    assert ask(front.port, "/v1/users/me", headers=headers, source="127.0.0.2")[0] == 401
    time.sleep(0.1)
    lines = "".join(log.read_text() for log in front.folder.glob("app-*")).splitlines()
    (line,) = (json.loads(line) for line in lines if "forged" in line)
    assert line["client"] == "127.0.0.2"


Response = tuple[int, dict[str, str], str]


def assert_problem(response: Response, code: str) -> None:
    """Every member that the app's own problems have, and the same id in the header."""
    status, headers, text = response
    problem = json.loads(text)
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert all(problem.values())
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:problem-type:{code}")
    assert problem["request_id"] == headers["x-request-id"]
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in headers) is (status >= 502)


@pytest.mark.parametrize("path", ["/v1/users/me?api_key=secret", '/v1/"%22\\', "/v1/%ff%00"])
@pytest.mark.parametrize("request_id", ["mine-1", 'not"valid'])
def test_a_request_without_tls_is_rejected_with_a_problem(front: Front, path: str, request_id: str) -> None:
    response = ask(front.plain_port, path, headers={"X-Request-ID": request_id})
    assert response[0] == 403
    assert_problem(response, "https_required")
    assert "secret" not in response[2]
    assert (response[1]["x-request-id"] == request_id) is (request_id == "mine-1")


def test_browsers_are_told_to_use_https(front: Front) -> None:
    for path in ("/health/live", "/nothing"):
        headers = ask(front.port, path)[1]
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-request-id"]
    assert "strict-transport-security" not in ask(front.plain_port, "/")[1]


def test_the_proxy_rejects_a_large_body_with_a_problem(front: Front) -> None:
    port = front.port
    blocks = [b"x" * 65_536] * 17
    for body in (b"".join(blocks), None):  # declared, and in chunks
        # The app may reject the missing key before the proxy has read the body. Caddy may truncate this 401.
        for _ in range(20):
            response = ask(port, "/v1/users/me", method="PATCH", body=body or iter(blocks))
            if response[0] != 401:
                break
        assert_problem(response, "content_too_large")
    assert ask(port, "/health/live", headers={"X-Long": "x" * 65_536})[0] == 431


def test_a_client_that_sends_its_head_too_slowly_is_disconnected(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        began = time.monotonic()
        while connection.recv(1024):
            pass
        assert time.monotonic() - began < 5


def test_clients_do_not_notice_the_loss_of_one_instance_and_get_a_problem_without_any(
    image: Path, tmp_path: Path
) -> None:
    with fronted(image, tmp_path) as front:
        front.apps[0].kill()
        assert {ask(front.port, "/health/ready")[0] for _ in range(50)} == {200}
        front.apps[1].kill()
        began = time.monotonic()
        response = ask(front.port, "/health/ready")
        assert time.monotonic() - began < 5
    assert response[0] in {502, 503}
    assert_problem(response, "unavailable")
