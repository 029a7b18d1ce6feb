from datetime import datetime
from uuid import UUID

from pydantic import Field, StrictBool

from app.core.pagination import PageQuery
from app.core.types import UNSET, Body, Email, FromRow, Line


class UserCreate(Body):
    email: Email = Field(examples=["ada@example.com"])
    first_name: Line = ""
    last_name: Line = ""
    is_admin: StrictBool = False


class MeUpdate(Body):
    first_name: Line = Field(default=UNSET, examples=["Ada"])
    last_name: Line = Field(default=UNSET, examples=["Lovelace"])


class UserUpdate(MeUpdate):
    is_active: StrictBool = UNSET
    is_admin: StrictBool = UNSET


class UserQuery(PageQuery):
    q: Line | None = Field(default=None, description="Part of the email or of a name.")
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
