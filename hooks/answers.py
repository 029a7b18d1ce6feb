"""Refuses the answers that cannot become a project, and derives what Jinja's own filters cannot.

cookiecutter.json calls these filters right after the last question. A pre_gen_project hook would come too late: by then
cookiecutter has made the folder, which for `../evil` lies outside the output folder. And for a hook that fails it
prints a traceback of its own.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping

from jinja2 import Environment
from jinja2.ext import Extension

LONGEST = {"project_name": 100, "description": 300, "author": 100}
LONGEST_SLUG = 50  # a file name may have 255 bytes, a PostgreSQL name 63
UNWRITABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of surrogate pairs, Unicode's two line breaks

# What the generated project depends on, directly or not, on any system. A project of the same name would shadow its own
# dependency, and uv refuses to resolve that or leaves the dependency out.
DEPENDENCIES = frozenset(
    """
    aiosqlite alembic annotated-doc annotated-types anyio ast-serialize async-timeout certifi click colorama
    coverage deprecated execnet fastapi fastapi-cli greenlet h11 httpcore httptools httpx idna iniconfig librt
    limits mako markdown-it-py markupsafe mdurl mypy mypy-extensions opentelemetry-api opentelemetry-sdk
    opentelemetry-semantic-conventions packaging pathspec pluggy prometheus-client psycopg psycopg-binary pydantic
    pydantic-core pydantic-settings pygments pytest pytest-asyncio pytest-cov pytest-xdist python-dotenv pyyaml
    redis rich rich-toolkit ruff sentry-sdk shellingham sqlalchemy sqlmodel starlette time-machine typer
    typing-extensions typing-inspection tzdata urllib3 uv uvicorn uvloop watchfiles websockets wrapt
    """.split()  # noqa: SIM905 - as a list, ruff would give every name a line of its own
)


def refuse_bad_answers(answers: Mapping[str, str]) -> str:
    """End cookiecutter with one sentence if need be; render as nothing otherwise."""
    objection = next(objections(answers), None)
    if objection:
        raise SystemExit(objection)  # Jinja lets it pass, and Python prints it to stderr without a traceback
    return ""


def objections(answers: Mapping[str, str]) -> Iterator[str]:
    for name, longest in LONGEST.items():
        text = answers[name]
        if UNWRITABLE & set(map(unicodedata.category, text)):
            yield f"{name} holds a line break or another control character: remove it."
        if not text or text != text.strip():
            yield f"{name} is empty, or starts or ends with a space: give it a text without."
        if len(text) > longest:
            yield f"{name} has {len(text)} characters: shorten it to {longest}."

    slug = answers["project_slug"]
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or len(slug) > LONGEST_SLUG:
        yield f"project_slug must be lower-case letters and digits, joined by single hyphens, {LONGEST_SLUG} at most."
    if slug in DEPENDENCIES:
        yield f"project_slug cannot be {slug}, which the project depends on: take another, such as {slug}-api."

    if not re.fullmatch(r"[a-z][a-z0-9]{1,9}", answers["api_key_prefix"]):
        yield "api_key_prefix must be 2 to 10 lower-case letters and digits, a letter first."

    if answers["database"] not in ("sqlite", "postgresql"):
        yield "database must be sqlite or postgresql."

    if answers["deployment"] not in ("none", "compose", "kubernetes"):
        yield "deployment must be none, compose or kubernetes."

    if answers["ci"] not in ("none", "github", "gitlab"):
        yield "ci must be none, github or gitlab."


def key_prefix(slug: str) -> str:
    prefix = re.sub(r"[^a-z0-9]", "", slug).lstrip("0123456789")[:10]
    return prefix if len(prefix) > 1 else "api"


def toml(text: str) -> str:
    """What goes between the quotes. `tojson` would not do: it writes an emoji as two surrogates, which TOML refuses."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


class Answers(Extension):
    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # `cruft update` renders two versions of this template in one process: each shall import its own filters.
        sys.modules.pop(__name__, None)
        environment.filters |= {"key_prefix": key_prefix, "refuse_bad_answers": refuse_bad_answers, "toml": toml}
