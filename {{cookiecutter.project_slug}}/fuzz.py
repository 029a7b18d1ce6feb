"""Hooks for Schemathesis, which otherwise revokes its own key and then tests only the response 401.

The file schemathesis.toml names this module. KEY must contain a key of an admin.
"""

import atexit
import os
from collections import Counter
from functools import cache
from typing import Any

import requests
import schemathesis

KEY = os.environ["KEY"]
AUTHORIZATION = f"Bearer {KEY}"
HEADERS = {"Authorization": AUTHORIZATION}
UNKNOWN_USER = "00000000-0000-4000-8000-000000000000"

statuses: Counter[int] = Counter()


@cache
def own_ids(base_url: str) -> set[str]:
    me = requests.get(f"{base_url}/v1/users/me", headers=HEADERS, timeout=30).json()
    return {"current", KEY.split("_")[2], me["id"]}


def create_key(base_url: str) -> str:
    new = {"name": "fuzz", "scopes": ["users:read"]}
    url = f"{base_url}/v1/api-keys"
    key: dict[str, str] = requests.post(url, json=new, headers=HEADERS, timeout=30).json()
    return key.get("id", "0" * 16)  # too many keys are a 409


@schemathesis.hook
def before_call(context: object, case: Any, kwargs: object) -> None:
    """Change other keys and users only."""
    base_url = case.operation.schema.get_base_url().rstrip("/")
    for name, value in (case.path_parameters or {}).items():
        if value in own_ids(base_url) and case.method.upper() != "GET":
            is_key = name == "key_id"
            case.path_parameters[name] = create_key(base_url) if is_key else UNKNOWN_USER


@schemathesis.hook
def after_call(context: object, case: object, response: Any) -> None:
    statuses[response.status_code] += 1


@atexit.register
def print_statuses() -> None:
    print("Responses by status:", dict(sorted(statuses.items())))


@schemathesis.check
def key_is_accepted(context: object, response: Any, case: object) -> None:
    is_own = response.request.headers.get("Authorization") == AUTHORIZATION
    if is_own and response.status_code == 401:
        raise AssertionError(f"The key in $KEY was rejected: {response.text}")
