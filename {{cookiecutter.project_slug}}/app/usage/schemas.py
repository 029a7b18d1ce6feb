from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.database import utc_now
from app.core.types import Moment

EARLIEST = datetime.min.replace(tzinfo=UTC)


class UsageQuery(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    granularity: Literal["hour", "day"] = "day"
    start: Moment | None = Field(
        default=None, alias="from", description="Absent: 24 hours or 30 days before `to`."
    )
    end: Moment | None = Field(default=None, alias="to", description="Exclusive. Absent: now.")

    def floor(self, moment: datetime) -> datetime:
        hour = moment.replace(minute=0, second=0, microsecond=0)
        return hour if self.granularity == "hour" else hour.replace(hour=0)

    def period(self) -> tuple[datetime, datetime]:
        """From the start of the first bucket to the requested end."""
        end = self.end or utc_now()
        default = timedelta(hours=24) if self.granularity == "hour" else timedelta(days=30)
        return self.floor(self.start or max(end, EARLIEST + default) - default), end


class UsageBucket(BaseModel):
    start: datetime
    requests: int = 0
    errors: int = 0


class UsageRead(BaseModel):
    total: int
    errors: int
    buckets: list[UsageBucket]
