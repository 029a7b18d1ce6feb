from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from app.database import UtcDateTime


class ApiKeyUsage(SQLModel, table=True):
    """How often a key was used in one hour, or, where hours were folded, in one day."""

    __tablename__ = "api_key_usage"

    key_id: str = Field(primary_key=True, foreign_key="user_api_keys.id", ondelete="CASCADE", max_length=16)
    start: datetime = Field(primary_key=True, sa_type=UtcDateTime, index=True)
    is_day: bool = Field(default=False, primary_key=True)
    requests: int = Field(default=0, sa_type=BigInteger)
    errors: int = Field(default=0, sa_type=BigInteger)
