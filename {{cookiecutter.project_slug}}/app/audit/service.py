from collections.abc import Mapping
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import ColumnElement, insert, literal, literal_column
from sqlalchemy.orm import class_mapper
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.audit.models import Action, AuditEvent
from app.audit.schemas import AuditEventQuery
from app.auth.caller import Caller
from app.core.pagination import PageQuery, Rows, paginate
from app.core.retention import Retention
from app.settings import Settings

Changes = dict[str, list[object] | None]

# Events record the values of these fields, and only the names of others. A change changes rights.
RIGHTS = {"is_active", "is_admin", "scopes", "enabled", "expires_at", "rate_limit", "allowed_cidrs"}
NEW_ID = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}
REMOVALS = {Action.API_KEY_REVOKED, Action.USER_DELETED}


def apply(row: SQLModel, values: Mapping[str, object]) -> Changes:
    """Update the row, and return what has changed, for `record`."""
    changes: Changes = {}
    for field, new in values.items():
        old = getattr(row, field)
        if old != new:
            setattr(row, field, new)
            changes[field] = to_jsonable_python([old, new]) if field in RIGHTS else None
    return changes


def record(
    session: AsyncSession,
    action: Action,
    actor: Caller | None,
    *,
    user_id: UUID,
    key_id: str | None = None,
    changes: Changes | None = None,
) -> None:
    """Add an audit event to the transaction of the change. `user_id` owns `key_id`."""
    changes = changes or {}
    changes_rights = action in REMOVALS or not RIGHTS.isdisjoint(changes)
    session.add(
        AuditEvent(
            action=action,
            actor_user_id=actor.user_id if actor else None,
            actor_key_id=actor.key_id if actor else None,
            target_user_id=user_id,
            target_key_id=key_id,
            changes=changes,
            changes_rights=changes_rights,
        )
    )
    if changes_rights:
        session.info.setdefault("changed_ids", set()).add(key_id or user_id)


async def record_keys(
    session: AsyncSession,
    action: Action,
    actor: Caller,
    user_id: UUID,
    key_ids: SelectOfScalar[str],
) -> int:
    """Add an event for each key of a user that a query selects, and return their number.

    No key is loaded, so their number does not matter.
    """
    connection = await session.connection()
    values: dict[str, object] = {
        "action": action,
        "actor_user_id": actor.user_id,
        "actor_key_id": actor.key_id,
        "target_user_id": user_id,
        "changes": {},
        "changes_rights": True,
    }
    columns = class_mapper(AuditEvent).columns
    constants = [literal(value, columns[name].type) for name, value in values.items()]
    new_id: ColumnElement[UUID] = literal_column(NEW_ID[connection.dialect.name])
    events = key_ids.add_columns(new_id, *constants)
    names = ["target_key_id", "id", *values]
    statement = insert(AuditEvent).from_select(names, events)
    inserted = await connection.execute(statement, execution_options={"preserve_rowcount": True})
    session.info.setdefault("changed_ids", set()).add(user_id)
    return inserted.rowcount


def retention(settings: Settings) -> list[Retention]:
    days = settings.audit_retention_days
    return [Retention("audit_events", AuditEvent, "created_at", days)]


async def list_events(session: AsyncSession, query: AuditEventQuery) -> Rows[AuditEvent]:
    fields = ("actor_user_id", "actor_key_id", "target_user_id", "target_key_id", "action")
    equal = query.model_dump(include={*fields}, exclude_none=True)
    statement = select(AuditEvent).filter_by(**equal)
    if query.start:
        statement = statement.where(col(AuditEvent.created_at) >= query.start)
    if query.end:
        statement = statement.where(col(AuditEvent.created_at) < query.end)
    return await paginate(session, statement, AuditEvent, query)


async def list_key_events(session: AsyncSession, key_id: str, page: PageQuery) -> Rows[AuditEvent]:
    statement = select(AuditEvent).where(AuditEvent.target_key_id == key_id)
    return await paginate(session, statement, AuditEvent, page)
