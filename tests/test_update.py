"""A project that was made from an earlier version, and edited since, is brought up to date with `cruft update`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bakery import FRUGAL, PYTHONS, ROOT, lend_environment, run
from tests.conftest import Bake

CRUFT = Path(sys.executable).parent / "cruft"
FIRST = "e566a7b3767b445588800ee12a4d67c2775bebf8"  # as good as a release, while there is none
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

from app.api_keys.dependencies import CurrentCaller
from app.database import SessionDep
from app.notes.models import Note

router = APIRouter(prefix="/v1/notes", tags=["notes"])


@router.get("")
async def list_notes(_: CurrentCaller, session: SessionDep) -> list[str]:
    """List what was noted."""
    return [note.text for note in await session.exec(select(Note))]
'''
TEST = """from tests.conftest import AsUser


async def test_there_are_no_notes_yet(as_user: AsUser) -> None:
    me = await as_user()
    assert (await me.get("/v1/notes")).json() == []
"""
MIGRATION = '''"""notes"""

import sqlalchemy as sa
from alembic import op

revision = "0a1b2c3d4e5f"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )


def downgrade() -> None:
    op.drop_table("notes")
'''

METRICS_ENV = """# /metrics for Prometheus, which needs a key with the scope metrics:read.
METRICS_ENABLED=false

"""
# What people change in the files that they got: the text there was, and what they made of it. They add notes and a
# setting, and delete the metrics.
EDITS = {
    "app/main.py": {
        "from app.openapi": "from app.notes.router import router as notes_router\nfrom app.openapi",
        "(usage_router)\n": "(usage_router)\n    app.include_router(notes_router)\n",
        "import health, metrics\n": "import health\n",
        "    if settings.metrics_enabled:\n        app.include_router(metrics.router)\n": "",
        "= metrics.Metrics(database, app.state.usage) if settings.metrics_enabled else None": "= None",
    },
    "app/scopes.py": {'    METRICS_READ = "metrics:read"\n': ""},
    "app/settings.py": {
        "    metrics_enabled: bool = False\n": "",
        "    log_level: ": '    greeting: str = "Hello"\n    log_level: ',
    },
    ".env.example": {
        METRICS_ENV: "",
        "# debug, info": "# What notes begin with.\nGREETING=Hello\n\n# debug, info",
    },
    ".env": {"RATE_LIMIT=600/minute\n": "RATE_LIMIT=60/minute\n"},
    "pyproject.toml": {'version = "0.1.0"\n': 'version = "2.4.1"\n'},
    "tests/test_migrations.py": {
        "from app.database import Database\n": "from app.database import Database\nfrom app.notes.models import Note\n",
        " session.add(ApiKeyUsage(": ' session.add(Note(text="Hi"))\n            session.add(ApiKeyUsage(',
    },
    "README.md": {"An HTTP API with users and API keys, made with FastAPI, SQLModel and Alembic.\n": "Ask Ann.\n"},
}
SKIP_ENV = """
[tool.cruft]
skip = [".env"] # each project has secrets of its own
"""
OWN = {
    "app/notes/__init__.py": "",
    "app/notes/models.py": MODEL,
    "app/notes/router.py": ROUTER,
    "migrations/versions/2026-12-24_notes.py": MIGRATION,
    "tests/notes/__init__.py": "",
    "tests/notes/test_router.py": TEST,
    "compose.yaml": "services: {}\n",  # the name of a file that another answer would have brought
}
DELETED = ["app/metrics.py", "tests/test_metrics.py"]


def git(folder: Path, *arguments: str) -> str:
    return run(["git", *arguments], folder, **GIT)


def commit(folder: Path, message: str, *options: str) -> None:
    git(folder, *options, "add", "--all")
    git(folder, *options, "commit", "--quiet", "--allow-empty", "--no-verify", "--no-gpg-sign", f"--message={message}")


def earlier_version() -> str:
    """The last release before the present commit."""
    asked = ["git", "rev-parse", "--is-shallow-repository"]
    if subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() != "false":
        pytest.skip("this checkout has no history to update from; a whole clone has")
    tags = git(ROOT, "tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname").split()
    version = tags[0] if tags else FIRST
    if subprocess.run(["git", "cat-file", "-e", f"{version}^{{commit}}"], cwd=ROOT, capture_output=True).returncode:
        pytest.fail(f"{version} is not in this clone, which this test updates from")
    return version


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """The template with its history, and whatever is not committed yet on top."""
    git(tmp_path, "clone", "--quiet", "--no-checkout", str(ROOT), "repository")
    folder = tmp_path / "repository"
    commit(folder, "the present", f"--work-tree={template}")
    return folder


def edit(project: Path) -> None:
    """What a year does to a project."""
    for name, changes in EDITS.items():
        text = (project / name).read_text("utf-8")
        for old, new in changes.items():
            assert text.count(old) == 1, f"{name}: {old}"
            text = text.replace(old, new)
        (project / name).write_text(text, "utf-8")
    for name in DELETED:
        (project / name).unlink()
    down_revision = head(project)
    for name, text in OWN.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text.replace("{head}", down_revision), "utf-8")
    commit(project, "a year of work")


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
    return {name: (project / name).read_text("utf-8") for name in [*filter(None, files), ".env"]}


def as_the_changelog_says(project: Path) -> None:
    """Add what older projects lack: without it, the patch holds an `.env`, which git does not know, and fails."""
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text("utf-8")
    if "[tool.cruft]" not in text:
        uv = "[tool.uv]\npackage = false\n"
        pyproject.write_text(text.replace(uv, uv + SKIP_ENV), "utf-8")
        commit(project, "as the changelog says")


def follow(project: Path, migrations: set[str], newest: str, mine: str) -> None:
    """Let the template's new migrations, which followed its newest, follow mine."""
    for name in migrations:
        text = (project / name).read_text("utf-8")
        (project / name).write_text(text.replace(f'= "{newest}"', f'= "{mine}"'), "utf-8")


