"""Leaves only the files that were asked for, gives the new project a secret of its own, and says what to do next."""

import os
import secrets
import shlex
import sys
from contextlib import suppress
from pathlib import Path

# What belongs to one answer or to several; every file that is not named here belongs to all projects.
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
    ("ci", "github"): [".github/workflows/ci.yml"],
    ("ci", "gitlab"): [".gitlab-ci.yml"],
}
ANSWERS = {"deployment": "{{ cookiecutter.deployment }}", "ci": "{{ cookiecutter.ci }}"}
WITHOUT_PEPPER = "\nAPI_KEY_PEPPERS=\n"


def remove_what_was_not_chosen() -> None:
    chosen = {file for answer in ANSWERS.items() for file in FILES.get(answer, [])}
    for file in {file for files in FILES.values() for file in files} - chosen:
        Path(file).unlink(missing_ok=True)
        with suppress(OSError):  # the first that is not empty, or the project's own folder
            for folder in Path(file).parents:
                folder.rmdir()


def write_env() -> None:
    example = Path(".env.example").read_text("utf-8")
    if example.count(WITHOUT_PEPPER) != 1:
        sys.exit(".env.example must hold the line API_KEY_PEPPERS= once, to be filled in.")
    text = example.replace(WITHOUT_PEPPER, f"\nAPI_KEY_PEPPERS=1:{secrets.token_urlsafe(32)}\n")
    try:
        # Private from the beginning: with a chmod afterwards, there is a moment in which others can read it.
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # a new pepper would end every key made so far
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def next_commands() -> list[str]:
    project = Path.cwd()
    started_in_parent = os.environ.get("PWD") == str(project.parent)
    new_key = ".venv/bin/python -m app keys create admin@example.com --name curl"
    return [
        f"cd {shlex.quote(project.name if started_in_parent else str(project))}",
        "make run",
        f'curl --header "Authorization: Bearer $({new_key})" http://127.0.0.1:8000/v1/users/me',
    ]


remove_what_was_not_chosen()
write_env()
print("\nThe project is ready. Start it, and ask it who you are from a second terminal in the same folder:\n")
print("\n".join(next_commands()))
