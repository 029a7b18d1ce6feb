"""A page for users, keys and their usage. This feature can be deleted (docs/delete-a-feature.md).

The page consists of static files, which call the API with the key that its user enters.
"""

from pathlib import Path

from fastapi import FastAPI, Request, Response

from app.console.settings import ConsoleSettings
from app.core import pages
from app.settings import Settings, load_settings

STATIC = Path(__file__).parent / "static"


def install(app: FastAPI, settings: Settings) -> None:
    is_enabled = load_settings(ConsoleSettings).console_enabled
    if is_enabled is None:
        is_enabled = settings.environment != "production"
    if is_enabled:
        pages.serve_folder(app, "/console", STATIC, pages.policy())
        pages.add_page(app, "/console", add_slash)
        app.state.home = "/console/"


async def add_slash(request: Request) -> Response:
    """The page refers to its files by relative URLs."""
    return pages.redirect(request, "/console/")
