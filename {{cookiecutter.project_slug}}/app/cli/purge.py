import sys
from collections import Counter

from pydantic import BaseModel

from app.cli.run import print_rows, run_in_sessions
from app.core import retention
from app.core.database import Database
from app.main import create_app


class DeletedRead(BaseModel):
    name: str
    deleted: int


def purge(as_json: bool) -> None:
    retentions = create_app().state.retention
    deleted = Counter({one.name: 0 for one in retentions})

    async def work(database: Database) -> None:
        async for name, number in retention.purge(database, retentions):
            deleted[name] += number
            if sys.stderr.isatty():
                print(f"\r{name}: {deleted[name]:,} ", end="", file=sys.stderr)

    run_in_sessions(work)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rows = [DeletedRead(name=name, deleted=number) for name, number in deleted.items()]
    print_rows(rows, ("name", "deleted"), as_json)
