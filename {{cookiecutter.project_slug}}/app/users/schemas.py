from datetime import datetime
from uuid import UUID

from pydantic import Field, StrictBool

from app.pagination import PageQuery
from app.schemas import Body, Email, FromRow, Line


class UserCreate(Body, json_schema_extra={"examples": [{"email": "ada@example.com", "first_name": "Ada"}]}):
    email: Email
    first_name: Line = ""
    last_name: Line = ""
    is_admin: StrictBool = False


class MeUpdate(Body, json_schema_extra={"examples": [{"first_name": "Ada", "last_name": "Lovelace"}]}):
    first_name: Line = Field(default_factory=str)
    last_name: Line = Field(default_factory=str)


class UserUpdate(MeUpdate, json_schema_extra={"examples": [{"is_active": False}]}):
    is_active: StrictBool = Field(default_factory=bool)
    is_admin: StrictBool = Field(default_factory=bool)


class UserQuery(PageQuery):
    q: Line | None = Field(None, description="Part of the email or of a name, in any case.")
    is_active: bool | None = None


class UserRead(FromRow):
    id: UUID
    email: str = Field(examples=["ada@example.com"])
    first_name: str = Field(examples=["Ada"])
    last_name: str = Field(examples=["Lovelace"])
    is_active: bool
    is_admin: bool
    created_at: datetime
    updated_at: datetime


class RevokedKeys(FromRow):
    revoked: int
