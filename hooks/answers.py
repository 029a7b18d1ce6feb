"""Checks the answers, and derives what Jinja's own filters cannot. cookiecutter.json lists it as a Jinja extension.

cookiecutter renders the default of each question, the name of the project's folder before it makes it, and then each
file. All answers so far are checked each time: a wrong answer is rejected before the next question, and an answer from
a replay file before anything is written.
"""

import json
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.ext import Extension
from jinja2.runtime import Context

if sys.version_info < (3, 11):  # noqa: UP036 - the Python of cookiecutter can be older
    raise SystemExit("cookiecutter must run with Python 3.11 or newer.")

TEMPLATE = Path(__file__).resolve().parent.parent
MAX_LENGTH = {"project_name": 100, "description": 300, "author": 100}
MAX_SLUG = 50  # a file name may have 255 bytes, a PostgreSQL name 63
CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of surrogate pairs, Unicode's two line breaks
BRACES = re.compile("{[{%#]")  # a later update would evaluate them
CHOICES = {
    "database": ("sqlite", "postgresql"),
    "deployment": ("none", "compose", "kubernetes"),
    "ci": ("github", "gitlab", "none"),
    "license": ("MIT", "Apache-2.0", "BSD-3-Clause", "proprietary"),
}
QUESTIONS = ("project_name", "project_slug", "description", "author", "api_key_prefix", *CHOICES)
# The files of one answer or of several. All other files are in every project.
IMAGE = [".dockerignore", "Dockerfile"]
FILES = {
    ("deployment", "compose"): [*IMAGE, "Caddyfile", "compose.yaml"],
    ("deployment", "kubernetes"): [
        *IMAGE,
        "kubernetes/README.md",
        "kubernetes/autoscaler.yaml",
        "kubernetes/deployment.yaml",
        "kubernetes/disruption-budget.yaml",
        "kubernetes/kustomization.yaml",
        "kubernetes/migration.yaml",
        "kubernetes/network-policy.yaml",
        "kubernetes/service.yaml",
    ],
    ("ci", "github"): [".github/dependabot.yml", ".github/workflows/ci.yml"],
    ("ci", "gitlab"): [".gitlab-ci.yml"],
}
HOSTS = {"gh": "github.com", "gl": "gitlab.com", "bb": "bitbucket.org"}
SERVER_DATABASES = {"postgres", "template0", "template1"}

# What the generated project depends on, directly or not, on any system. A project of the same name would shadow its own
# dependency, and uv cannot resolve that.
DEPENDENCIES = frozenset(
    """
    aiosqlite alembic annotated-doc annotated-types anyio ast-serialize async-timeout certifi click colorama
    coverage deprecated execnet fastapi fastapi-cli fastapi-offline greenlet h11 httpcore httptools httpx idna
    iniconfig librt limits mako markdown-it-py markupsafe mdurl mypy mypy-extensions opentelemetry-api opentelemetry-sdk
    opentelemetry-semantic-conventions packaging pathspec pluggy prometheus-client psycopg psycopg-binary pydantic
    pydantic-core pydantic-settings pygments pytest pytest-asyncio pytest-cov pytest-timeout pytest-xdist python-dotenv
    pyyaml redis rich rich-toolkit ruff sentry-sdk shellingham sqlalchemy sqlmodel starlette time-machine typer
    typing-extensions typing-inspection tzdata urllib3 uv uvicorn uvloop watchfiles websockets wrapt
    """.split()  # noqa: SIM905 - as a list, ruff would give every name a line of its own
)


AnswersSoFar = Mapping[str, Any]  # Any: a configuration file can hold other things than text


def find_mistake(answers: AnswersSoFar) -> tuple[str, str] | None:
    """The name of the first wrong answer, and the reason."""
    return next(_mistakes(answers), None)


