"""Checks of the URLs in the settings.

No message contains a URL, because it can contain a password.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
}
URL_EXPECTED = (
    "must be a URL such as sqlite:///./app.db or postgresql://user:password@host:5432/name; "
    'percent-encode "@", ":" and "/" in the password'
)
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[1-9][0-9]{0,4})?")


def check_database_url(value: str, folder: Path) -> str:
    """The URL with the driver of the app. A relative path of a SQLite file starts in `folder`."""
    host = re.split("[/?]", value.partition("://")[2].rpartition("@")[2])[0]
    if "," in host:
        raise ValueError("must name one host")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):  # the message of a ValueError contains the password
        raise ValueError(URL_EXPECTED) from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in DRIVERS.values():
        raise ValueError("must start with sqlite:// or postgresql://")
    if url.get_backend_name() == "sqlite":
        url = _check_sqlite_file(url, folder)
    elif value.count("@") > (url.username is not None) or not 0 < (url.port or 5432) < 65_536:
        raise ValueError(URL_EXPECTED)
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise ValueError("has an invalid host or port in its query") from None
    return url.render_as_string(hide_password=False)


def _check_sqlite_file(url: URL, folder: Path) -> URL:
    if url.host:
        raise ValueError("needs three slashes before a file name, as in sqlite:///./app.db")
    path = url.database or ""
    if (folder / path).is_dir() or path.startswith((":memory:", "file:")):
        raise ValueError("must name a file: a database in memory exists only for one connection")
    return url.set(database=str(folder / path))


def check_redis_url(value: str) -> str:
    value = re.sub("^valkey", "redis", value)
    try:
        url = urlsplit(value)
        is_server = url.hostname and url.port != 0 and re.fullmatch(r"/?\d{0,5}", url.path)
        is_valid = bool(url.path if url.scheme == "unix" else is_server)
        is_valid = is_valid and url.scheme in {"redis", "rediss", "unix"}
        is_valid = is_valid and not url.query and not url.fragment
    except ValueError:  # the port
        is_valid = False
    if not is_valid:
        raise ValueError("must be redis://host:port/0, rediss://, valkey:// or unix:///path")
    return value


def check_origin(value: str) -> str:
    """As browsers send it: in lower case, without the default port (RFC 6454, 6.2)."""
    origin = value.lower()
    if not ORIGIN.fullmatch(origin):
        raise ValueError('must be origins such as https://app.example.com, without a path, or "*"')
    return re.sub("^(http://.*):80$|^(https://.*):443$", r"\1\2", origin)
