"""Renames the user's own files that `cookiecutter -f` would overwrite, although they are not in this project."""

from pathlib import Path

NOT_CHOSEN = "{{ cookiecutter | files_not_chosen }}".split()  # noqa: SIM905  it is rendered first

for name in NOT_CHOSEN:
    file, kept = Path(name), Path(f"{name}.before-cookiecutter")
    if (file.exists() or file.is_symlink()) and not kept.exists():
        file.rename(kept)
