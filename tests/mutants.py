"""Ways to break the generated project that its tests have to notice: each is one replacement in one file.

`tests/test_mutation.py` checks that each text to replace is in its file exactly once.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    what: str  # it does: "a project that …"
    old: str
    new: str
    file: str
    tests: str  # the file in tests/ that has to notice
    on_postgresql: bool = False  # SQLite has one writer at a time, and ignores FOR UPDATE


def mutants(file: str, tests: str, *replacements: tuple[str, str, str], on_postgresql: bool = False) -> list[Mutant]:
    return [Mutant(*replacement, file, tests, on_postgresql) for replacement in replacements]


VERIFIER = "app/auth/verifier.py"
CACHE = "app/auth/cache.py"
DEPENDENCIES = "app/auth/dependencies.py"
KEYS_SERVICE = "app/api_keys/service.py"
USERS_SERVICE = "app/users/service.py"
DATABASE = "app/core/database.py"
POSTGRESQL = "app/core/postgresql.py"
MIDDLEWARE = "app/core/middleware.py"
RETENTION = "app/core/retention.py"

COMPARISON = "not hmac.compare_digest(digest, stored_digest)"
CONFIRM_ADMIN = "    await confirm_caller(session, actor, Scope.ADMIN, user_ids=[user_id], lock_admins=True)\n"
CONFIRM_UPDATE = """    await confirm_caller(
        session, actor, Scope.ADMIN, user_ids=[user_id], lock_admins=may_remove_admin
    )
"""
SESSION = "            yield session\n            await session.commit()\n"
PROXIES = "app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies"
NETWORKS = "        proxies = [one for network in settings.trusted_proxies for one in spellings(network)]\n"
CREDENTIALS = "    app.add_middleware(CredentialsMiddleware, locations=settings.api_key_locations)\n"
CORS = """    if settings.cors_origins:
        app.add_middleware(CorsMiddleware, allow_origins=settings.cors_origins)
"""
REQUEST = """    only_once = {b"host", b"x-forwarded-for"} if settings.trusted_proxies else {b"host"}
    app.add_middleware(middleware.RequestMiddleware, only_once=only_once)
