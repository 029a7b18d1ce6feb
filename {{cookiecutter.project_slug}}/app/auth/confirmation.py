from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import union
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.auth.caller import Caller
from app.auth.scopes import Scope
from app.auth.verifier import FIND_KEY, caller_of
from app.core.errors import ApiKeyInvalid
from app.users.models import User


async def confirm_caller(
    session: AsyncSession,
    caller: Caller | None,
    *scopes: Scope,
    user_ids: Iterable[UUID] = (),
    lock_admins: bool = False,
) -> Caller | None:
    """Lock users, then check inside the transaction that the caller may still do this.

    Everything that changes users, keys or rights calls this first, because the caller was verified
    before the transaction, possibly from a cache. It locks `user_ids` and the caller's own user in
    order of id; lock keys after it, in order of id. So changes of the same user happen one after
    the other, and without deadlocks.

    Returns the caller with its present scopes. None stands for the command line, which may do
    everything. Raises Unauthorized and InsufficientScope.
    """
    ids = {*user_ids} if caller is None else {*user_ids, caller.user_id}
    chosen = select(User.id).where(col(User.id).in_(ids))
    if lock_admins:
        # Not OR, for which SQLite reads all users.
        admins = select(User.id).where(col(User.is_admin), col(User.is_active))
        chosen = select(User.id).where(col(User.id).in_(union(chosen, admins)))
    await session.exec(chosen.order_by(col(User.id)).with_for_update())
    if caller is None:
        return None
    row = (await (await session.connection()).execute(FIND_KEY, {"id": caller.key_id})).first()
    if row is None:
        raise ApiKeyInvalid
    confirmed = caller_of(row)
    confirmed.require(*scopes)
    return confirmed