def _mistakes(answers: AnswersSoFar) -> Iterator[tuple[str, str]]:
    for name in QUESTIONS:
        if not isinstance(answers.get(name, ""), str):
            yield name, "must be a text."
            return
    for name, maximum in MAX_LENGTH.items():
        if name in answers:
            yield from ((name, mistake) for mistake in _mistakes_in_text(answers[name], maximum))
    if "project_slug" in answers:
        slug = answers["project_slug"]
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or len(slug) > MAX_SLUG:
            yield "project_slug", f"must be up to {MAX_SLUG} lower-case letters and digits, joined by single hyphens."
        if slug in DEPENDENCIES:
            yield "project_slug", f"cannot be {slug}, which the project depends on. Use another, such as {slug}-api."
        if slug in SERVER_DATABASES:
            yield "project_slug", f"cannot be {slug}, which is a database of PostgreSQL itself."
    if not re.fullmatch(r"[a-z][a-z0-9]{1,9}", answers.get("api_key_prefix", "api")):
        yield "api_key_prefix", "must be 2 to 10 lower-case letters and digits, and start with a letter."
    for name, choices in CHOICES.items():
        if answers.get(name, choices[0]) not in choices:
            yield name, f"must be {', '.join(choices[:-1])} or {choices[-1]}."


def _mistakes_in_text(text: str, maximum: int) -> Iterator[str]:
    if CONTROL & set(map(unicodedata.category, text)):
        yield "contains a line break or another control character. Remove it."
    if not text or text != text.strip():
        yield "is empty, or starts or ends with a space."
    if len(text) > maximum:
        yield f"has {len(text)} characters. The maximum is {maximum}."
    if BRACES.search(text):
        yield "must not contain {{, {% or {#."


def reject(name: str, mistake: str, answers: AnswersSoFar) -> None:
    """Exit with one sentence, and with the command that starts again with the other answers."""
    known = {**answers_in_command(), **answers}
    others = {one: known[one] for one in QUESTIONS if one in known and one != name}
    command = command_with({one: answer for one, answer in others.items() if not find_mistake({one: answer})})
    # Jinja lets SystemExit pass, and Python prints its text to stderr without a traceback.
    raise SystemExit(f"{name} {mistake}" + (f"\nStart again with your other answers:\n{command}" if command else ""))


