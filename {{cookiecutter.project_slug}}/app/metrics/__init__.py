"""Metrics for Prometheus. This feature can be deleted (docs/delete-a-feature.md)."""

from fastapi import FastAPI

from app.metrics.router import router
from app.metrics.service import Metrics
from app.metrics.settings import MetricsSettings
from app.settings import Settings, load_settings


def install(app: FastAPI, _: Settings) -> None:
    if load_settings(MetricsSettings).metrics_enabled:
        app.state.metrics = Metrics(app.state.database)
        app.state.after_request.append(app.state.metrics.observe)
        app.include_router(router)
