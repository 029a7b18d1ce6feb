from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from app.core.database import Database
from app.core.middleware import FinishedRequest
from app.metrics.workers import WorkerMetrics, WorkerProcesses, delete_old_files

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """Metrics of this process, or of all workers, which share a folder.

    Label values are few: path templates, never what callers send.
    """

    def __init__(self, database: Database, folder: Path | None) -> None:
        self.registry = CollectorRegistry()
        registry = None if folder else self.registry  # with a folder, files are read instead
        if folder:
            delete_old_files(folder)
            self.registry.register(WorkerMetrics(folder))
            self.registry.register(WorkerProcesses(folder))
        else:
            ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests", "Requests.", ["method", "path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time until the response was sent.",
            ["method", "path"],
            registry=registry,
        )
        self._errors = Counter(
            "api_errors", "Error responses, by code.", ["code"], registry=registry
        )
        self._in_use = Gauge(
            "database_pool_in_use",
            "Database connections in use.",
            registry=registry,
            multiprocess_mode="liveall",
        )
        self._database = database
        self._is_shared = folder is not None

    def render(self) -> bytes:
        self._in_use.set(self._database.connections_in_use)
        return generate_latest(self.registry)

    def observe(self, finished: FinishedRequest) -> None:
        if self._is_shared:  # another worker may respond to Prometheus
            self._in_use.set(self._database.connections_in_use)
        route = finished.scope.get("route")
        path = route.path_format if route else "none"
        method = finished.scope["method"]
        if method not in METHODS:
            method = "other"
        self._requests.labels(method, path, finished.status).inc()
        self._seconds.labels(method, path).observe(finished.seconds)
        if finished.error_code:
            self._errors.labels(finished.error_code).inc()
