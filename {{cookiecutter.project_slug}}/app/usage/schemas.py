from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.api_keys.schemas import EXAMPLE_ID
from app.core.database import utc_now
from app.core.types import Moment

EARLIEST = datetime.min.replace(tzinfo=UTC)


class UsageQuery(BaseModel):
    granularity: Literal["hour", "day"] = "day"
    start: Moment | None = Field(
        default=None, alias="from", description="Absent: 24 hours or 30 days before `to`."
    )
    end: Moment = Field(default_factory=utc_now, alias="to", description="Exclusive. Absent: now.")

    @property
    def step(self) -> timedelta:
        return timedelta(hours=1) if self.granularity == "hour" else timedelta(days=1)

    def floor(self, moment: datetime) -> datetime:
        hour = moment.replace(minute=0, second=0, microsecond=0)
        return hour if self.granularity == "hour" else hour.replace(hour=0)

    def period(self) -> tuple[datetime, datetime]:
        """From the start of the first bucket to the requested end."""
        end = self.end
        default = timedelta(hours=24) if self.granularity == "hour" else timedelta(days=30)
        return self.floor(self.start or max(end, EARLIEST + default) - default), end


class TotalUsageQuery(UsageQuery):
    top: int = Field(default=10, ge=0, le=100, description="Maximum number of busiest keys.")


class UsageBucket(BaseModel):
    start: datetime
    requests: int = 0
    errors: int = 0


class UsageRead(BaseModel):
    total: int
    errors: int
    buckets: list[UsageBucket]

    @classmethod
    def of(cls, buckets: Iterable[UsageBucket], **more: object) -> Self:
        buckets = [*buckets]
        total = sum(bucket.requests for bucket in buckets)
        errors = sum(bucket.errors for bucket in buckets)
        fields = {"total": total, "errors": errors, "buckets": buckets, **more}
        return cls.model_validate(fields)


class BusyKey(BaseModel):
    id: str = Field(examples=[EXAMPLE_ID])
    user_id: UUID
    name: str = Field(examples=["ci"])
    requests: int
    errors: int


class TotalUsageRead(UsageRead):
    top: list[BusyKey] = Field(description="The busiest first.")