"""
ERRORS = "    app.add_middleware(middleware.ErrorMiddleware)\n"
TYPE_CHECKING = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    "

AUTHENTICATION = [
    *mutants(
        VERIFIER,
        "auth/test_verifier.py",
        ("accepts any secret of a known id", f"{COMPARISON} or row is None", "row is None"),
        ("compares digests with ==, which is no constant time", COMPARISON, "digest != stored_digest"),
        (
            "rejects an unknown id sooner than a wrong secret",
            f"{COMPARISON} or row is None",
            f"row is None or {COMPARISON}",
        ),
        ("accepts revoked keys", "    Status.REVOKED: errors.ApiKeyRevoked,\n", ""),
        ("accepts disabled keys", "    Status.DISABLED: errors.ApiKeyDisabled,\n", ""),
        ("accepts expired keys", "    Status.EXPIRED: errors.ApiKeyExpired,\n", ""),
        ("accepts the keys of inactive users", "if rejection is None and not row.is_active:", "if False:"),
        ("never signs a key with the newest pepper", "await self._sign_again(key_id, key, digest)", "pass"),
        (
            "signs a key before it compares the secret",
            f"        if {COMPARISON}",
            "        if row and pepper_id != self._newest_pepper:\n"
            "            await self._sign_again(key_id, key, row.digest)\n"
            f"        if {COMPARISON}",
        ),
        (
            "changes updated_at of a key that it signs again",
            "                updated_at=col(UserApiKey.updated_at),\n",
            "",
        ),
        (
            "looks up malformed keys",
            "        if key_id is None:\n            raise errors.ApiKeyInvalid\n",
            '        key_id = key_id or "malformed"\n',
        ),
    ),
    *mutants(
        "app/api_keys/models.py",
        "auth/test_verifier.py",
        (
            "accepts a key at the moment of its expiry",
            "expires_at <= datetime.now(UTC)",
            "expires_at < datetime.now(UTC)",
        ),
    ),
    *mutants(
        "app/auth/scopes.py",
        "auth/test_verifier.py",
        (
            "leaves a key admin when its owner no longer is",
            "return scopes if owner_is_admin else scopes - {Scope.ADMIN}",
            "return scopes",
        ),
    ),
    *mutants(
        DEPENDENCIES,
        "auth/test_verifier.py",
        ("ignores the networks of a key", "if caller.networks is not None:", "if False:"),
        ("uses keys that cannot be used", "        if caller.rejection:\n", "        if False:\n"),
    ),
    *mutants(
        DEPENDENCIES,
        "auth/test_dependencies.py",
        (
            "authenticates again for each dependency of a request",
            'state.get("caller")',
            "None",
        ),
        ("accepts unknown query parameters", 'if connection.scope["query_string"]:', "if False:"),
        (
            "overlooks the query parameters of dependencies",
            "return own.union(*map(_query_names, dependant.dependencies))",
            "return own",
        ),
        (
            "accepts api_key in the query where it is off",
            'if "query" in app.state.settings.api_key_locations else set()',
            "if True else set()",
        ),
    ),
    *mutants(
        DEPENDENCIES,
        "users/test_router.py",
        ("ignores the scopes of a route", "    if scopes.scopes:\n", "    if False:\n"),
    ),
    *mutants(
        "app/auth/caller.py",
        "api_keys/test_router.py",
        (
            "accepts a key with one of several scopes",
            "if missing := set(scopes) - self.scopes:",
            "if (missing := set(scopes) - self.scopes) and self.scopes.isdisjoint(scopes):",
        ),
    ),
    *mutants(
        DEPENDENCIES,
        "test_functions_per_request.py",
        (
            "calls more functions for each request",
            "    key = find_key(connection.scope)\n",
            "    key = find_key(connection.scope)\n"
            "    from app.auth import key_format\n\n"
            "    for _ in range(3):\n"
            "        key_format.parse(key.get_secret_value(), verifier._prefix, verifier._environment)\n"
            "        key_format.digest(key.get_secret_value(), key.get_secret_value())\n"
            "        key_format.hint(key.get_secret_value())\n",
        ),
    ),
    *mutants(
        "app/auth/credentials.py",
        "auth/test_credentials.py",
        ("accepts two Authorization headers", "if authorization_headers > 1:\n", "if False:\n"),
        ("accepts two keys", "if len(keys) > 1:", "if False:"),
        ("reads X-API-Key where it is off", 'if "header" in locations:', "if True:"),
        ("includes whitespace in the key", 'text.strip(" \\t")', "text"),
        ("counts an empty key", 'if (key := text.strip(" \\t"))', 'if [key := text.strip(" \\t")]'),
    ),
    *mutants(
        "app/auth/key_format.py",
        "auth/test_key_format.py",
        (
            "generates the same secret every time",
            'secret = "".join(map(secrets.choice, [BASE62] * SECRET_LENGTH))',
            'secret = "7" * SECRET_LENGTH',
        ),
        (
            "drops the checksum",
            "if match is None or checksum(text[:-CHECKSUM_LENGTH]) !=",
            "if match is None or text ==",
        ),
        ("accepts text after a key", ".fullmatch(text)", ".match(text)"),
        ("accepts keys of another environment", 'rf"{prefix}_{environment}_(', 'rf"{prefix}_[a-z]+_('),
        ("accepts keys of another project", 'rf"{prefix}_{environment}_(', 'rf"[a-z0-9]+_{environment}_('),
    ),
    *mutants(
        DEPENDENCIES,
        "auth/test_rate_limit.py",
        (
            "lets everybody guess keys",
            "await rate_limiter.count_failure(client_address(connection.scope))",
            "pass",
        ),
        (
            "does not limit keys that cannot be used",
            "except errors.Unauthorized:",
            "except errors.ApiKeyInvalid:",
        ),
        (
            "rejects valid keys from an address that guessed",
            "    try:\n        caller = ",
            "    await rate_limiter.count_failure(client_address(connection.scope))\n    try:\n        caller = ",
        ),
        (
            "does not limit requests",
            "await rate_limiter.count_request(caller.original_id, caller.rate_limit)",
            "pass",
        ),
        ("resets a limit with each rotation", "count_request(caller.original_id,", "count_request(caller.key_id,"),
    ),
    *mutants(
        "app/auth/rate_limit.py",
        "auth/test_rate_limit.py",
        (
            "resets an exceeded limit when many clients come",
            "                running.sort(key=lambda one: one[1].hits)\n",
            "",
        ),
        ("keeps one window too many", "if len(windows) >= MAX_WINDOWS:", "if len(windows) > MAX_WINDOWS:"),
        (
            "asks clients to wait longer than the window",
            "return min(max(1, wait), seconds)",
            "return max(1, wait)",
        ),
        (
            "resets a limit with each change of it",
            "key = (limit.get_expiry(), name)",
            "key = (limit.amount, name)",
        ),
    ),
    *mutants(
        "app/auth/middleware.py",
        "auth/test_middleware.py",
        ("reads a body before it knows the key", "await authenticate(HTTPConnection(scope))", "pass"),
        (
            "needs a key for the body of public routes",
            'scope.get("endpoint") in app.state.protected_endpoints',
            'scope["path"] != "/other/echo"',
        ),
        (
            "needs a key for the body of mounted apps",
            'scope.get("endpoint") in app.state.protected_endpoints',
            'scope["endpoint"] in scope["app"].state.protected_endpoints',
        ),
    ),
    *mutants(
        "app/auth/middleware.py",
        "auth/test_dependencies.py",
        ("ignores a replaced caller if there is a body", " or get_caller in app.dependency_overrides", ""),
    ),
    *mutants(
        DEPENDENCIES,
        "auth/test_middleware.py",
        (
            "lets requests over the limit pass if they have a body",
            'if "authentication_error" in state:',
            "if False:",
        ),
        (
            "needs a key for a public route whose endpoint also has a protected one",
            "        protected.pop(endpoint, None)\n",
            "        pass\n",
        ),
    ),
]

CLOSED_BY_DEFAULT = [
    *mutants(
        DEPENDENCIES,
        "test_main.py",
        ("starts with routes that need no key", "elif path in public:", "elif dependant or path in public:"),
        (
            "starts with mounts that need no key",
            "elif path in public:",
            "elif dependant is None or path in public:",
        ),
        (
            "does not authenticate WebSockets",
            "async def get_caller(connection: HTTPConnection,",
            "from fastapi import Request\n\n\nasync def get_caller(connection: Request,",
        ),
    ),
    *mutants(
        "app/main.py",
        "test_main.py",
        (
            "does not check the routes of the app",
            "    check_routes(app, PUBLIC)\n    add_middleware",
            "    add_middleware",
        ),
        ("does not check routes that are added later", "    check_routes(app, PUBLIC)  # again", "    # again"),
        (
            "does not run the lifespan hooks",
            "            await stack.enter_async_context(hook())\n",
            "            hook()\n",
        ),
        (
            "has a public path without a route",
            "PUBLIC = {\n",
            'PUBLIC = {\n    "/v1/gone",\n',
        ),
    ),
    *mutants(
        "app/core/types.py",
        "test_layers.py",
        (
            "imports a higher layer",
            "from typing import Annotated, Any, Literal\n",
            f"{TYPE_CHECKING}from app.users.models import User  # noqa: F401\n\n"
            "from typing import Annotated, Any, Literal\n",
        ),
    ),
    *mutants(
        "app/auth/scopes.py",
        "test_layers.py",
        (
            "has modules that import each other",
            "from enum import StrEnum\n",
            f"from enum import StrEnum\n{TYPE_CHECKING}from app.auth.caller import Caller  # noqa: F401\n",
        ),
    ),
    *mutants(
        "app/users/service.py",
        "test_layers.py",
        (
            "imports the router of a sibling",
            "from app.users.models import User\n",
            f"from app.users.models import User\n{TYPE_CHECKING}from app.audit.router import router  # noqa: F401\n",
        ),
        (
            "imports a feature that may import it",
            "from app.users.models import User\n",
            f"from app.users.models import User\n{TYPE_CHECKING}from app.api_keys import schemas  # noqa: F401\n",
        ),
    ),
]

WRITES = [
    *mutants(
        KEYS_SERVICE,
        "auth/test_confirmation.py",
        (
            "creates keys for a caller that it does not confirm",
            "    actor = await confirm_caller(session, actor, *scopes, user_ids=[owner_id])\n",
            "",
        ),
        (
            "changes keys for a caller that it does not confirm",
            "    actor = await confirm_caller(session, actor, *scopes, user_ids=user_ids)\n",
            "",
        ),
        (
            "revokes all keys for a caller that it does not confirm",
            "    await confirm_caller(session, actor, Scope.ADMIN, user_ids=[user_id])\n",
            "",
        ),
    ),
    *mutants(
        USERS_SERVICE,
        "auth/test_confirmation.py",
        (
            "creates users for a caller that it does not confirm",
            "    actor = await confirm_caller(session, actor, Scope.ADMIN)\n",
            "",
        ),
        (
            "changes a caller's own name without confirming the caller",
            "    await confirm_caller(session, actor, Scope.USERS_WRITE)\n",
            "",
        ),
        (
            "changes users for a caller that it does not confirm",
            CONFIRM_UPDATE,
            "",
        ),
        (
            "deletes users for a caller that it does not confirm",
            f"{CONFIRM_ADMIN}    await _require",
            "    await _require",
        ),
    ),
    *mutants(
        "app/auth/confirmation.py",
        "auth/test_confirmation.py",
        ("confirms callers without a usable key", "confirmed = caller_of(row)", "confirmed = caller"),
        ("confirms callers that have lost a scope", "    confirmed.require(*scopes)\n", ""),
        ("trusts the scopes that a caller had before", "    return confirmed\n", "    return caller\n"),
    ),
    *mutants(
        "app/auth/confirmation.py",
        "test_concurrency.py",
        ("locks the owner only, and not the caller", "{*user_ids, caller.user_id}", "{*user_ids}"),
        (
            "locks the caller before the owner",
            "    ids = {",
            "    if caller:\n"
            "        own = select(User.id).where(User.id == caller.user_id)\n"
            "        await session.exec(own.with_for_update())\n"
            "    ids = {",
        ),
        (
            "lets two admins demote each other",
            "    if lock_admins:\n",
            "    if False:\n",
        ),
        on_postgresql=True,
    ),
    *mutants(
        KEYS_SERVICE,
        "test_concurrency.py",
        (
            "locks the key before its owner",
            "    owner_id = (await session.exec(owner)).first()\n",
            "    owner_id = (await session.exec(owner.with_for_update())).first()\n",
        ),
        on_postgresql=True,
    ),
    *mutants(
        KEYS_SERVICE,
        "api_keys/test_router.py",
        ("stores the key in the hint", "key_format.hint(text)", "text"),
        ("grants scopes that the caller lacks", "        actor.require(*scopes)\n", "        pass\n"),
        ("lets anybody create keys for others", "if actor and owner_id != actor.user_id:", "if False:"),
        ("allows one key more than the maximum", ".one() >= maximum:", ".one() > maximum:"),
        (
            "counts revoked keys",
            "        col(UserApiKey.revoked_at).is_(None),\n        expires_at",
            "        expires_at",
        ),
        ("counts expired keys", "        expires_at.is_(None) | (expires_at > now),\n", ""),
        (
            "creates keys that never expire by default",
            "        return now + lifetime, int(lifetime.total_seconds())\n",
            "        return None, None\n",
        ),
        ("shows keys to everybody", "    return [col(UserApiKey.user_id) == actor.user_id]\n", "    return []\n"),
        ("changes the time of a revocation", "if locked.key.revoked_at is None:", "if True:"),
        (
            "deletes keys that it revokes",
            "locked.key.revoked_at = utc_now()",
            "await session.delete(locked.key)",
        ),
    ),
    *mutants(
        KEYS_SERVICE,
        "auth/test_verifier.py",
        (
            "signs new keys with the oldest pepper",
            "= max(settings.api_key_peppers",
            "= min(settings.api_key_peppers",
        ),
    ),
    *mutants(
        KEYS_SERVICE,
        "api_keys/test_service.py",
        (
            "lets an update grant anything",
            'if added := {*wanted.get("scopes", [])} - {*key.scopes}:',
            "if added := set[str]():",
        ),
        (
            "rotates revoked keys",
            '    if key.revoked_at:\n        raise Conflict("A revoked key cannot be rotated.")\n',
            "",
        ),
        (
            "rotates a key twice",
            '    if key.replaced_by:\n        raise Conflict("This key has already been rotated.")\n',
            "",
        ),
        (
            "copies a list of columns to the new key",
            "key.model_dump(exclude=NOT_COPIED)",
            'key.model_dump(include={"user_id", "name", "scopes", "rate_limit", "enabled"})',
        ),
        (
            "rotates a key beyond the maximum number of keys",
            "    await _check_number_of_keys(session, settings, key.user_id, now)\n\n",
            "\n",
        ),
        (
            "renews expired keys beyond the maximum number of keys",
            "if key.expires_at and key.expires_at <= now:",
            "if False:",
        ),
    ),
    *mutants(
        KEYS_SERVICE,
        "api_keys/test_widening.py",
        ("gives out keys with more rights than the caller's", "if actor and actor.key_id != key.id:", "if False:"),
        (
            "lets everybody create keys with a limit above the default",
            "        _check_rate_limit(settings, actor, new.rate_limit)\n",
            "        pass\n",
        ),
        (
            "lets everybody raise a limit above the default",
            "        if changes.rate_limit:\n            _check_rate_limit",
            "        if False:\n            _check_rate_limit",
        ),
        (
            "lets a key with few scopes raise the limit of another key",
            "        if is_higher(changes.rate_limit or default, key.rate_limit or default):",
            "        if False:",
        ),
        (
            "lets a key with few scopes add networks to another key",
            "is_wider(changes.allowed_cidrs, key.allowed_cidrs)",
            "False",
        ),
        (
            "lets a key with few scopes enable another key",
            "if changes.enabled and not key.enabled:",
            "if False:",
        ),
        ("lets a key with few scopes prolong another key", "if is_later(expires_at, key.expires_at):", "if False:"),
        (
            "lets a key add its scopes to a key that has others",
            "        await _check_scopes(session, actor, key.user_id, added)\n        _require_scopes_of(key, actor)\n",
            "        await _check_scopes(session, actor, key.user_id, added)\n",
        ),
    ),
    *mutants(
        "app/api_keys/schemas.py",
        "api_keys/test_router.py",
        ("accepts networks that match no client", "without_mapping(ip_network(value))", "ip_network(value)"),
    ),
    *mutants(
        KEYS_SERVICE,
        "usage/test_last_used.py",
        (
            "copies last_used_at to the new key",
            '    "last_used_at",\n    "revoked_at",\n}',
            '    "revoked_at",\n}',
        ),
    ),
    *mutants(
        "app/api_keys/router.py",
        "api_keys/test_router.py",
        (
            "lets readers revoke",
            "WritableOrCurrent = Annotated[LockedKey, locked_key(Scope.API_KEYS_WRITE",
            "WritableOrCurrent = Annotated[LockedKey, locked_key(Scope.API_KEYS_READ",
        ),
    ),
    *mutants(
        MIDDLEWARE,
        "api_keys/test_router.py",
        (
            "lets caches keep a new key",
            '                headers.setdefault("cache-control", "no-store")\n',
            '                headers["cache-control"] = "public"\n',
        ),
    ),
    *mutants(
        "app/api_keys/schemas.py",
        "api_keys/test_router.py",
        (
            "shows the digest in every response",
            "class ApiKeyRead(FromRow):\n",
            'class ApiKeyRead(FromRow):\n    model_config = {"ser_json_bytes": "hex"}\n    digest: bytes\n',
        ),
    ),
    *mutants(
        "app/api_keys/models.py",
        "api_keys/test_router.py",
        ("shows the digest in the repr of a key", "digest: bytes = Field(repr=False)", "digest: bytes"),
    ),
    *mutants(
        "app/core/pagination.py",
        "core/test_pagination.py",
        (
            "repeats a page's last row on the next",
            "tuple_(created_at, row_id) < last",
            "tuple_(created_at, row_id) <= last",
        ),
        (
            "drops rows of the same moment between pages",
            "tuple_(created_at, row_id) < last",
            "created_at < literal(last_moment, created_at.type)",
        ),
    ),
    *mutants(
        USERS_SERVICE,
        "users/test_router.py",
        ("lets the last admin go", "if await _active_admins(session) == [user_id]:", "if False:"),
    ),
    *mutants(
        "app/users/router.py",
        "users/test_router.py",
        ("lets people make themselves admins", "changes: MeUpdate, caller", "changes: UserUpdate, caller"),
    ),
    *mutants(
        "app/metrics/router.py",
        "metrics/test_router.py",
        ("shows metrics to every key", "requires(Scope.METRICS_READ)", "requires()"),
    ),
    *mutants(
        KEYS_SERVICE,
        "api_keys/test_service.py",
        (
            "revokes the calling key before the other keys of its user",
            "others = unrevoked & (col(UserApiKey.id) != actor.key_id)",
            "others = unrevoked",
        ),
        (
            "revokes all keys of a user in one transaction",
            "await _revoke(step, user_id",
            "await _revoke(session, user_id",
        ),
    ),
    *mutants(
        "app/metrics/service.py",
        "metrics/test_workers.py",
        (
            "shows the metrics of one worker only",
            "registry = None if folder else self.registry",
            "registry = self.registry\n        folder = None",
        ),
    ),
    *mutants(
        "app/cli/__init__.py",
        "cli/test_cli.py",
        ("imports the app to print a help", "import typer\n", "import typer\nimport app.main\n"),
    ),
    *mutants(
        "app/cli/keys.py",
        "cli/test_cli.py",
        ("lists all keys for an empty email", "if email is not None", "if email"),
    ),
    *mutants(
        "scaffold/names.py",
        "scaffold/test_grammar.py",
        ("generates a function that exists", "if taken := functions & {", "if taken := set() & {"),
    ),
    *mutants(
        "app/metrics/workers.py",
        "metrics/test_workers.py",
        ("forgets the requests of a worker that died", "if is_first or file", "if True or file"),
        ("keeps the gauges of dead workers", 'is_first or file.name.startswith("gauge")', "is_first"),
        ("deletes the metrics of its own process", "@cache", "#"),
        ("cannot show metrics while a worker starts", " if _has_content(file)]", "]"),
    ),
]

KEY_CACHE = [
    *mutants(
        CACHE,
        "auth/test_cache.py",
        ("cannot turn the cache off", "self._seconds = seconds", "self._seconds = seconds or 10"),
        ("never uses its cache", "return caller if is_valid else None", "return None"),
        ("keeps an entry for ever", "            and now - asked_at < self._seconds\n", ""),
        ("uses entries from before a change", "asked_at > changed_at", "True"),
        (
            "overlooks changes of a key",
            "            self._changed_at.get(caller.key_id, 0.0),\n",
            "            0.0,\n",
        ),
        (
            "overlooks changes of an owner",
            "            self._changed_at.get(caller.user_id, 0.0),\n",
            "            0.0,\n",
        ),
        (
            "takes the time of a lookup when it is over",
            "        asked_at = time.monotonic()\n        caller = await query(key)\n",
            "        caller = await query(key)\n        asked_at = time.monotonic()\n",
        ),
        (
            "trusts an audit log that it has not read for a while",
            "            and now - max(asked_at, self._read_at) < TRUST_SECONDS\n",
            "",
        ),
        (
            "uses keys after their expiry",
            "            and (caller.expires_at > time.time() or caller.rejection is not None)\n",
            "",
        ),
        (
            "looks an expired key up for each request",
            "(caller.expires_at > time.time() or caller.rejection is not None)",
            "caller.expires_at > time.time()",
        ),
        (
            "overlooks changes when there are many",
            "if started_at < self._read_at or len(events) > MAX_EVENTS:",
            "if started_at < self._read_at:",
        ),
        ("applies a read that a later one has overtaken", "if started_at < self._read_at or ", "if "),
        ("counts a read from its end", "self._read_at = started_at", "self._read_at = time.monotonic()"),
        (
            "invalidates all keys of an owner when one is rotated",
            "(event.target_key_id or event.target_user_id for event in new)",
            "(\n            one for event in new for one in (event.target_key_id, event.target_user_id)\n        )",
        ),
        (
            "invalidates a key at each read after its change",
            "[event for event in events if event.id not in self._event_ids]",
            "events",
        ),
        (
            "overlooks transactions that commit late",
            "'now', '-30 seconds')",
            "'now', '-15 seconds')",
        ),
        (
            "trusts an audit log that it cannot read",
            "            return\n        if started_at",
            "            events = []\n        if started_at",
        ),
        (
            "measures time with the wall clock",
            "import time\nfrom collections.abc",
            "import time as clock\n"
            "from types import SimpleNamespace\n\n"
            "time = SimpleNamespace(monotonic=lambda: clock.time(), time=lambda: clock.time())\n"
            "from collections.abc",
        ),
        (
            "makes a lookup for each concurrent request",
            "if lookup := self._lookups.get(fingerprint):",
            'if lookup := self._lookups.get(b""):',
        ),
        (
            "joins a lookup from before a revocation",
            "return self.get(key) or await self._look_up(key, query)",
            "return lookup.result()",
        ),
        ("cancels the lookup of others with a request", "await asyncio.shield(lookup)", "await lookup"),
        ("has a cache without a bound", "if len(self._entries) > MAX_ENTRIES:", "if False:"),
        (
            "never drops the ids of changes",
            "        self._changed_at = {one: at for one, at in self._changed_at.items() if at > oldest}\n",
            "        del oldest\n",
        ),
        (
            "reads the audit log for each request",
            "now - self._read_started_at > READ_SECONDS and len",
            "len",
        ),
        (
            "does not wait for the audit log when it stops",
            "        if self._reads:\n",
            "        if False:\n",
        ),
        (
            "reads the audit log while it is idle",
            "        try:\n            yield\n",
            "        async def poll() -> None:\n"
            "            while True:\n"
            "                await self._read_changes(time.monotonic())\n"
            "                await asyncio.sleep(READ_SECONDS)\n\n"
            "        polling = asyncio.create_task(poll())\n"
            "        try:\n"
            "            yield\n"
            "            polling.cancel()\n",
        ),
    ),
    *mutants(
        DEPENDENCIES,
        "auth/test_cache.py",
        (
            "looks each key up although it is cached",
            "verifier.cache.get(key) or await verifier.verify(key)",
            "await verifier.verify(key)",
        ),
    ),
    *mutants(
        VERIFIER,
        "auth/test_cache.py",
        (
            "looks a key that cannot be used up for each request",
            "        caller = caller_of(row)\n",
            "        caller = caller_of(row)\n        if caller.rejection:\n            raise caller.rejection\n",
        ),
        (
            "remembers guesses",
            f"{COMPARISON} or row is None:\n            raise errors.ApiKeyInvalid\n",
            f"{COMPARISON} or row is None:\n"
            "            from uuid import uuid4\n\n"
            "            return Caller(key_id, uuid4(), frozenset(), rejection=errors.ApiKeyInvalid)\n",
        ),
    ),
    *mutants(
        "app/main.py",
        "auth/test_cache.py",
        (
            "learns of its own changes from the audit log only",
            "app.state.after_commit = [app.state.verifier.cache.mark_changed]",
            "app.state.after_commit = []",
        ),
    ),
    *mutants(
        "app/audit/service.py",
        "auth/test_cache.py",
        (
            "does not tell other processes about revocations",
            "REMOVALS = {Action.API_KEY_REVOKED, Action.USER_DELETED}",
            "REMOVALS = {Action.USER_DELETED}",
        ),
        (
            "does not tell other processes about deleted users",
            "REMOVALS = {Action.API_KEY_REVOKED, Action.USER_DELETED}",
            "REMOVALS = {Action.API_KEY_REVOKED}",
        ),
        *(
            (f"does not tell other processes about changes of {field}", f'"{field}"', '"x"')
            for field in ("is_active", "is_admin", "scopes", "enabled", "expires_at", "allowed_cidrs")
        ),
    ),
    *mutants(
        DATABASE,
        "core/test_middleware.py",
        (
            "calls the hooks before it commits",
            "        yield session\n"
            '    if changed_ids := session.info.get("changed_ids"):\n'
            "        for hook in state.after_commit:\n"
            "            hook(changed_ids)\n",
            "        yield session\n"
            '        if changed_ids := session.info.get("changed_ids"):\n'
            "            for hook in state.after_commit:\n"
            "                hook(changed_ids)\n",
        ),
    ),
]

AUDIT = [
    *mutants(
        KEYS_SERVICE,
        "audit/test_service.py",
        *(
            (f"writes no audit event for {action}", old, new)
            for action, old, new in (
                (
                    "a new key",
                    "    audit.record(session, Action.API_KEY_CREATED, actor, user_id=key.user_id, key_id=key.id)\n",
                    "",
                ),
                (
                    "an updated key",
                    "        _record(session, Action.API_KEY_UPDATED, locked, changed)\n",
                    "",
                ),
                (
                    "a renewed key",
                    "    _record(session, Action.API_KEY_RENEWED, locked, changed)\n",
                    "",
                ),
                (
                    "a rotated key",
                    "    _record(session, Action.API_KEY_ROTATED, locked, changed)\n",
                    "",
                ),
                (
                    "a revoked key",
                    "        _record(session, Action.API_KEY_REVOKED, locked)\n",
                    "",
                ),
            )
        ),
    ),
    *mutants(
        "app/audit/service.py",
        "auth/test_cache.py",
        (
            "does not tell other processes that all keys of a user are revoked",
            '        "changes_rights": True,\n',
            '        "changes_rights": False,\n',
        ),
        (
            "does not tell its own key cache that all keys of a user are revoked",
            '    session.info.setdefault("changed_ids", set()).add(user_id)\n',
            "",
        ),
    ),
    *mutants(
        USERS_SERVICE,
        "audit/test_service.py",
        (
            "writes no audit event for a new user",
            "    audit.record(session, Action.USER_CREATED, actor, user_id=user.id)\n",
            "",
        ),
        (
            "writes no audit event for an updated user",
            "        audit.record(session, Action.USER_UPDATED, actor, user_id=user_id, changes=changed)\n",
            "",
        ),
        (
            "writes no audit event for a deleted user",
            "    audit.record(session, Action.USER_DELETED, actor, user_id=user_id)\n",
            "",
        ),
        (
            "deletes the audit events of a user",
            "    await session.delete(user)\n",
            "    await session.delete(user)\n"
            "    from app.audit.models import AuditEvent\n\n"
            "    for event in await session.exec(select(AuditEvent).filter_by(target_user_id=user_id)):\n"
            "        await session.delete(event)\n",
        ),
    ),
    *mutants(
        "app/audit/service.py",
        "audit/test_service.py",
        ("records the values of names", " if field in RIGHTS else None", ""),
        ("records no values", "to_jsonable_python([old, new]) if field in RIGHTS else None", "None"),
        ("records changes that change nothing", "        if old != new:\n", "        if True:\n"),
        ("does not record the key of the actor", "actor.key_id if actor else None", "None"),
    ),
    *mutants(
        "app/audit/models.py",
        "audit/test_service.py",
        (
            "takes the time of an event from the app",
            'Field(default=None, sa_column_kwargs={"server_default": FetchedValue()})',
            'Field(\n        default_factory=lambda: __import__("app.core.database").core.database.utc_now()\n    )',
        ),
    ),
    *mutants(
        "app/audit/router.py",
        "audit/test_router.py",
        ("shows audit events to every key", "requires(Scope.ADMIN)", "requires()"),
    ),
    *mutants(
        "app/audit/service.py",
        "audit/test_router.py",
        ("ignores the filters of audit events", ".filter_by(**equal)", ""),
        (
            "includes the end of a period",
            "col(AuditEvent.created_at) < query.end",
            "col(AuditEvent.created_at) <= query.end",
        ),
    ),
]

DATA = [
    *mutants(
        DATABASE,
        "core/test_database.py",
        ("responds before it commits", ', scope="function")', ")"),
        ("fails with a dead connection", "if not error.connection_invalidated:", "if True:"),
        ("repeats a lookup that the database rejects", "if not error.connection_invalidated:", "if False:"),
        ("does not commit", SESSION, "            yield session\n"),
        (
            "commits what failed",
            SESSION,
            "            try:\n                yield session\n"
            "            finally:\n                await session.commit()\n",
        ),
        ("lets two writers begin as readers", '"BEGIN" if read_only else "BEGIN IMMEDIATE"', '"BEGIN"'),
        ("makes readers wait for writers", '"BEGIN" if read_only else "BEGIN IMMEDIATE"', '"BEGIN IMMEDIATE"'),
        ("lets readiness wait for key lookups", "self._checks if is_check else self._lookups", "self._lookups"),
        ("shows values in the database's errors", "        hide_parameters=True,\n", ""),
        ("creates a SQLite file that everybody can read", "file.touch(0o600, exist_ok=False)", "pass"),
        (
            "changes the mode of an existing SQLite file",
            "file.touch(0o600, exist_ok=False)",
            "file.touch()\n                file.chmod(0o600)",
        ),
    ),
    *mutants(
        DATABASE,
        "test_migrations.py",
        ("loses rows to foreign keys in a migration", "{not for_migrations:d}", "1"),
    ),
    *mutants(
        DATABASE,
        "core/test_database.py",
        ("lets work after the response write with the session of the request", ", close_resets_only=False", ""),
    ),
    *mutants(
        DATABASE,
        "test_autogenerate.py",
        ("leaves types of enums in PostgreSQL", "                column.type.native_enum = False\n", ""),
        on_postgresql=True,
    ),
    *mutants(
        "migrations/autogenerate.py",
        "test_migrations.py",
        ("writes empty migrations", "        scripts.clear()\n", ""),
    ),
    *mutants(
        "migrations/autogenerate.py",
        "test_autogenerate.py",
        ("writes types of SQLModel into migrations", 'return f"sa.{generic!r}"', "return False"),
        ("misses new members of an enum", "and name in old_checks:", "and False:"),
        ("misses a changed server default", "    return default != default_of(", "    return False and default_of("),
        (
            "migrates unchanged server defaults",
            "if not isinstance(column.server_default, DefaultClause) or",
            "if True or",
        ),
        (
            "adds a column that fails on existing rows",
            "                add_server_default(operation.table_name, operation.column)\n",
            "                pass\n",
        ),
    ),
    *mutants(
        "migrations/env.py",
        "test_migrations.py",
        ("needs a database to print SQL", "if context.is_offline_mode():", "if False:"),
        ("keeps half of a migration that failed", "        transactional_ddl=True,\n", ""),
        (
            "fails to open a new SQLite file that others open at the same time",
            """                with suppress(OperationalError):
                    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                    return
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                await connection.exec_driver_sql("ROLLBACK")
""",
            """                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
