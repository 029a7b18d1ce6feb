"""An edited project is updated to a newer version of the template with `cruft update`."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.bakery import FRUGAL, PROJECT, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Cookies

CRUFT = Path(sys.executable).parent / "cruft"
# A name to commit with, and no way to reach another machine.
GIT = {
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
}

MODEL = """from uuid import UUID, uuid4

from sqlmodel import Field, SQLModel


class Note(SQLModel, table=True):
    __tablename__ = "notes"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    text: str = Field(max_length=200)
"""
ROUTER = '''from fastapi import APIRouter
from sqlmodel import select

from app.auth.dependencies import CurrentCaller
from app.core.database import SessionDep
from app.notes.models import Note

router = APIRouter(prefix="/v1/notes", tags=["notes"])


@router.get("")
async def list_notes(_: CurrentCaller, session: SessionDep) -> list[str]:
    """List notes"""
    return [note.text for note in await session.exec(select(Note))]
'''
TEST = """from tests.conftest import AsUser


async def test_there_are_no_notes_yet(as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.get("/v1/notes")).json() == []
"""
MIGRATION = '''"""REVISION"""

import sqlalchemy as sa
from alembic import op

revision = "REVISION"
down_revision = "HEAD"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "TABLE",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_TABLE")),
    )


def downgrade() -> None:
    op.drop_table("TABLE")
'''


def migration(table: str, revision: str) -> str:
    return MIGRATION.replace("TABLE", table).replace("REVISION", revision)


Edits = Mapping[str, Mapping[str, str]]  # by file: the text there was, and the new one

METRICS_ENV = """
# Metrics
# Whether /metrics exists. It requires a key with the scope metrics:read.
# METRICS_ENABLED=false
# A folder in which several workers on this machine share their metrics, so that each can show those
# of all. Empty: each process shows its own.
# PROMETHEUS_MULTIPROC_DIR=
"""
# What the owner of a project does: add notes and a setting, delete metrics.
EDITS: Edits = {
    "app/main.py": {
        "from app.settings": "from app.notes.router import router as notes_router\nfrom app.settings",
        "(audit_router)\n": "(audit_router)\n    app.include_router(notes_router)\n",
        "import console, metrics, usage\n": "import console, usage\n",
        "    metrics,\n": "",
    },
    "app/auth/scopes.py": {'    METRICS_READ = "metrics:read"\n': ""},
    "app/settings.py": {"    log_level: ": '    greeting: str = "Hello"\n    log_level: '},
    ".env.example": {
        METRICS_ENV: "",
        "# debug, info": "# The first word of every note.\n# GREETING=Hello\n\n# debug, info",
    },
    ".env": {"# RATE_LIMIT=600/minute\n": "RATE_LIMIT=60/minute\n"},
    "pyproject.toml": {'"my-api"\nversion = "0.1.0"\n': '"my-api"\nversion = "2.4.1"\n'},
    "docs/operations.md": {
        "[`test_workers.py::test_old_files_are_deleted_at_the_start`]": "",
    },
    "README.md": {"An HTTP API with users and API keys, built with FastAPI, SQLModel and Alembic.\n": "Ask Ann.\n"},
}
OWN = {
    "app/notes/__init__.py": "",
    "app/notes/models.py": MODEL,
    "app/notes/router.py": ROUTER,
    "migrations/versions/2026-12-24_notes.py": migration("notes", "0a1b2c3d4e5f"),
    "tests/notes/__init__.py": "",
    "tests/notes/test_router.py": TEST,
    "compose.yaml": "services: {}\n",  # the name of a file that another answer would have brought
}
DELETED = [*(f"app/metrics/{name}.py" for name in ("__init__", "router", "service", "settings", "workers"))]
DELETED += [f"tests/metrics/{name}.py" for name in ("__init__", "test_router", "test_workers")]

# The next version of the template, simulated: a setting, a table and other text.
NEXT_EDITS: Edits = {
    "app/main.py": {"redoc_url=None,\n": "redoc_url=None,  # Swagger UI is enough\n"},
    "app/settings.py": {"    environment: ": '    color: str = "green"\n    environment: '},
    ".env.example": {"# development, test": "# The color.\n# COLOR=green\n\n# development, test"},
    "app/metrics/router.py": {"Get metrics for Prometheus": "Get the metrics for Prometheus"},
    "app/usage/router.py": {"Get the usage of an API key": "Get the usage of a key"},
    "pyproject.toml": {"fail_under = 100": "fail_under = 99"},
    "README.md": {"## Commands\n": "The color is green.\n\n## Commands\n"},
}
NEXT_FILES = {
    "app/mottos/__init__.py": "",
    "app/mottos/models.py": MODEL.replace("Note", "Motto").replace("notes", "mottos"),
    "migrations/versions/2027-01-01_mottos.py": migration("mottos", "f5e4d3c2b1a0"),
}
NEXT_DELETED = ["docs/performance.md"]


def git(folder: Path, *arguments: str) -> str:
    return run(["git", *arguments], folder, **GIT)


def commit(folder: Path, message: str, *options: str) -> None:
    git(folder, *options, "add", "--all")
    git(folder, *options, "commit", "--quiet", "--no-verify", "--no-gpg-sign", f"--message={message}")


def newest_release() -> str:
    """The tag of the newest release before the present commit. Empty if there is none."""
    command = ["git", "tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname"]
    tags = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    return tags[0] if tags else ""


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """A repository with two versions: the newest release, or else the present, and a newer one."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    if release := newest_release():
        git(folder, "pull", "--quiet", str(ROOT), f"refs/tags/{release}")
    else:
        commit(folder, "release", f"--work-tree={template}")
    newer = Path(shutil.copytree(template, tmp_path / "newer"))
    change(newer / PROJECT.name, NEXT_EDITS, NEXT_FILES, NEXT_DELETED)
    commit(folder, "newer version", f"--work-tree={newer}")
    git(folder, "reset", "--quiet", "--hard")
    return folder


