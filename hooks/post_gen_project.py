"""Gives the new project a secret of its own, and says what to do next."""

import os
import secrets
import shlex
import sys
from pathlib import Path

WITHOUT_PEPPER = "\nAPI_KEY_PEPPERS=\n"


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


write_env()
print("\nThe project is ready. Start it, and ask it who you are from a second terminal in the same folder:\n")
print("\n".join(next_commands()))
