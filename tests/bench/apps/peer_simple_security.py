"""fastapi-simple-security, as its README shows it. `python peer_simple_security.py` prints a key."""

from fastapi import Depends, FastAPI
from fastapi_simple_security import api_key_security
from fastapi_simple_security._sqlite_access import sqlite_access

from bench_item import ITEM, Item

app = FastAPI()


@app.get("/open")
async def read_open() -> Item:
    return ITEM


@app.get("/guarded", dependencies=[Depends(api_key_security)])
async def read_guarded() -> Item:
    return ITEM


if __name__ == "__main__":
    print(sqlite_access.create_key("bench", never_expire=True))
