"""Deletes the files that were not chosen, writes `.env` with a new secret, and prints the next steps."""

import os
import re
import secrets
import shlex
import sys
from contextlib import suppress
from pathlib import Path

NOT_CHOSEN = "{{ cookiecutter | files_not_chosen }}".split()  # noqa: SIM905  it is rendered first
TEMPLATE_COMMIT = "{{ cookiecutter | commit }}"
IS_NEW_PROJECT = bool("{{ 'yes' if is_new_project }}")  # not an update, which renders into temporary folders
WITHOUT_PEPPER = "\nAPI_KEY_PEPPERS=\n"


def delete_files_not_chosen() -> None:
    for name in NOT_CHOSEN:
        file, kept = Path(name), Path(f"{name}.before-cookiecutter")
        file.unlink(missing_ok=True)
        if kept.exists():  # pre_gen_project.py has renamed a file of the user
            kept.rename(file)
        with suppress(OSError):  # of the first folder that is not empty
            for folder in file.parents:
                folder.rmdir()


def write_env() -> None:
    example = Path(".env.example").read_text("utf-8")
    if example.count(WITHOUT_PEPPER) != 1:
        sys.exit(".env.example must contain the line API_KEY_PEPPERS= once.")
    text = example.replace(WITHOUT_PEPPER, f"\nAPI_KEY_PEPPERS=1:{secrets.token_urlsafe(32)}\n")
    try:
        # Private from the start: before a chmod, others could read it.
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # a new pepper would invalidate every key
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def next_commands() -> list[str]:
    project = Path.cwd()
    started_in_parent = os.environ.get("PWD") == str(project.parent)
    url = re.search("^DATABASE_URL=(postgresql://.*)/(.*)", Path(".env.example").read_text("utf-8"), re.MULTILINE)
    createdb = [f"createdb --maintenance-db={url[1]}/postgres {url[2]}"] if url else []
    new_key = ".venv/bin/python -m app keys create admin@example.com --name curl"
    return [
        f"cd {shlex.quote(project.name if started_in_parent else str(project))}",
        *createdb,
        "make run",
        f'curl --header "Authorization: Bearer $({new_key})" http://127.0.0.1:8000/v1/users/me',
    ]


delete_files_not_chosen()
if not TEMPLATE_COMMIT or not IS_NEW_PROJECT:
    Path(".cruft.json").unlink()  # there is nothing to update from, or cruft writes it
write_env()
if IS_NEW_PROJECT:
    print("\nThe project is ready. Start it, and then send a request from a second terminal in the same folder:\n")
    print("\n".join(next_commands()))
