from datetime import datetime
from uuid import UUID

from app.schemas import Body, Email, FromRow, Line


class UserCreate(Body):
    email: Email
    first_name: Line = ""
    last_name: Line = ""
    is_admin: bool = False


class UserRead(FromRow):
    id: UUID
    email: str
    first_name: str
    last_name: str
    is_active: bool
    is_admin: bool
    created_at: datetime
    updated_at: datetime
