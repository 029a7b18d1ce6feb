"""Random mutants that change nothing that a test could notice, and why. They are not drawn.

Each is a file and the lines of a diff. `test_mutation.py` fails if one is not among the mutants.
"""

CACHE = "app/auth/cache.py"
LIMITS = "app/auth/rate_limit.py"
KEY_CHANGED = "            self._changed_at.get(caller.key_id, {}),"
OWNER_CHANGED = "            self._changed_at.get(caller.user_id, {}),"
STARTED = "        self._read_started_at = {}  # the newest read"

EARLY = "The monotonic clock is never so early."
ABOUT = "The bound protects memory, and one more or less makes no difference."

DROPPED = "                windows = self._windows[kind] = dict(running[-MAX_WINDOWS // {} :])"

INPUT = "Without a dictionary, the error is the same. Only its `input` differs, which is never shown."

FEED = "                .where(col(AuditEvent.changes_rights), col(AuditEvent.created_at) {} since)"
BORDER = "An entry lives for 10 s, so an event that is exactly 30 s old makes no difference."

POOLS = "        engine = self.{} if is_check else self.{}"
START = "    except ({}, {}) as error:  # for example, an older version was deployed"

CURSOR = "    return base64.urlsafe_b64encode({}.encode()){}"
POSITION = "{row.created_at.isoformat()} {row.id}"

JSON = "        print(json.dumps(dumped, indent={}))"
SPACES = "Only spaces differ."

LEFT = "        {}  # skips revoked keys, without reading them"

LOGGERS = "    for name in ({}):  # they have handlers with another format"

UNIX = '            scope["client"] = ("unix", {})'

NETWORK = "Network = Annotated[str, Field(max_length={}), AfterValidator(_network)]"

HEALTH = "    except ({}, {}):"
LOWER = "        connection.create_function({})"

EQUIVALENTS: dict[tuple[str, str, str], str] = {
    (
        "app/settings.py",
        'SettingsT = TypeVar("SettingsT", bound=EnvSettings)',
        "SettingsT = TypeVar('SettingsT')",
    ): "Only mypy reads it.",
    ("app/core/errors.py", "    title: str", "    pass"): "Only mypy reads it.",
    ("app/core/health.py", HEALTH.format("SQLAlchemyError", "OSError"), HEALTH.format("OSError", "SQLAlchemyError")): (
        "Both are caught."
    ),
    (
        "app/core/database.py",
        LOWER.format('"lower", 1, _lower, deterministic=True'),
        LOWER.format("'lower', 1, _lower"),
    ): "Only indexes of expressions need it, and SQLite can then optimize.",
    ("app/main.py", "    gc.set_threshold(50_000)", "    pass"): "The app only gets slower.",
    ("app/core/database.py", "        cursor.close()", "        cursor"): "It is closed when it is collected.",
    (
        "app/api_keys/service.py",
        LEFT.format("left = others & (position > end)"),
        LEFT.format("pass"),
    ): "Only the queries take longer.",
    ("app/api_keys/schemas.py", NETWORK.format(50), NETWORK.format(49)): "No network has more than 49 characters.",
    (
        "app/core/database.py",
        POOLS.format("_checks", "_lookups"),
        POOLS.format("_lookups", "_checks"),
    ): "They are equal.",
    (
        "app/cli/start.py",
        START.format("CommandError", "DBAPIError"),
        START.format("DBAPIError", "CommandError"),
    ): "Both are caught.",
    (
        "app/core/logging.py",
        LOGGERS.format('"uvicorn", "uvicorn.error"'),
        LOGGERS.format("'uvicorn.error', 'uvicorn'"),
    ): "The order does not matter.",
    (
        "app/core/pagination.py",
        CURSOR.format(f'f"{POSITION}"', ".decode()"),
        CURSOR.format(f"f'{POSITION}'", ""),
    ): "Pydantic decodes it.",
    ("app/core/middleware.py", UNIX.format(0), UNIX.format(1)): "The port of a client is not used.",
    ("app/core/types.py", "        return data", "        return None"): INPUT,
    ("app/cli/run.py", JSON.format(2), JSON.format(1)): SPACES,
    ("app/cli/run.py", JSON.format(2), JSON.format(3)): SPACES,
    (CACHE, FEED.format(">"), FEED.format(">=")): BORDER,
    (CACHE, STARTED.format("0.0"), STARTED.format("1.0")): EARLY,
    (CACHE, KEY_CHANGED.format("0.0"), KEY_CHANGED.format("-1.0")): EARLY,
    (CACHE, OWNER_CHANGED.format("0.0"), OWNER_CHANGED.format("-1.0")): EARLY,
    (LIMITS, DROPPED.format(2), DROPPED.format(3)): ABOUT,
    (LIMITS, "@lru_cache(1024)", "@lru_cache(1025)"): ABOUT,
    (LIMITS, "@lru_cache(1024)", "@lru_cache(1023)"): ABOUT,
}