def change(project: Path, edits: Edits, files: Mapping[str, str], deleted: Iterable[str]) -> None:
    for name, changes in edits.items():
        text = (project / name).read_text("utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new)
        (project / name).write_text(text, "utf-8")
    for name in deleted:
        (project / name).unlink()
    down_revision = head(project)
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text.replace("HEAD", down_revision), "utf-8")


def head(project: Path) -> str:
    """The revision that no other follows."""
    texts = [path.read_text("utf-8") for path in (project / "migrations/versions").glob("*.py")]
    revisions, followed = (
        {found[1] for text in texts if (found := re.search(rf'^{name} = "(\w+)"', text, re.MULTILINE))}
        for name in ("revision", "down_revision")
    )
    (revision,) = revisions - followed
    return revision


def everything(project: Path) -> dict[str, str]:
    files = git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    existing = [name for name in [*filter(None, files), ".env"] if (project / name).exists()]
    return {name: (project / name).read_text("utf-8", errors="replace") for name in existing}


def create(repository: Path, folder: Path, *options: str) -> Path:
    run([CRUFT, "create", str(repository), "--no-input", f"--output-dir={folder}", *options], repository, **GIT)
    return folder / "my-api"


def test_an_edited_project_is_updated(repository: Path, tmp_path: Path) -> None:
    project = create(repository, tmp_path / "mine", "--checkout=HEAD~1")
    git(project, "init", "--quiet")
    commit(project, "created")
    released = head(project)
    change(project, EDITS, OWN, DELETED)
    commit(project, "a year of work")
    before, mine = everything(project), head(project)

    run([CRUFT, "update", "--skip-apply-ask"], project, **GIT)
    after = everything(project)
    assert_is_merged(before, after)
    fresh = everything(create(repository, tmp_path / "fresh"))
    for name in fresh.keys() - {".env", *EDITS, *DELETED}:
        assert after[name] == fresh[name], name
    assert not {*NEXT_DELETED} & after.keys()

    # As the README says: the template's new migrations follow mine.
    for name in after.keys() - before.keys():
        if name.startswith("migrations/"):
            text = after[name].replace(f'= "{released}"', f'= "{mine}"')
            (project / name).write_text(text, "utf-8")
    lend_environment(project, next(iter(PYTHONS.values())))
    run(["make", "check", "test"], project, **FRUGAL)


def assert_is_merged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    assert json.loads(before[".cruft.json"])["commit"] != json.loads(after[".cruft.json"])["commit"]
    assert [name for name, text in after.items() if "<<<<<<<" in text or name.endswith(".rej")] == []
    assert not {*DELETED} & after.keys()
    for name in [".env", *OWN]:
        assert after[name] == before[name]
    for edits in (EDITS, NEXT_EDITS):
        for name in edits.keys() & after.keys():
            for old, new in edits[name].items():
                assert name == ".env" or new in after[name]
                assert old in new or old not in after[name]


def test_a_project_that_cookiecutter_created_has_no_differences(cookies: Cookies, repository: Path) -> None:
    project = cookies.bake(extra_context={"license": "Apache-2.0"}, template=str(repository)).project_path
    assert project
    git(project, "init", "--quiet")
    commit(project, "created")
    assert run([CRUFT, "diff", "--exit-code"], project, **GIT).count("diff --git") == 0
    assert "up to date" in run([CRUFT, "check"], project, **GIT)


@pytest.mark.parametrize("spelling", [".", "../repository", "{}", "git+file://{}"])
def test_a_project_records_the_address_and_the_commit_of_its_template(
    repository: Path, tmp_path: Path, spelling: str
) -> None:
    address = spelling.format(repository)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cookiecutter", "--no-input", f"--output-dir={out}", address]
    run(command, repository, HOME=str(tmp_path))
    record = tomllib.loads((out / "my-api/pyproject.toml").read_text("utf-8"))["tool"]["app"]["template"]
    state = json.loads((out / "my-api/.cruft.json").read_text("utf-8"))
    expected = address.removeprefix("git+") if "://" in address else str(repository)
    assert (record["address"], state["template"]) == (expected, expected)
    assert record["commit"] == state["commit"] == git(repository, "rev-parse", "HEAD").strip()


def test_a_project_that_cookiecutter_created_is_updated_as_its_readme_says(cookies: Cookies, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "HEAD~1")
    result = cookies.bake(extra_context={"project_name": "Ann's API"}, template=str(repository))
    git(repository, "checkout", "--quiet", "-")
    project = result.project_path
    assert project
    git(project, "init", "--quiet")
    commit(project, "created")
    record = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["app"]["template"]
    assert record["commit"] == git(repository, "rev-parse", "HEAD~1").strip()

    readme = (project / "README.md").read_text("utf-8").partition("## Update")[2].partition("\n## ")[0]
    (command,) = re.findall(r"^\$ (.*)", readme, re.MULTILINE)
    command = command.replace(".venv/bin/uv", f"{sys.executable} -m uv") + " --skip-apply-ask"
    printed = run(["bash", "-euc", command], project, **GIT)
    assert "project is ready" not in printed
    after = everything(project)
    assert "The color is green." in after["README.md"]
    assert tomllib.loads(after["pyproject.toml"])["tool"]["app"]["template"]["commit"] in git(
        repository, "rev-parse", "HEAD"
    )
    assert json.loads(after[".cruft.json"])["context"]["cookiecutter"]["project_name"] == "Ann's API"
