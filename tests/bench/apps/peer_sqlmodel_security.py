"""fastapi-sqlmodel-security, as its README shows it. `python peer_sqlmodel_security.py` prints a key."""

from fastapi import Depends, FastAPI
from fastapi_sqlmodel_security import ApiKeySecurity, SqlModelDataStore

from bench_item import ITEM, Item

store = SqlModelDataStore(conn_url="sqlite:///keys.db")
app = FastAPI()


@app.get("/open")
async def read_open() -> Item:
    return ITEM


@app.get("/guarded", dependencies=[Depends(ApiKeySecurity(store))])
async def read_guarded() -> Item:
    return ITEM


if __name__ == "__main__":
    print(store.create_key("bench", never_expire=True))