def test_an_edited_project_is_brought_up_to_date(bake: Bake, repository: Path, tmp_path: Path) -> None:
    options = [f"--checkout={earlier_version()}", "--no-input", f"--output-dir={tmp_path}"]
    run([CRUFT, "create", str(repository), *options], tmp_path, **GIT)
    project = tmp_path / "my-api"
    git(project, "init", "--quiet")
    commit(project, "made")
    newest = head(project)
    edit(project)
    as_the_changelog_says(project)
    before, mine = everything(project), head(project)

    run([CRUFT, "update", "--skip-apply-ask"], project, **GIT)
    after = everything(project)
    assert_is_merged(before, after)
    fresh = bake()
    for name in {str(path.relative_to(fresh)) for path in fresh.rglob("*.*") if path.is_file()}:
        assert name in {".env", *EDITS, *DELETED} or after[name] == (fresh / name).read_text("utf-8"), name

    follow(project, {name for name in after.keys() - before.keys() if name.startswith("migrations/")}, newest, mine)
    lend_environment(project, next(iter(PYTHONS.values())))
    run(["make", "check", "test"], project, **FRUGAL)


def assert_is_merged(before: dict[str, str], after: dict[str, str]) -> None:
    assert json.loads(before[".cruft.json"])["commit"] != json.loads(after[".cruft.json"])["commit"]
    assert [name for name, text in after.items() if "<<<<<<<" in text or name.endswith(".rej")] == []
    assert not set(DELETED) & after.keys()
    for name in [".env", *OWN]:
        assert after[name] == before[name]
    for name, changes in EDITS.items():
        for old, new in changes.items():
            assert new in after[name]
            assert old in new or old not in after[name]


def test_a_project_that_cookiecutter_made_is_linked_and_differs_in_nothing(bake: Bake, repository: Path) -> None:
    project = bake()
    git(project, "init", "--quiet")
    run([CRUFT, "link", str(repository), "--no-input"], project, **GIT)
    commit(project, "made")
    assert run([CRUFT, "diff", "--exit-code"], project, **GIT).count("diff --git") == 0
    assert "up to date" in run([CRUFT, "check"], project, **GIT)
