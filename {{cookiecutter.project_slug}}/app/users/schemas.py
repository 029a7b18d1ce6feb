from datetime import datetime
from uuid import UUID

from pydantic import Field, StrictBool

from app.pagination import PageQuery
from app.schemas import Body, Email, FromRow, Line


class UserCreate(Body):
    email: Email
    first_name: Line = ""
    last_name: Line = ""
    is_admin: StrictBool = False


class MeUpdate(Body):
    """What is absent stays as it is."""

    first_name: Line = ""
    last_name: Line = ""


class UserUpdate(MeUpdate):
    is_active: StrictBool = True
    is_admin: StrictBool = False


class UserQuery(PageQuery):
    q: Line | None = Field(None, description="Part of the email or of a name, in any case.")
    is_active: bool | None = None


class UserRead(FromRow):
    id: UUID
    email: str
    first_name: str
    last_name: str
    is_active: bool
    is_admin: bool
    created_at: datetime
    updated_at: datetime


class RevokedKeys(FromRow):
    revoked: int
