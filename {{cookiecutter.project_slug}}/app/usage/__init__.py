"""How often each key was used, per hour. This feature can be deleted (docs/delete-a-feature.md)."""

from fastapi import FastAPI

from app.core.retention import Retention
from app.settings import Settings, load_settings
from app.usage.models import ApiKeyUsage, ApiKeyUsageDay
from app.usage.recorder import UsageRecorder
from app.usage.router import router
from app.usage.settings import UsageSettings


def install(app: FastAPI, _: Settings) -> None:
    usage_settings = load_settings(UsageSettings)
    recorder = UsageRecorder(usage_settings, app.state.database)
    app.state.usage = recorder
    app.state.after_request.append(recorder.record)
    app.state.lifespan.append(recorder.running)
    days = usage_settings.usage_retention_days
    app.state.retention.append(Retention("usage", ApiKeyUsage, "start", days))
    app.state.retention.append(Retention("usage_days", ApiKeyUsageDay, "start", days))
    app.include_router(router)
