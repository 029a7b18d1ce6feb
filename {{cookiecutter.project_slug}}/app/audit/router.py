from typing import Annotated

from fastapi import APIRouter, Query

from app.audit import service
from app.audit.models import AuditEvent
from app.audit.schemas import AuditEventQuery, AuditEventRead
from app.auth.caller import Caller
from app.auth.dependencies import requires
from app.auth.scopes import Scope
from app.core.database import SessionDep
from app.core.pagination import Page, Rows

router = APIRouter(prefix="/v1/audit-events", tags=["audit events"])


@router.get("", response_model=Page[AuditEventRead])
async def list_audit_events(
    _: Annotated[Caller, requires(Scope.ADMIN)],
    session: SessionDep,
    query: Annotated[AuditEventQuery, Query()],
) -> Rows[AuditEvent]:
    """List audit events

    Newest first.
    """
    return await service.list_events(session, query)
