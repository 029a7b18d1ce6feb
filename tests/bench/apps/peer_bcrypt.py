"""What tutorials do: the key's bcrypt hash in SQLite, checked at each request. `python peer_bcrypt.py` prints a key."""

import secrets
import sqlite3

import bcrypt
from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader

from bench_item import ITEM, Item

app = FastAPI()


async def check_key(key: str = Security(APIKeyHeader(name="X-API-Key"))) -> None:
    with sqlite3.connect("keys.db") as connection:
        row = connection.execute("SELECT hash FROM api_keys WHERE id = ?", [key[:8]]).fetchone()
    if row is None or not bcrypt.checkpw(key.encode(), row[0]):
        raise HTTPException(401)


@app.get("/open")
async def read_open() -> Item:
    return ITEM


@app.get("/guarded", dependencies=[Depends(check_key)])
async def read_guarded() -> Item:
    return ITEM


if __name__ == "__main__":
    key = secrets.token_urlsafe(32)
    with sqlite3.connect("keys.db") as connection:
        connection.execute("CREATE TABLE api_keys (id TEXT PRIMARY KEY, hash BLOB)")
        connection.execute(
            "INSERT INTO api_keys VALUES (?, ?)", [key[:8], bcrypt.hashpw(key.encode(), bcrypt.gensalt())]
        )
    print(key)
