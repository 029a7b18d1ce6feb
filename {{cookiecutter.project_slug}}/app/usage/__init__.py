"""How often each key was used, per hour. This feature can be deleted (docs/delete-a-feature.md)."""

from fastapi import FastAPI

from app.settings import Settings, load_settings
from app.usage.recorder import UsageRecorder
from app.usage.router import router
from app.usage.settings import UsageSettings


def install(app: FastAPI, _: Settings) -> None:
    recorder = UsageRecorder(load_settings(UsageSettings), app.state.database)
    app.state.usage = recorder
    app.state.after_request.append(recorder.record)
    app.state.lifespan.append(recorder.running)
    app.include_router(router)