""",
        ),
    ),
    *mutants(
        "app/usage/recorder.py",
        "usage/test_recorder.py",
        ("counts twice what may be committed", "committing = True", "committing = False"),
        ("counts the use of rejected keys", "if not finished.is_authenticated or finished", "if finished"),
        ("loses the counts after those that were rejected", "self._keep(counters | chunk)", "self._keep(chunk)"),
        ("loses the counts that were rejected", "self._keep(counters | chunk)", "self._keep(counters)"),
        ("stops counting after an unexpected error", "except Exception as error:", "except OSError as error:"),
    ),
    *mutants(
        "app/usage/__init__.py",
        "usage/test_recorder.py",
        ("keeps old hours", '    app.state.retention.append(Retention("usage", ApiKeyUsage, "start", days))\n', ""),
        (
            "keeps old days",
            '    app.state.retention.append(Retention("usage_days", ApiKeyUsageDay, "start", days))\n',
            "",
        ),
    ),
    *mutants(
        "app/usage/service.py",
        "usage/test_router.py",
        ("shows everybody the usage of all keys", "if visible := api_keys.visible_to(caller):", "if visible := []:"),
        ("sums days in place of hours", 'ApiKeyUsage if query.granularity == "hour" else ', ""),
        (
            "reads any number of buckets of all keys",
            "_empty_buckets(query, MAX_TOTAL_BUCKETS)",
            "_empty_buckets(query, 9999)",
        ),
    ),
    *mutants(
        "app/usage/router.py",
        "usage/test_router.py",
        (
            "shows the usage of all keys without a scope",
            "    caller: Annotated[Caller, requires(Scope.API_KEYS_READ)],\n",
            "    caller: Annotated[Caller, requires()],\n",
        ),
    ),
    *mutants(
        "app/console/__init__.py",
        "console/test_console.py",
        ("shows the console in production", 'is_enabled = settings.environment != "production"', "is_enabled = True"),
        ("serves the console without a policy", "STATIC, pages.policy())", "STATIC, {})"),
        ("leaves the start page as it is", '        app.state.home = "/console/"\n', ""),
    ),
    *mutants(
        "app/core/pages.py",
        "core/test_pages.py",
        ("lets /docs run any script", "'sha256-{digest}'", "'unsafe-inline'"),
        ("loads /docs from a CDN", '        swagger_js_url="docs/swagger-ui-bundle.js",\n', ""),
        ("lets other sites embed its pages", "        \"frame-ancestors 'none'\",\n", ""),
    ),
    *mutants(
        RETENTION,
        "core/test_retention.py",
        ("deletes rows a moment too early", "moment < until)", "moment <= until)"),
        ("deletes all old rows in one transaction", ".limit(retention.chunk)", ""),
        ("deletes old rows at every start", "stopping.wait(), seconds_until_midnight()", "stopping.wait(), 0"),
        ("deletes no old rows after an error", "except Exception as error:", "except ValueError as error:"),
    ),
    *mutants(
        RETENTION,
        "core/test_retention.py",
        ("waits for locked rows to delete them", "skip_locked=True", ""),
        (
            "deletes old rows in two processes at a time",
            "SELECT pg_try_advisory_xact_lock(7266130458)",
            "SELECT true",
        ),
        on_postgresql=True,
    ),
    *mutants(
        KEYS_SERVICE,
        "core/test_retention.py",
        (
            "keeps expired keys",
            '        Retention("api_keys", UserApiKey, "expires_at", days, chunk=100),\n',
            "",
        ),
    ),
    *mutants(
        "app/audit/service.py",
        "core/test_retention.py",
        ("keeps old audit events", "    days = settings.audit_retention_days\n", "    days = None\n"),
    ),
    *mutants(
        "app/core/search.py",
        "core/test_search.py",
        ("finds no É on PostgreSQL", ' COLLATE "und-x-icu"', ""),
        on_postgresql=True,
    ),
    *mutants(
        DATABASE,
        "core/test_search.py",
        ("finds no É on SQLite", 'connection.create_function("lower", 1, _lower, deterministic=True)', "pass"),
    ),
    *mutants(
        "migrations/versions/2026-11-26_initial.py",
        "test_plans.py",
        (
            "reads all users to find the admins",
            '        sqlite_where=sa.text("is_admin = 1 AND is_active = 1"),\n',
            '        sqlite_where=sa.text("is_admin = 0"),\n',
        ),
        ("sorts the keys of an owner for each page", '["user_id", "created_at", "id"]', '["user_id"]'),
    ),
    *mutants(
        "app/cli/run.py",
        "cli/test_cli.py",
        ("makes commands that only read wait for writers", "read_only=read_only", "read_only=False"),
    ),
]

SECRETS = [
    *mutants(
        "app/auth/credentials.py",
        "auth/test_credentials.py",
        (
            "leaves the key in the Authorization header",
            "            headers[index] = (name, redact_bytes(value))\n            authorization_headers += 1\n",
            "            authorization_headers += 1\n",
        ),
        (
            "leaves the key in X-API-Key",
            '        elif name == b"x-api-key":\n            headers[index] = (name, redact_bytes(value))\n',
            '        elif name == b"x-api-key":\n',
        ),
        ("leaves the key in the query", 'scope["query_string"] = urlencode(redacted, safe="*").encode()', "pass"),
    ),
    *mutants(
        VERIFIER,
        "test_secrets_in_reports.py",
        (
            "has the text of the key in a local variable",
            "        rows = await self._database.fetch_all(FIND_KEY",
            "        text = key.get_secret_value()\n        rows = await self._database.fetch_all(FIND_KEY",
        ),
    ),
    *mutants(
        "app/main.py",
        "test_secrets_in_reports.py",
        (
            "redacts the request after other middleware has copied its headers",
            f"{CORS}{REQUEST}{CREDENTIALS}",
            f"{CREDENTIALS}{CORS}{REQUEST}",
        ),
    ),
    *mutants(
        "app/core/logging.py",
        "core/test_logging.py",
        ("logs keys in messages", "redacted = self._redact(message)", "redacted = message"),
        ("logs keys in tracebacks", "redacted = self._redact(text)", "redacted = text"),
        (
            "logs keys in extra fields",
            "return self._redact(text)\n\n\ndef",
            "return text\n\n\ndef",
        ),
        ("lets an extra field replace the level", 'f"extra_{name}" if name in line else name', "name"),
        ("logs NaN, which is not JSON", "allow_nan=False", "allow_nan=True"),
        ("omits trace ids from JSON", '            line["trace_id"] =', '            line["other"] ='),
        (
            "omits trace ids from the console",
            '            line += f" trace_id=',
            '            line = line or f" trace_id=',
        ),
        ("exports each line twice to OpenTelemetry", "if other.name != handler.name", "if True"),
        ("exports nothing to OpenTelemetry", "    if logger.enabled():", "    if not logger.enabled():"),
        (
            "logs keys in the lines of uvicorn, or breaks them",
            "self._redact(one) if isinstance(one, str) else one",
            "one",
        ),
        ("fails a request because of a wrong log call", "except Exception:  # wrong", "except ImportError:  # wrong"),
        ("lets a value forge a line on the console", "if not line.isprintable():", "if False:"),
    ),
    *mutants(
        DEPENDENCIES,
        "core/test_logging.py",
        (
            "does not log the id of a revoked key",
            '        state["key_id"], state["user_id"] = caller.key_id, caller.user_id\n',
            "",
        ),
    ),
    *mutants(
        "app/core/errors.py",
        "core/test_errors.py",
        (
            "echoes rejected input",
            're.sub("^Value error, |(?<=UUID), .*", "", one["msg"])',
            'one["msg"] + repr(one["input"])',
        ),
        ("fails if the database rejects a value", "    app.exception_handler(DataError)(_handle_data_error)\n", ""),
        ("reports text that is not UTF-8 as a malformed request", "if error.detail == NOT_PARSED:", "if False:"),
    ),
    *mutants(
        DATABASE,
        "core/test_errors.py",
        ("fails if the driver rejects a value", "isinstance(error, OverflowError | UnicodeEncodeError)", "False"),
    ),
    *mutants(
        "app/users/dependencies.py",
        "core/test_errors.py",
        ("takes me for the id of a user", "(?!me(?:/|$))", ""),
    ),
    *mutants(
        "app/users/router.py",
        "core/test_errors.py",
        (
            "omits the sub-path from Location",
            'request.url_for("read_user", user_id=user.id).path',
            'f"/v1/users/{user.id}"',
        ),
    ),
    *mutants(
        "app/main.py",
        "test_instances.py",
        (
            "cannot trust a Unix socket",
            "        app.add_middleware(middleware.UnixSocketMiddleware)\n",
            "",
        ),
    ),
    *mutants(
        "app/auth/rate_limit.py",
        "test_instances.py",
        (
            "lets clients without an address share one limit",
            "if address is None or limit is None:",
            "if limit is None:",
        ),
    ),
    *mutants(
        "app/core/types.py",
        "core/test_types.py",
        (
            "ignores the maximum length of a field",
            'schema.setdefault("max_length", self.default)',
            'schema["max_length"] = self.default',
        ),
        ("accepts longer email addresses than SMTP", "max_length=254", "max_length=255"),
    ),
    *mutants(
        "app/check.py",
        "test_check.py",
        ("does not check Redis", "    if settings.redis_url:\n", "    if False:\n"),
        ("does not check the replica", "if replica_url := settings.database_replica_url:", "if replica_url := None:"),
        (
            "does not check the database",
            '[await _check_database("DATABASE_URL", settings.database_url, settings)]',
            "[]",
        ),
        ("does not check the routes", 'partial(import_module, "app.main")', "lambda: None"),
    ),
    *mutants(
        DATABASE,
        "test_check.py",
        ("accepts a database that cannot hold every character", 'if encoding == "UTF8" else', "if True else"),
        on_postgresql=True,
    ),
    *mutants(
        "app/cli/run.py",
        "cli/test_cli.py",
        (
            "takes a wrong URL for a missing migration",
            "if error.statement and is_missing:",
            "if is_missing or not error.statement:",
        ),
    ),
    *mutants(
        MIDDLEWARE,
        "core/test_errors.py",
        ("parses compressed bodies", 'received and encoding not in {"", "identity"}', "False"),
        (
            "reveals what went wrong inside",
            "        except Exception:\n",
            "        except Exception as error:\n            InternalError.title = repr(error)\n",
        ),
    ),
    *mutants(
        MIDDLEWARE,
        "core/test_logging.py",
        ("logs the Authorization header", '"method": scope["method"],', '"method": str(scope["headers"]),'),
        ("logs the query", "route.path_format if route else None", 'str(scope["query_string"])'),
        ("logs the zone of an address, which can be any text", 'host.partition("%")[0]', "host"),
        ("logs any text as an address", "address and str(address)", 'scope["client"] and scope["client"][0]'),
        ("logs lines without a request id", "        request_id_variable.set(request_id)\n", ""),
        (
            "counts background tasks as a part of the response",
            'state.get("seconds", time.perf_counter() - started_at)',
            "time.perf_counter() - started_at",
        ),
    ),
    *mutants(
        "app/main.py",
        "core/test_logging.py",
        (
            "trusts X-Forwarded-For from everybody",
            PROXIES,
            'app.add_middleware(ProxyHeadersMiddleware, trusted_hosts="*"',
        ),
        (
            "trusts X-Forwarded-For by default",
            f"if settings.trusted_proxies:\n{NETWORKS}        {PROXIES}",
            'if True:\n        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts="*"',
        ),
        (
            "does not recognize its proxy on a socket for IPv4 and IPv6",
            "for one in spellings(network)]",
            "for one in [str(network)]]",
        ),
    ),
]

PROCESS = [
    *mutants(
        MIDDLEWARE,
        "core/test_middleware.py",
        ("accepts a body of any size", "if received > self.max_bytes:", "if False:"),
        ("rejects a body at the limit", "if received > self.max_bytes:", "if received >= self.max_bytes:"),
        (
            "cannot time out while a driver cannot be cancelled",
            "        timer = loop.call_later(self.seconds, time_out)\n"
            "        try:\n"
            "            await self.app(scope, receive_body, send_unless_timed_out)\n",
            "        timer = loop.call_later(3600, time_out)\n"
            "        try:\n"
            "            try:\n"
            "                async with asyncio.timeout(self.seconds):\n"
            "                    await self.app(scope, receive_body, send_unless_timed_out)\n"
            "            except TimeoutError:\n"
            "                time_out()\n"
            "                request.uncancel()\n",
        ),
        ("cuts off a response that has started", "            if not started:\n", "            if True:\n"),
        (
            "swallows a cancellation by the server",
            "            if timeout_response is None:\n                raise\n",
            "",
        ),
        ("lets caches store errors", 'headers.setdefault("cache-control", "no-store")', "pass"),
        ("lets a protected route allow caches", 'if "is_protected" in state:', "if False:"),
        ("forbids caches what a public route allows", 'if "is_protected" in state:', "if True:"),
        ("calls no hooks after a request", "                    hook(finished)\n", "                    pass\n"),
        (
            "logs request ids that it did not check",
            'if name == b"x-request-id" and VALID_REQUEST_ID.fullmatch(value):',
            'if name == b"x-request-id":',
        ),
    ),
    *mutants(
        "app/core/server.py",
        "core/test_server.py",
        ("treats trailer fields as headers", "self.headers = _CompleteHeaders(self.headers)", "pass"),
    ),
    *mutants(
        "app/main.py",
        "test_server.py",
        ("starts with trailer fields as headers", "    configure_uvicorn()\n", ""),
    ),
    *mutants(
        "app/core/server.py",
        "test_server.py",
        (
            "lets every process on its machine forge its address",
            "    uvicorn.config.ProxyHeadersMiddleware = _no_proxy_headers",
            "    _ = _no_proxy_headers",
        ),
    ),
    *mutants(
        KEYS_SERVICE,
        "test_secrets_in_reports.py",
        (
            "has new keys in variables that an error tracker reports",
            "    text = _generate(settings, key)\n",
            "    text = _generate(settings, key)\n    plain = text.get_secret_value()  # noqa: F841\n",
        ),
    ),
    *mutants(
        "app/auth/credentials.py",
        "auth/test_credentials.py",
        ("traces a key in a path", 'texts = [scope["path"], *(', "texts = [*("),
    ),
    *mutants(
        "app/metrics/workers.py",
        "metrics/test_workers.py",
        ("deletes the files of another user's worker", "except PermissionError:", "except InterruptedError:"),
    ),
    *mutants(
        "app/core/pages.py",
        "core/test_pages.py",
        ("responds to ranges in plain text", 'if one[0] != b"range"]', "if True]"),
    ),
    *mutants(
        "app/core/pages.py",
        "console/test_console.py",
        ("redirects paths with dots to another host", 'if {".", ".."} & {*path.split("/")}:', "if False:"),
    ),
    *mutants(
        "app/auth/credentials.py",
        "core/test_errors.py",
        ("repeats a key in a path", 'if (path := redact(scope["path"])) != scope["path"]:', "if False:"),
    ),
    *mutants(
        POSTGRESQL,
        "core/test_postgresql.py",
        ("lets statements take longer", '"statement_timeout": "10s"', '"statement_timeout": "20s"'),
        ("limits the statements of migrations", "{} if for_migrations else TIMEOUTS", "TIMEOUTS"),
    ),
    *mutants(
        DATABASE,
        "test_concurrency.py",
        ("makes GET requests wait for writers", "session(read_only=read_only) as session", "session() as session"),
    ),
    *mutants(
        KEYS_SERVICE,
        "api_keys/test_service.py",
        (
            "revokes the keys of all users with those of one",
            "update_rows(UserApiKey).where(chosen).values",
            "update_rows(UserApiKey).values",
        ),
    ),
    *mutants(
        USERS_SERVICE,
        "auth/test_confirmation.py",
        ("overlooks what changed before it locked a user", "user_id, populate_existing=True", "user_id"),
    ),
    *mutants(
        KEYS_SERVICE,
        "auth/test_confirmation.py",
        ("overlooks what changed before it locked a key", ".execution_options(populate_existing=True)", ""),
        ("overlooks that an owner became admin", "owner_id, populate_existing=True", "owner_id"),
    ),
    *mutants(
        POSTGRESQL,
        "core/test_postgresql.py",
        ("drops the options of the URL", "true {theirs}", "true"),
        on_postgresql=True,
    ),
    *mutants(
        DATABASE,
        "core/test_postgresql.py",
        ("writes to the replica", ".execution_options(postgresql_readonly=True)", ""),
        on_postgresql=True,
    ),
    *mutants(
        "app/auth/cache.py",
        "test_saturation.py",
        ("lets the key cache wait for key lookups", "                is_check=True,\n", ""),
    ),
    *mutants(
        "app/core/health.py",
        "test_saturation.py",
        (
            "lets readiness wait for connections of key lookups",
            "fetch_all(revisions, is_check=True)",
            "fetch_all(revisions)",
        ),
    ),
    *mutants(
        POSTGRESQL,
        "core/test_postgresql.py",
        ("prepares statements behind a pooler", ", prepare_threshold=None)", ")"),
        ("has no timeouts behind a pooler", "    if pooler and not for_lookups:", "    if False:"),
        ("sets a time zone that outlives its transaction", "is_local = True", "is_local = False"),
        ("does not notice a pooler that drops its options", "    if not marker:", "    if False:"),
        ("does not notice a pooler that rejects its options", "if REJECTED_OPTIONS.search(str(error)):", "if False:"),
    ),
    *mutants(
        "app/settings.py",
        "test_settings.py",
        ("loses the options of the URL in a pooler", "if self.database_pooler and any(", "if False and any("),
    ),
    *mutants(
        MIDDLEWARE,
        "core/test_middleware.py",
        ("accepts requests without a Host", 'if b"host" not in names and', "if False and"),
        ("accepts two Hosts", "if len(names) > len(set(names)):", "if False:"),
        (
            "lets browsers guess types",
            'headers["x-content-type-options"] = "nosniff"',
            "pass",
        ),
    ),
    *mutants(
        "app/main.py",
        "core/test_middleware.py",
        (
            "accepts two forwarded addresses",
            '{b"host", b"x-forwarded-for"} if settings.trusted_proxies else {b"host"}',
            '{b"host"}',
        ),
        (
            "has no body limit",
            "    app.add_middleware(middleware.BodyLimitMiddleware, max_bytes=settings.request_body_limit)\n",
            "",
        ),
    ),
    *mutants(
        "app/settings.py",
        "test_settings.py",
        ("shows the docs in production", 'return self.environment != "production"', "return True"),
        ("accepts a short pepper", "if len(secret.encode()) < MIN_PEPPER_BYTES:", "if False:"),
        ("shows an invalid pepper in the error about it", "        hide_input_in_errors=True,", "       "),
        (
            "shows the peppers in its repr",
            "    @property\n    def key_environment",
            "    def __repr__(self) -> str:\n"
            "        return str([pepper.get_secret_value() for pepper in self.api_key_peppers.values()])\n\n"
            "    @property\n    def key_environment",
        ),
        (
            "shows the password of Redis in its repr",
            "redis_url: Annotated[RedisUrl | None, Field(repr=False)]",
            "redis_url: RedisUrl | None",
        ),
    ),
    *mutants(
        "app/main.py",
        "core/test_cors.py",
        ("hides unhandled errors from pages of other origins", f"{ERRORS}{CORS}", f"{CORS}{ERRORS}"),
    ),
    *mutants(
        "app/core/cors.py",
        "core/test_cors.py",
        (
            "rejects preflights with plain text",
            "response if is_allowed else RejectedPreflight(headers=dict(response.headers))",
            "response",
        ),
        ("hides its headers from pages of other origins", "            expose_headers=EXPOSED_HEADERS,\n", ""),
    ),
    *mutants(
        "app/core/urls.py",
        "test_settings.py",
        ("takes a part of a password for the host", 'value.count("@") > (url.username is not None) or ', ""),
        ("accepts a database in memory", 'path.startswith((":memory:", "file:"))', "False"),
        ("opens another SQLite file in another folder", "str(folder / path)", "path"),
        ("accepts origins that match nothing", "if not ORIGIN.fullmatch(origin):", "if False:"),
    ),
    *mutants(
        MIDDLEWARE,
        "core/test_middleware.py",
        (
            "responds 503 if the client is slow",
            "RequestTimeout() if is_receiving else Unavailable()",
            "Unavailable()",
        ),
        (
            "responds 408 if it is slow itself",
            "                is_receiving = False\n",
            "                pass\n",
        ),
        (
            "logs an error if the client is slow",
            "logging.INFO if is_receiving else logging.ERROR",
            "logging.ERROR",
        ),
    ),
    *mutants(
        "app/core/types.py",
        "core/test_types.py",
        (
            "builds an error for each of thousands of unknown fields",
            "return dict(islice(data.items(), len(cls.model_fields) + MAX_ERRORS))",
            "return data",
        ),
    ),
    *mutants(
        "app/api_keys/schemas.py",
        "core/test_openapi.py",
        ("accepts lists of any length", "Field(min_length=1, max_length=100)", "Field(min_length=1)"),
    ),
    *mutants(
        "app/core/openapi.py",
        "core/test_openapi.py",
        ("hides the name of a route", 'summary or operation["summary"]', "summary"),
    ),
    *mutants(
        "app/core/types.py",
        "core/test_openapi.py",
        ("makes optional fields required in TypeScript", '        field.pop("default", None)\n', "        pass\n"),
    ),
    *mutants(
        DEPENDENCIES,
        "core/test_openapi.py",
        ("does not describe a route as public", " if scopes is not None\n", " if scopes or True\n"),
    ),
    *mutants(
        "app/auth/scopes.py",
        "core/test_openapi.py",
        ("publishes a docstring for developers", "New scopes can be added.", "Require them with `requires(Scope.…)`."),
    ),
    *mutants(
        "app/api_keys/dependencies.py",
        "core/test_openapi.py",
        ("lets importers choose the calling key", '"^[0-9a-z]{7,16}$"', '"^([0-9a-z]{16}|current)$"'),
    ),
    *mutants(
        "app/cli/run.py",
        "cli/test_cli.py",
        ("expands markup and emoji in tables", "Console(markup=False, emoji=False)", "Console()"),
        ("prints characters that reverse text", 'unsafe = ("C", "Zl", "Zp")', 'unsafe = ("Cc", "Zl", "Zp")'),
        ("prints characters that reverse text in JSON", ", ensure_ascii=True", ""),
    ),
    *mutants(
        "app/core/health.py",
        "core/test_health.py",
        (
            "does not say that it needs DATABASE_POOLER",
            "if str(error.orig) == NEEDS_POOLER:",
            "if False:",
        ),
        (
            "queries the database for each readiness probe",
            "if self._check is None or now - self._started_at > REUSE_SECONDS:",
            "if True:",
        ),
        (
            "checks its readiness only once",
            "if self._check is None or now - self._started_at > REUSE_SECONDS:",
            "if self._check is None:",
        ),
        (
            "is restarted while its database is down",
            "async def live() -> Health:\n",
            "async def live(request: Request) -> Health:\n    return await ready(request)\n",
        ),
        (
            "is ready before it is migrated",
            "    return NOT_MIGRATED if is_outdated else None\n",
            "    return NOT_MIGRATED if not rows else None\n",
        ),
    ),
]

MUTANTS = [
    *AUTHENTICATION,
    *CLOSED_BY_DEFAULT,
    *WRITES,
    *KEY_CACHE,
    *AUDIT,
    *DATA,
    *SECRETS,
    *PROCESS,
]
