"""Metrics for Prometheus. This feature can be deleted (docs/delete-a-feature.md)."""

from fastapi import FastAPI

from app.metrics.settings import MetricsSettings
from app.settings import Settings, load_settings


def install(app: FastAPI, _: Settings) -> None:
    settings = load_settings(MetricsSettings)
    if settings.metrics_enabled:
        settings.export_folder()
        from app.metrics.router import router  # imports prometheus_client, which reads the variable
        from app.metrics.service import Metrics

        app.state.metrics = Metrics(app.state.database, settings.prometheus_multiproc_dir)
        app.state.after_request.append(app.state.metrics.observe)
        app.include_router(router)
