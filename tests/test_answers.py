"""Each answer is in the project, or it is rejected with one sentence and nothing is written."""

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from dotenv import dotenv_values

from hooks.answers import CHOICES
from tests.bakery import PYTHONS, run, user_environ

CRUFT = Path(sys.executable).parent / "cruft"
AS_ANN = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")

INPUTS = {
    "quotes": """it's "quoted" with a \\ and <b>""",
    "jinja": "{{ 7*7 }}",
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
REJECTED = {
    "project_name": UNWRITABLE | {"300 characters", "dependency", "jinja"},
    "project_slug": UNWRITABLE | NO_FOLDER | {"dependency", "jinja"},
    "description": UNWRITABLE | {"jinja"},
    "author": UNWRITABLE | {"300 characters", "jinja"},
    "api_key_prefix": UNWRITABLE | NO_FOLDER | {"jinja", "leading digit"},
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


CASES = [(answer, kind) for answer in REJECTED for kind in INPUTS]


def assert_rejected(done: subprocess.CompletedProcess[str], name: str) -> str:
    """The command that starts again."""
    assert done.returncode == 1
    sentence, introduction, command = done.stderr.splitlines()
    assert sentence.startswith(f"{name} ")
    assert sentence.endswith(".")
    assert introduction == "Start again with your other answers:"
    return command


@pytest.mark.parametrize(("answer", "kind"), [case for case in CASES if case[1] in REJECTED[case[0]]])
def test_a_wrong_answer_is_rejected_with_a_sentence(machine: Machine, template: Path, answer: str, kind: str) -> None:
    before = machine.files()
    done = machine.cookiecutter(template, "--no-input", f"{answer}={INPUTS[kind]}")
    wrong = "project_slug" if (answer, kind) == ("project_name", "dependency") else answer
    assert_rejected(done, wrong)
    assert done.stdout == ""
    assert machine.files() == before


@pytest.mark.parametrize("name", CHOICES)
def test_a_wrong_choice_names_the_choices(machine: Machine, template: Path, name: str) -> None:
    done = machine.cookiecutter(template, "--no-input", f"{name}=oracle")
    assert done.returncode == 1
    assert str([*CHOICES[name]]) in done.stderr.splitlines()[-1]
    assert list(machine.out.iterdir()) == []


@pytest.mark.parametrize(("answer", "kind"), [case for case in CASES if case[1] not in REJECTED[case[0]]])
def test_a_good_answer_stands_in_the_project(machine: Machine, template: Path, answer: str, kind: str) -> None:
    done = machine.cookiecutter(template, "--no-input", f"{answer}={INPUTS[kind]}")
    assert (done.returncode, done.stderr) == (0, "")
    (project,) = machine.out.iterdir()
    assert_says(project, answer, INPUTS[kind])


TYPED = ["Ann's API", "typed", 'A "service"', "Ann & Co.", "abc", "2", "3", "2", "4"]


def test_answers_are_typed_or_chosen_from_a_menu(machine: Machine, template: Path) -> None:
    done = machine.cookiecutter(template, typed="".join(f"{answer}\n" for answer in TYPED))
    assert (done.returncode, done.stderr) == (0, "")
    for answer, text in zip(("project_name", "project_slug", "description", "author"), TYPED, strict=False):
        assert_says(machine.out / "typed", answer, text)
    assert "2 - PostgreSQL" in done.stdout
    assert "All rights reserved" in (machine.out / "typed/LICENSE").read_text("utf-8")
    assert (machine.out / "typed/.gitlab-ci.yml").exists()
    assert (machine.out / "typed/kubernetes").is_dir()


def test_a_menu_asks_again(machine: Machine, template: Path) -> None:
    typed = [*TYPED[:5], "postgres", *TYPED[5:]]
    done = machine.cookiecutter(template, typed="".join(f"{answer}\n" for answer in typed))
    assert (done.returncode, done.stderr) == (0, "")
    assert "DATABASE_URL=postgresql://" in (machine.out / "typed/.env").read_text("utf-8")


@pytest.mark.parametrize(("wrong", "index"), [(name, index) for index, name in enumerate(REJECTED)])
def test_a_typed_answer_is_rejected_before_the_next_question(
    machine: Machine, template: Path, wrong: str, index: int
) -> None:
    typed = [*TYPED[:index], "{{ mustache }}"]
    done = machine.cookiecutter(template, "author=Zoë", typed="".join(f"{answer}\n" for answer in typed))
    command = assert_rejected(done, wrong)
    assert f"[{index + 1}/9]" in done.stdout
    assert f"[{index + 2}/9]" not in done.stdout
    arguments = shlex.split(command)
    start = arguments.index(str(template))
    assert arguments[:start] in (["cookiecutter"], [sys.executable, "-m", "cookiecutter"])  # if it is not in PATH
    answers = dict(zip(REJECTED, TYPED[:index], strict=False))
    if index < 3:
        answers["author"] = "Zoë"
    assert dict(one.split("=", 1) for one in arguments if "=" in one) == answers
    typed = [typed or "\n" for typed in TYPED]
    again = machine.cookiecutter(template, *arguments[start + 3 :], typed="".join(f"{answer}\n" for answer in typed))
    assert again.returncode == 0


@pytest.mark.parametrize("name", ["databse", "__refused", "_template", "Project_name"])
def test_an_unknown_name_is_rejected(machine: Machine, template: Path, name: str) -> None:
    before = machine.files()
    assert_rejected(machine.cookiecutter(template, "--no-input", f"{name}=postgresql"), name)
    assert machine.files() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project_slug", "../evil/x"),
        ("project_slug", "/evil"),
        ("project_name", None),
        ("project_name", {"a": "b"}),
        ("author", ["a", "b"]),
        ("description", 5),
        ("database", "oracle"),
        ("license", "{{ 7*7 }}"),
    ],
)
def test_a_replay_is_checked_before_anything_is_written(
    machine: Machine, template: Path, name: str, value: object
) -> None:
    assert machine.cookiecutter(template, "--no-input").returncode == 0
    shutil.rmtree(machine.out / "my-api")
    (replay,) = (machine.root / "home/.cookiecutter_replay").iterdir()
    answers = json.loads(replay.read_text("utf-8"))
    answers["cookiecutter"][name] = value
    replay.write_text(json.dumps(answers))
    before = machine.files()
    assert_rejected(machine.cookiecutter(template, "--replay"), name)
    assert machine.files() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project_name", "null"),
        ("project_slug", "null"),
        ("author", "{a: b}"),
        ("author", "[a, b]"),
        ("description", "5.0"),
        ("project_name", "true"),
        ("project_slug", "../evil"),
        ("description", "'{{ 7*7 }} {{ \"{\" }}{ x'"),
    ],
)
def test_a_configuration_file_is_checked(machine: Machine, template: Path, name: str, value: str) -> None:
    config = machine.root / "config.yaml"
    config.write_text(f"default_context:\n  {name}: {value}\n")
    done = machine.cookiecutter(template, "--no-input", f"--config-file={config}")
    assert_rejected(done, name)
    assert list(machine.out.iterdir()) == []


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
@pytest.mark.parametrize("version", ["2.4", "2.5", "2.6", "2.7"])
def test_all_supported_versions_of_cookiecutter_bake_and_reject(
    machine: Machine, template: Path, version: str, python: str
) -> None:
    package = f"cookiecutter=={version}.*"
    command = [sys.executable, "-m", "uv", "tool", "run", "--quiet", "--python", python, "--from", package]
    command += ["cookiecutter", str(template), "--no-input", "--output-dir", str(machine.out)]
    run([*command, "license=Apache-2.0", "ci=gitlab"], machine.out, HOME=str(machine.root / "home"))
    assert "Apache License" in (machine.out / "my-api/LICENSE").read_text("utf-8")
    assert not (machine.out / "my-api/.github").exists()
    done = subprocess.run(
        [*command, "-f", "databse=postgresql"],
        env=user_environ() | {"HOME": str(machine.root / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_rejected(done, "databse")


def test_cruft_rejects_the_same(machine: Machine, template: Path) -> None:
    repository = machine.root / "repository"
    shutil.copytree(template, repository)
    for command in (["init", "--quiet"], ["add", "."], [*AS_ANN, "commit", "--quiet", "--message=x"]):
        run(["git", *command], repository)
    create = [str(CRUFT), "create", str(repository), "--no-input", "--output-dir", str(machine.out)]
    for answers, name in (({"databse": "x"}, "databse"), ({"author": "", "description": "D"}, "author")):
        done = subprocess.run(
            [*create, "--extra-context", json.dumps(answers)],
            env=user_environ() | {"HOME": str(machine.root / "home")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        *_, context = shlex.split(assert_rejected(done, name))
        assert json.loads(context).get("description", "D") in {"D", "A FastAPI service with API keys"}
        assert list(machine.out.iterdir()) == []


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


def test_with_postgresql_the_second_command_creates_the_database(machine: Machine, template: Path) -> None:
    done = machine.cookiecutter(template, "--no-input", "database=postgresql")
    createdb = "createdb --maintenance-db=postgresql://postgres@127.0.0.1:5432/postgres my_api"
    assert done.stdout.splitlines()[-3:-1] == [createdb, "make run"]
    assert f"`{createdb}`" in (machine.out / "my-api/README.md").read_text("utf-8")


def test_the_last_lines_are_three_commands(machine: Machine, template: Path) -> None:
    done = machine.cookiecutter(template, "--no-input")
    folder, serve, ask = done.stdout.splitlines()[-3:]
    assert folder == f"cd {machine.out / 'my-api'}"
    assert serve == "make run"
    assert ask.startswith("curl ")
    assert ask.endswith(" http://127.0.0.1:8000/v1/users/me")
