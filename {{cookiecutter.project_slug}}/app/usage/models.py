from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class ApiKeyUsage(SQLModel, table=True):
    """How often a key was used in one hour."""

    __tablename__ = "api_key_usage"

    key_id: str = Field(
        primary_key=True, foreign_key="user_api_keys.id", ondelete="CASCADE", max_length=16
    )
    start: datetime = Field(primary_key=True, index=True)
    requests: int = Field(default=0, sa_type=BigInteger)
    errors: int = Field(default=0, sa_type=BigInteger)
