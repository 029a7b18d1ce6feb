from typing import Annotated

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.api_keys.dependencies import requires
from app.api_keys.verifier import Caller
from app.database import Database
from app.scopes import Scope
from app.usage.recorder import UsageRecorder

router = APIRouter(tags=["metrics"])

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """What Prometheus is told of this process. Label values are few: templates of paths, never what callers send."""

    def __init__(self, database: Database, usage: UsageRecorder) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "Requests answered.", ["method", "path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds", "Until the answer was sent.", ["method", "path"], registry=self.registry
        )
        self._refusals = Counter("api_refusals", "Problems answered.", ["code"], registry=self.registry)
        backlog = Gauge("usage_backlog", "Counters that wait to be written.", registry=self.registry)
        backlog.set_function(lambda: usage.backlog)
        in_use = Gauge("database_pool_in_use", "Connections that are at work.", registry=self.registry)
        in_use.set_function(lambda: database.connections_in_use)

    def observe(self, method: str, path: str | None, status: int, seconds: float, refusal: str | None) -> None:
        method, path = method if method in METHODS else "other", path or "none"
        self._requests.labels(method, path, status).inc()
        self._seconds.labels(method, path).observe(seconds)
        if refusal:
            self._refusals.labels(refusal).inc()


@router.get("/metrics", response_class=Response)
async def read_metrics(request: Request, _: Annotated[Caller, requires(Scope.METRICS_READ)]) -> Response:
    """What this process has counted, for Prometheus. Off, unless METRICS_ENABLED; never without a key."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
