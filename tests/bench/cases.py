"""What is measured, and against what."""

from collections.abc import Iterator, Sequence
from functools import partial

from tests.bench.databases import Database
from tests.bench.load import Request
from tests.bench.measure import Contestant, Row
from tests.bench.servers import Server

ITEM = '{"id":1,"name":"a teapot","price":12.5,"tags":["kitchen","china"]}'
FOUND = ITEM.replace("a teapot", "0@example.com")
NO_AUTHENTICATION = "no authentication"
OPEN, GUARDED, QUERY, GUARDED_QUERY = "/bench/open", "/v1/bench/guarded", "/bench/query", "/v1/bench/guarded-query"
USUAL = ("open", "nothing", "dict", "hot", "even", "wrong", "malformed", "revoked", "usage", "limit", "query")
ALL = (*USUAL, "asked", "changes", "workers", "keys", "peers", "scale")


def serve(database: Database, *, workers: int = 1, cache: bool = True) -> Server:
    app = "bench_app:app --no-proxy-headers"
    environment = database.environment(API_KEY_CACHE_SECONDS="10" if cache else "0")
    name = database.name if database.title == "PostgreSQL" else ""
    return Server(database.project, app, environment, workers=workers, database=name)


def usual(database: Database) -> Iterator[Row]:
    """All in one process."""
    server, keys = serve(database), database.keys
    hot = [keys["hot"]]

    def ask(name: str, path: str, keys: Sequence[str], text: str = ITEM, *, status: int = 200) -> Contestant:
        return Contestant(name, server, Request(path, keys, status, text))

    bare = ask(NO_AUTHENTICATION, OPEN, hot)
    nothing = ask("a dependency that does nothing", "/bench/nothing", hot)
    in_memory = ask("a dict behind HTTPBearer", "/bench/dict", hot)
    one = ask("hot key", GUARDED, hot)
    even = ask(f"{len(keys['even']):,} keys used evenly", GUARDED, keys["even"])
    even.warm_up = len(keys["even"])  # so that the cache is full
    wrong = ask("wrong secret", GUARDED, keys["wrong"], '"api_key_invalid"', status=401)
    malformed = ask("malformed key", GUARDED, [keys["malformed"]], '"api_key_invalid"', status=401)
    revoked = ask("revoked key", GUARDED, [keys["revoked"]], '"api_key_revoked"', status=401)
    uncounted = ask("hot key, usage not counted", GUARDED, [keys["uncounted"]])
    limited = ask("hot key, rate limit in memory", GUARDED, [keys["limited"]])
    query = ask("own query, no authentication", QUERY, hot, FOUND)
    guarded_query = ask("own query, hot key", GUARDED_QUERY, hot, FOUND)

    yield Row("open", bare, bare)
    yield Row("nothing", nothing, bare)
    yield Row("dict", in_memory, bare)
    yield Row("hot", one, bare)
    yield Row("nothing", one, nothing)
    yield Row("dict", one, in_memory)
    yield Row("even", even, bare)
    yield Row("wrong", wrong, bare)
    yield Row("malformed", malformed, bare)
    yield Row("malformed", malformed, one)
    yield Row("revoked", revoked, bare)
    yield Row("usage", one, uncounted)
    yield Row("limit", limited, one)
    yield Row("query", query, bare)
    yield Row("query", guarded_query, query)


def asked(database: Database) -> Iterator[Row]:
    """Where every request asks the database for its key."""
    ask = partial(Contestant, server=serve(database, cache=False))
    hot = [database.keys["hot"]]
    bare = ask(NO_AUTHENTICATION, request=Request(OPEN, hot, 200, ITEM))
    query = ask("own query, no authentication", request=Request(QUERY, hot, 200, FOUND))
    guarded = ask("hot key, no cache", request=Request(GUARDED, hot, 200, ITEM))
    both = ask("own query, hot key, no cache", request=Request(GUARDED_QUERY, hot, 200, FOUND))
    yield Row("asked", guarded, bare)
    yield Row("asked", both, query)


def workers(database: Database) -> Iterator[Row]:
    """Two workers have all cores, and share one of them with the load."""
    hot, one, two = [database.keys["hot"]], serve(database), serve(database, workers=2)
    for name, path in ((NO_AUTHENTICATION, OPEN), ("hot key", GUARDED)):
        request = Request(path, hot, 200, ITEM)
        both = Contestant(f"{name}, 2 workers", two, request)
        yield Row("workers", both, Contestant(f"{name}, 1 worker", one, request))


def sizes(databases: Sequence[Database]) -> Iterator[Row]:
    """Each request asks the database, for one key after the other."""
    first: Contestant | None = None
    for database in databases:
        server = serve(database, cache=False)
        bare = Contestant(NO_AUTHENTICATION, server, Request(OPEN, [database.keys["hot"]], 200, ITEM))
        request = Request(GUARDED, database.keys["even"], 200, ITEM)
        even = Contestant(f"{database.size:,} keys in the table, no cache", server, request)
        yield Row("keys", even, bare)
        if first:
            yield Row("keys", even, first)
        first = first or even
