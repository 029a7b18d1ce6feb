from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from app.api_keys import service
from app.api_keys.models import UserApiKey
from app.api_keys.schemas import MAX_OVERLAP_SECONDS, ApiKeyCreate, ApiKeyRead
from app.auth.scopes import Scope
from app.cli.arguments import AsJson, Email
from app.cli.run import print_key, print_query, print_rows, run, say
from app.cli.service import count_by_pepper, get_user, keys_of
from app.core.database import utc_now
from app.settings import get_settings
from app.usage import service as usage
from app.usage.schemas import UsageQuery

cli = typer.Typer()

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]

COLUMNS = ("id", "name", "scopes", "status", "expires_at", "last_used_at")


class PepperRead(BaseModel):
    pepper: int
    keys: int
    known: bool


@cli.command("create")
def create(
    email: Email,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="Can be repeated.")] = None,
    all_scopes: Annotated[bool, typer.Option("--all-scopes", help="Grant all scopes.")] = False,
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Default: API_KEY_EXPIRE_DAYS.")
    ] = None,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help="The key works until it is revoked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create an API key"""
    if expires_in_days and never_expires:
        raise typer.BadParameter("--expires-in-days and --never-expires exclude each other")
    if all_scopes and scope:
        raise typer.BadParameter("--scope and --all-scopes exclude each other")
    expiry: dict[str, datetime | None] = {"expires_at": None} if never_expires else {}
    if expires_in_days:
        expiry["expires_at"] = utc_now() + timedelta(days=expires_in_days)

    async def work(session: AsyncSession) -> service.NewKey:
        owner = await get_user(session, email)
        scopes = scope or []
        if all_scopes:
            scopes = [one for one in Scope if owner.is_admin or one is not Scope.ADMIN]
        new = ApiKeyCreate(name=name, scopes=scopes, user_id=owner.id).model_copy(update=expiry)
        return await service.create(session, get_settings(), new, None)

    new_key = run(work)
    if not (scope or all_scopes):
        say("Without --scope or --all-scopes, the key can only access its owner and itself.")
    print_key(new_key, as_json)


@cli.command("list")
def list_all(
    email: Annotated[str | None, typer.Argument(help="Only the keys of this user.")] = None,
    as_json: AsJson = False,
) -> None:
    """List API keys"""

    async def work(session: AsyncSession) -> None:
        owner_id = (await get_user(session, email)).id if email is not None else None
        await print_query(session, keys_of(owner_id), ApiKeyRead, COLUMNS, as_json)

    run(work, read_only=True)


@cli.command("revoke")
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke an API key"""

    async def work(session: AsyncSession) -> UserApiKey:
        locked = await service.lock(session, key_id, None)
        await service.revoke(session, locked)
        return locked.key

    print_rows([ApiKeyRead.model_validate(run(work))], COLUMNS, as_json)


@cli.command("rotate")
def rotate(
    key_id: KeyId,
    overlap_seconds: Annotated[
        int,
        typer.Option(min=0, max=MAX_OVERLAP_SECONDS, help="How long the old key stays valid."),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Rotate an API key"""

    async def work(session: AsyncSession) -> service.NewKey:
        locked = await service.lock(session, key_id, None)
        return await service.rotate(session, get_settings(), locked, overlap_seconds)

    print_key(run(work), as_json)


@cli.command("usage")
def show_usage(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show the usage of an API key"""

    async def work(session: AsyncSession) -> Sequence[BaseModel]:
        key = await service.get(session, key_id, None)
        return (await usage.read(session, key.id, UsageQuery())).buckets

    print_rows(run(work, read_only=True), ("start", "requests", "errors"), as_json)


@cli.command("peppers")
def show_peppers(as_json: AsJson = False) -> None:
    """Count keys per pepper"""
    counts = run(count_by_pepper, read_only=True)
    known = get_settings().api_key_peppers
    rows = [
        PepperRead(pepper=one, keys=counts.get(one, 0), known=one in known)
        for one in sorted(counts | known)
    ]
    print_rows(rows, ("pepper", "keys", "known"), as_json)