def program() -> str:
    """cookiecutter, cruft, or the name of another program that uses them."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.stem


def called_program() -> list[str]:
    """The first words of a command that starts the same program."""
    name = program()
    return [name] if shutil.which(name) else [sys.executable, "-m", name]


def answers_in_command() -> dict[str, Any]:
    """NAME=VALUE of cookiecutter, or --extra-context of cruft."""
    arguments = sys.argv[1:]
    if program() == "cookiecutter":
        from cookiecutter.cli import main  # type: ignore[import-untyped]

        return main.make_context("cookiecutter", arguments, resilient_parsing=True).params["extra_context"] or {}
    if program() == "cruft" and "--extra-context" in arguments:
        given: dict[str, Any] = json.loads(arguments[arguments.index("--extra-context") + 1])
        return given
    return {}


def command_with(answers: AnswersSoFar) -> str:
    """The command that was called, with these answers. Empty if another program called cookiecutter."""
    arguments = sys.argv[1:]
    if program() == "cookiecutter":
        given = answers_in_command()
        kept = [one for one in arguments if one.partition("=")[0] not in given]
        return shlex.join([*called_program(), *kept, *(f"{name}={answer}" for name, answer in answers.items())])
    if program() == "cruft" and arguments[:1] == ["create"]:
        if "--extra-context" in arguments:
            del arguments[(index := arguments.index("--extra-context")) : index + 2]
        return shlex.join([*called_program(), *arguments, "--extra-context", json.dumps(answers, ensure_ascii=False)])
    return ""


def check(answers: AnswersSoFar, raw: AnswersSoFar) -> None:
    """`raw`: the answers before cookiecutter rendered them, which it does not know while it asks."""
    given = answers_in_command()
    for name, value in given.items():
        if name not in QUESTIONS:
            reject(name, f"is not a question. The questions are {', '.join(QUESTIONS)}.", answers)
        if isinstance(value, str) and BRACES.search(value):
            reject(name, "must not contain {{, {% or {#.", answers)
    for name in (*MAX_LENGTH, "project_slug", "api_key_prefix"):
        if not isinstance(raw.get(name, ""), str):
            reject(name, "must be a text.", answers)
    if found := find_mistake(answers):
        reject(*found, answers)


class CheckedContext(Context):
    """The variables of one rendering."""

    def __init__(self, environment: Environment, parent: dict[str, Any], *args: Any, **options: Any) -> None:
        check(parent.get("cookiecutter", {}), parent.get("_cookiecutter", {}))
        super().__init__(environment, parent, *args, **options)


def files_not_chosen(answers: AnswersSoFar) -> str:
    chosen = {file for (name, answer), files in FILES.items() if answers[name] == answer for file in files}
    return " ".join(sorted({file for files in FILES.values() for file in files} - chosen))


def key_prefix(slug: str) -> str:
    prefix = re.sub(r"[^a-z0-9]", "", slug).lstrip("0123456789")[:10]
    return prefix if len(prefix) > 1 else "api"


def toml(text: str) -> str:
    """What goes between the quotes. `tojson` would write an emoji as two surrogates, which TOML rejects."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def license_text(license_id: str, author: str) -> str:
    text = TEMPLATE.joinpath(f"hooks/licenses/{license_id}.txt").read_text("utf-8")
    return text.replace("AUTHOR", author).rstrip()


def address(answers: AnswersSoFar) -> str:
    """The template's address, as git accepts it. cookiecutter has short forms and relative paths."""
    template = str(answers.get("_template", "")).removeprefix("git+")
    short, _, repository = template.partition(":")
    if short in HOSTS:
        return f"https://{HOSTS[short]}/{repository}.git"
    is_relative = not (":" in template or template.endswith(".zip") or Path(template).is_absolute())
    return str(TEMPLATE) if is_relative else template


def commit(answers: AnswersSoFar) -> str:
    """The template's commit. Empty if the template is not a git repository."""
    if "_commit" in answers:  # of cruft
        return str(answers["_commit"])
    repository = Path(answers.get("_repo_dir", ""))
    git = (repository if repository.is_absolute() else TEMPLATE) / ".git"
    try:
        _, _, branch = git.joinpath("HEAD").read_text("ascii").strip().rpartition("ref: ")
        if git.joinpath(branch).exists():
            return git.joinpath(branch).read_text("ascii").strip()
        packed = git.joinpath("packed-refs")
        lines = packed.read_text("utf-8").splitlines() if packed.exists() else []
        return next((line.split()[0] for line in lines if line.endswith(f" {branch}")), branch)
    except OSError:
        return ""


def cruft_state(answers: AnswersSoFar) -> str:
    """The text of .cruft.json, which `cruft create` would write, so that `cruft update` works without it."""
    context = {name: answer for name, answer in answers.items() if name not in {"_output_dir", "_repo_dir"}}
    state = {
        "template": address(answers),
        "commit": commit(answers),
        "checkout": answers.get("_checkout"),
        "context": {"cookiecutter": {**context, "_template": address(answers)}},
        "directory": None,
    }
    return json.dumps(state, indent=2)


class Answers(Extension):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # `cruft update` renders two versions of this template in one process, each with its own filters.
        sys.modules.pop(__name__, None)
        environment.context_class = CheckedContext
        filters = (address, commit, cruft_state, files_not_chosen, key_prefix, license_text, toml)
        environment.filters |= {one.__name__: one for one in filters}
        environment.globals["is_new_project"] = program() != "cruft" or sys.argv[1:2] == ["create"]
