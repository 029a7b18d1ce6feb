"""Ways to break the generated project that its tests have to notice: each is one replacement in one file.

The list can't rot: `tests/bite.py` stops where the old text isn't found exactly once.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    what: str  # it does: "a project that …"
    old: str
    new: str
    file: str
    tests: str  # the file in tests/ that has to notice


def mutants(file: str, tests: str, *replacements: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(*replacement, file, tests) for replacement in replacements]


COMPARISON = "not hmac.compare_digest(presented, row.digest if row is not None else self._nobody)"
SESSION = "            yield session\n            await session.commit()\n"
PROXIES = "app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies"

MUTANTS = [
    # Who is let in
    *mutants(
        "app/api_keys/verifier.py",
        "api_keys/test_verifier.py",
        ("accepts any secret of a known id", f"{COMPARISON} or row is None", "row is None"),
        (
            "compares with ==, which is slower the more is right",
            COMPARISON,
            "presented != (row.digest if row is not None else self._nobody)",
        ),
        (
            "refuses an unknown id sooner than a wrong secret",
            f"{COMPARISON} or row is None",
            "row is None or not hmac.compare_digest(presented, row.digest)",
        ),
        ("accepts revoked keys", "    Status.REVOKED: errors.ApiKeyRevoked,\n", ""),
        ("accepts disabled keys", "    Status.DISABLED: errors.ApiKeyDisabled,\n", ""),
        ("accepts expired keys", "    Status.EXPIRED: errors.ApiKeyExpired,\n", ""),
        ("accepts the keys of inactive users", "if not row.is_active:", "if False:"),
        ("signs no key again", "await self._sign_again(key_id, text, presented)", "pass"),
        (
            "signs again before it compares",
            f"        if {COMPARISON}",
            "        if row is not None and pepper_id != self._newest:\n"
            "            await self._sign_again(key_id, text, row.digest)\n"
            f"        if {COMPARISON}",
        ),
        (
            "calls a key updated when it is only signed again",
            ", updated_at=col(UserApiKey.updated_at)\n",
            "\n",
        ),
    ),
    *mutants(
        "app/api_keys/verifier.py",
        "api_keys/test_cache.py",
        ("lets a remembered key live on", "known.expires_at > time.time()", "True"),
    ),
    *mutants(
        "app/api_keys/dependencies.py",
        "api_keys/test_verifier.py",
        ("ignores the networks of a key", "if verified.networks is not None:", "if False:"),
    ),
    *mutants(
        "app/api_keys/cache.py",
        "api_keys/test_cache.py",
        ("believes what it knows for ever", "min(until, self._believed_until)", "until"),
        ("keeps each key for ever", "min(until, self._believed_until)", "self._believed_until"),
        ("remembers what was asked before a deed", "generation == self.generation and", "True and"),
        ("grows without bound", "if len(self._keys) > MOST_KEYS:", "if False:"),
        ("sees no deed of another process", "if stamp != self._stamp:", "if self._stamp is None:"),
        ("sees its own deeds only at the next poll", "            cache.forget()\n", "            pass\n"),
        ("advances no stamp for an object", "isinstance(one, User | UserApiKey)", "False"),
        ("advances no stamp for a deletion", "(*session.dirty, *session.deleted)", "(*session.dirty,)"),
        ("advances no stamp for a statement", "if (state.is_update or state.is_delete)", "if False"),
        ("believes a stamp that it read long ago", "began + BELIEVED_SECONDS", "began + 3600"),
    ),
    *mutants(
        "app/api_keys/models.py",
        "api_keys/test_verifier.py",
        (
            "accepts a key at the moment of its end",
            "expires_at is not None and expires_at <= now",
            "expires_at is not None and expires_at < now",
        ),
    ),
    *mutants(
        "app/scopes.py",
        "api_keys/test_verifier.py",
        (
            "leaves a key admin when its owner no longer is",
            "return known if owner_is_admin else known - {Scope.ADMIN}",
            "return known",
        ),
    ),
    *mutants(
        "app/api_keys/request.py",
        "api_keys/test_request.py",
        ("routes what cannot be a key", " and self._has_malformed_key(scope):", " and False:"),
        ("accepts two Authorization headers", "if len(authorizations) > 1:", "if False:"),
        ("accepts two keys", "if len(found) > 1:", "if False:"),
        ("reads X-API-Key where that is off", 'if "header" in locations:', "if True:"),
    ),
    # How many may try
    *mutants(
        "app/api_keys/dependencies.py",
        "test_rate_limit.py",
        ("lets everybody guess on", "await limiter.refuse_guesser(address)", "pass"),
        ("lets a guesser lock out the owner of a key", "if not verifier.was_here(key.fingerprint):", "if True:"),
    ),
    *mutants(
        "app/api_keys/verifier.py",
        "test_rate_limit.py",
        (
            "takes a guess for a key that was here",
            f"        if {COMPARISON}",
            f"        self._remember(key_format.fingerprint(text))\n        if {COMPARISON}",
        ),
    ),
    # What a key is
    *mutants(
        "app/api_keys/format.py",
        "api_keys/test_format.py",
        ("makes the same secret every time", 'secret = "".join(secrets.choice(BASE62) for', 'secret = "".join("7" for'),
        (
            "drops the checksum",
            "if match is None or checksum(text[:-CHECKSUM_LENGTH]) !=",
            "if match is None or text ==",
        ),
        ("reads on after the end of a key", ".fullmatch(text)", ".match(text)"),
        ("accepts keys of another environment", 'rf"{prefix}_{environment}_(', 'rf"{prefix}_[a-z]+_('),
        ("accepts keys of another project", 'rf"{prefix}_{environment}_(', 'rf"[a-z0-9]+_{environment}_('),
    ),
    *mutants(
        "app/api_keys/service.py",
        "api_keys/test_verifier.py",
        ("signs new keys with the oldest pepper", "= max(settings.api_key_peppers", "= min(settings.api_key_peppers"),
    ),
    # What a caller may do
    *mutants(
        "app/api_keys/verifier.py",
        "api_keys/test_router.py",
        (
            "is content with one of several scopes",
            "if not self.scopes.issuperset(needed):",
            "if needed and self.scopes.isdisjoint(needed):",
        ),
    ),
    *mutants(
        "app/api_keys/service.py",
        "api_keys/test_router.py",
        ("stores the key in the hint", "key_format.hint(text)", "text"),
        ("grants scopes that the caller lacks", "        actor.require(*sorted(scopes))\n", "        pass\n"),
        ("lets anybody make keys for others", "if actor and new.user_id not in {None, actor.user_id}:", "if False:"),
        (
            "allows more keys than the maximum",
            ".one() >= settings.api_key_max_per_user",
            ".one() > settings.api_key_max_per_user",
        ),
        (
            "counts keys that were replaced",
            "col(UserApiKey.revoked_at).is_(None), col(UserApiKey.replaced_by).is_(None)",
            "col(UserApiKey.revoked_at).is_(None)",
        ),
        (
            "lets keys live for ever by default",
            "key.expires_at = now + timedelta(days=settings.api_key_expire_days)",
            "key.expires_at = None",
        ),
        ("shows keys to everybody", "else [col(UserApiKey.user_id) == actor.user_id]", "else []"),
        ("moves the moment of a revocation", "if key.revoked_at is None:", "if True:"),
        ("deletes what it revokes", "key.revoked_at = utc_now()", "await session.delete(key)"),
    ),
    *mutants(
        "app/api_keys/router.py",
        "api_keys/test_router.py",
        ("creates keys without a scope", "requires(Scope.API_KEYS_WRITE)", "requires()"),
        (
            "lets readers revoke",
            "WritableOrCurrent = Annotated[UserApiKey, owned_key(Scope.API_KEYS_WRITE",
            "WritableOrCurrent = Annotated[UserApiKey, owned_key(Scope.API_KEYS_READ",
        ),
        ("lets caches keep a new key", '    response.headers["Cache-Control"] = "no-store"\n', ""),
    ),
    *mutants(
        "app/api_keys/schemas.py",
        "api_keys/test_router.py",
        (
            "shows the digest in every answer",
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
        "app/pagination.py",
        "api_keys/test_router.py",
        (
            "repeats a page's last row on the next",
            "tuple_(created_at, row_id) < last",
            "tuple_(created_at, row_id) <= last",
        ),
        (
            "drops rows of the same moment between pages",
            "tuple_(created_at, row_id) < last",
            "created_at < literal(last_created_at, created_at.type)",
        ),
    ),
    *mutants(
        "app/api_keys/service.py",
        "api_keys/test_lifecycle.py",
        ("lets a change grant anything", "    if added:\n", "    if False:\n"),
        ("rotates revoked keys", '    _refuse_if(key.revoked_at, "A revoked key cannot be rotated.")\n', ""),
        ("rotates a key twice", '    _refuse_if(key.replaced_by, "This key has been rotated already.")\n', ""),
        ("hands out keys that may do more than the caller's", "if actor and actor.key_id != key.id:", "if False:"),
    ),
    *mutants(
        "app/users/service.py",
        "users/test_router.py",
        ("lets the last admin go", "if await _lock_admins(session) == [user_id]:", "if False:"),
    ),
    *mutants(
        "app/users/router.py",
        "users/test_router.py",
        ("lets people make themselves admins", "changes: MeUpdate, caller", "changes: UserUpdate, caller"),
    ),
    *mutants(
        "app/metrics.py",
        "test_metrics.py",
        ("shows metrics to everybody", ", _: Annotated[Caller, requires(Scope.METRICS_READ)]", ""),
    ),
    # What is kept
    *mutants(
        "app/database.py",
        "test_database.py",
        ("answers before it commits", ', scope="function")', ")"),
        ("gives up with a dead connection", "if not error.connection_invalidated:", "if True:"),
        ("asks twice what cannot be answered", "if not error.connection_invalidated:", "if False:"),
        (
            "fails to open a new SQLite file that others open at once",
            """        with suppress(OperationalError):
            cursor.execute(WRITE_AHEAD)
            return
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
""",
            "        break\n",
        ),
        ("doesn't commit", SESSION, "            yield session\n"),
        (
            "commits what failed",
            SESSION,
            "            try:\n                yield session\n"
            "            finally:\n                await session.commit()\n",
        ),
        ("lets two writers begin as readers", '"sqlite_begin", "BEGIN IMMEDIATE"', '"sqlite_begin", "BEGIN"'),
        ("shows values in the database's errors", "        hide_parameters=True,\n", ""),
    ),
    *mutants(
        "app/database.py",
        "test_migrations.py",
        ("loses rows to foreign keys in a migration", "{not for_migrations:d}", "1"),
    ),
    *mutants(
        "migrations/env.py",
        "test_migrations.py",
        ("keeps half of a migration that failed", "        transactional_ddl=True,\n", ""),
    ),
    *mutants(
        "app/usage/recorder.py",
        "usage/test_recorder.py",
        ("counts twice what may be committed", "committing = True", "committing = False"),
    ),
    # What is said
    *mutants(
        "app/api_keys/verifier.py",
        "test_secrets.py",
        (
            "logs keys that are mistyped",
            "        if key_id is None:\n",
            '        if key_id is None:\n            logger.info("refused %s", text)\n',
        ),
        (
            "logs keys whose secret is wrong",
            "or row is None:\n",
            'or row is None:\n            logger.info("refused %s", text)\n',
        ),
    ),
    *mutants(
        "app/errors.py",
        "test_errors.py",
        ("echoes rejected input", 'one["msg"].removeprefix("Value error, ")', 'one["msg"] + repr(one["input"])'),
    ),
    *mutants(
        "app/logging.py",
        "test_errors.py",
        (
            "says what went wrong inside",
            "        except Exception:\n",
            "        except Exception as error:\n            InternalError.detail = repr(error)\n",
        ),
    ),
    *mutants(
        "app/logging.py",
        "test_logging.py",
        ("logs the Authorization header", '"method": scope["method"],', '"method": str(scope["headers"]),'),
        ("logs the query", 'route.path if (route := scope.get("route")) else None', 'str(scope["query_string"])'),
    ),
    *mutants(
        "app/main.py",
        "test_logging.py",
        (
            "believes X-Forwarded-For from everybody",
            PROXIES,
            'app.add_middleware(ProxyHeadersMiddleware, trusted_hosts="*"',
        ),
        (
            "believes X-Forwarded-For unless told otherwise",
            f"if settings.trusted_proxies:\n        {PROXIES}",
            f'{PROXIES} or "*"',
        ),
    ),
    # What it is made of
    *mutants(
        "app/main.py",
        "test_main.py",
        ("overlooks routes that ask for no key", "for route in iter_route_contexts(app.routes):", "for route in ():"),
        ("never looks for routes that ask for no key", "    refuse_unguarded_routes(app)\n\n", ""),
    ),
    *mutants(
        "app/settings.py",
        "test_settings.py",
        ("shows the docs in production", 'return self.environment != "production" if', "return True if"),
        ("accepts a short pepper", "if len(secret.encode()) < SHORTEST_PEPPER:", "if False:"),
        ("shows a wrong pepper in the error about it", ", hide_input_in_errors=True", ""),
        (
            "shows the peppers in its repr",
            "    @property\n    def key_environment",
            "    def __repr__(self) -> str:\n"
            "        return str([pepper.get_secret_value() for pepper in self.api_key_peppers.values()])\n\n"
            "    @property\n    def key_environment",
        ),
        (
            "shows the password of Redis in its repr",
            "redis_url: Annotated[str | None, Field(repr=False)]",
            "redis_url: str | None",
        ),
    ),
    *mutants(
        "app/health.py",
        "test_health.py",
        (
            "is restarted when its database is down",
            "async def live() -> Health:\n",
            "async def live(request: Request) -> Health:\n    return await ready(request)\n",
        ),
        (
            "is ready before it is migrated",
            "if revision in older_revisions() else None",
            "if revision is None else None",
        ),
    ),
]
