"""Every answer, whatever it is, ends in a project that says it, or in one sentence and nothing on disk."""

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.bakery import user_environ

INPUTS = {
    "quotes": """it's "quoted" with a \\ and <b>""",
    "jinja": "{{ 7*7 }}",  # cookiecutter renders what comes from the command line
    "newline": "one\ntwo",
    "emoji": "\N{ROCKET} \N{FAMILY}",
    "leading digit": "1st",
    "keyword": "class",
    "package": "app",
    "stdlib": "json",
    "dependency": "starlette",
    "parent folder": "../evil",
    "folder": "a/b",
    "absolute": "/evil",
    "empty": "",
    "space": " ",
    "300 characters": "x" * 300,
    "surrogate": "\udcff",
}

UNWRITABLE = {"newline", "empty", "space", "surrogate"}
NO_FOLDER = {"quotes", "emoji", "parent folder", "folder", "absolute", "300 characters"}
REFUSED = {
    "project_name": UNWRITABLE | {"300 characters", "dependency"},
    "project_slug": UNWRITABLE | NO_FOLDER | {"dependency"},
    "description": UNWRITABLE,
    "author": UNWRITABLE | {"300 characters"},
    "api_key_prefix": UNWRITABLE | NO_FOLDER | {"jinja", "leading digit"},
    "database": set(INPUTS),
    "deployment": set(INPUTS),
    "ci": set(INPUTS),
}


@dataclass
class Machine:
    """Everything that a bake could write to; the folder that was asked for is `home/work/out`."""

    root: Path

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True)
        (self.root / "tmp").mkdir()

    @property
    def out(self) -> Path:
        return self.root / "home/work/out"

    def cookiecutter(self, template: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", str(template), "--output-dir", str(self.out), *arguments],
            cwd=self.out,
            env=user_environ() | {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")},
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def files(self) -> list[Path]:
        return sorted(self.root.rglob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


CASES = [(answer, kind) for answer in REFUSED for kind in INPUTS]


@pytest.mark.parametrize(("answer", "kind"), [case for case in CASES if case[1] in REFUSED[case[0]]])
def test_a_bad_answer_is_refused_with_a_sentence(machine: Machine, template: Path, answer: str, kind: str) -> None:
    before = machine.files()
    done = machine.cookiecutter(template, "--no-input", f"{answer}={INPUTS[kind]}")
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    blamed = "project_slug" if (answer, kind) == ("project_name", "dependency") else answer
    assert sentence.startswith(f"{blamed} ")
    assert sentence.endswith(".")
    assert machine.files() == before


@pytest.mark.parametrize(("answer", "kind"), [case for case in CASES if case[1] not in REFUSED[case[0]]])
def test_a_good_answer_stands_in_the_project(machine: Machine, template: Path, answer: str, kind: str) -> None:
    done = machine.cookiecutter(template, "--no-input", f"{answer}={INPUTS[kind]}")
    assert (done.returncode, done.stderr) == (0, "")
    (project,) = machine.out.iterdir()
    text = "49" if kind == "jinja" else INPUTS[kind]
    assert_says(project, answer, text)


def assert_says(project: Path, answer: str, text: str) -> None:
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    values = {
        "project_name": metadata["tool"]["app"]["project_name"],
        "project_slug": metadata["project"]["name"],
        "description": metadata["project"]["description"],
        "author": metadata["project"]["authors"][0]["name"],
        "api_key_prefix": metadata["tool"]["app"]["api_key_prefix"],
    }
    assert values[answer] == text
    assert values["project_slug"] == project.name
    assert values["project_name"] in (project / "README.md").read_text("utf-8")
    env = dotenv_values(project / ".env", interpolate=False)
    example = dotenv_values(project / ".env.example", interpolate=False)
    assert {name for name in env if env[name] != example.get(name)} == {"API_KEY_PEPPERS"}


def test_typed_answers_are_taken_literally(machine: Machine, template: Path) -> None:
    answers = ["{{ 7*7 }}", "typed", "{% if %}", "{# Ann #}", "abc", "postgresql", "kubernetes", "gitlab"]
    done = machine.cookiecutter(template, typed="".join(f"{answer}\n" for answer in answers))
    assert (done.returncode, done.stderr) == (0, "")
    for answer, text in zip(("project_name", "project_slug", "description", "author"), answers, strict=False):
        assert_says(machine.out / "typed", answer, text)


@pytest.mark.parametrize(
    ("name", "slug", "prefix"),
    [
        ("My API", "my-api", "myapi"),
        ("\N{ROCKET}", "my-api", "myapi"),
        ("42", "42", "api"),
        ("3 D", "3-d", "api"),
        ("3D Printing & Co.", "3d-printing-co", "dprintingc"),
        ("x" * 49 + " yz", "x" * 49, "x" * 10),
    ],
)
def test_slug_and_prefix_follow_from_the_name(
    machine: Machine, template: Path, name: str, slug: str, prefix: str
) -> None:
    done = machine.cookiecutter(template, "--no-input", f"project_name={name}")
    assert (done.returncode, done.stderr) == (0, "")
    assert_says(machine.out / slug, "api_key_prefix", prefix)


def test_an_existing_folder_is_left_alone(machine: Machine, template: Path) -> None:
    mine = machine.out / "my-api" / "mine"
    mine.parent.mkdir()
    mine.write_text("precious")
    done = machine.cookiecutter(template, "--no-input")
    assert done.returncode == 1
    assert "already exists" in done.stdout
    assert list(mine.parent.iterdir()) == [mine]


def test_the_last_lines_are_three_commands(machine: Machine, template: Path) -> None:
    done = machine.cookiecutter(template, "--no-input")
    folder, serve, ask = done.stdout.splitlines()[-3:]
    assert folder == f"cd {machine.out / 'my-api'}"
    assert serve == "make run"
    assert ask.startswith("curl ")
    assert ask.endswith(" http://127.0.0.1:8000/v1/users/me")
