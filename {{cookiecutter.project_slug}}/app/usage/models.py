from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class Counts(SQLModel):
    """How often a key was used from `start` on."""

    key_id: str = Field(
        primary_key=True, foreign_key="user_api_keys.id", ondelete="CASCADE", max_length=16
    )
    start: datetime = Field(primary_key=True, index=True)
    requests: int = Field(sa_type=BigInteger)
    errors: int = Field(sa_type=BigInteger)


class ApiKeyUsage(Counts, table=True):
    """In one hour."""

    __tablename__ = "api_key_usage"  # pyright: ignore[reportAssignmentType]


class ApiKeyUsageDay(Counts, table=True):
    """In one day (UTC): the sum of its hours, because a month of all keys has too many of them."""

    __tablename__ = "api_key_usage_days"  # pyright: ignore[reportAssignmentType]
