from pydantic import Field

from app.settings import EnvSettings


class UsageSettings(EnvSettings):
    usage_flush_seconds: float = Field(default=5, ge=0.01, le=3600)
    usage_retention_days: int = Field(default=90, ge=1, le=36_500)
