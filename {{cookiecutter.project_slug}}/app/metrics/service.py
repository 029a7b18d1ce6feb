from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.database import Database
from app.core.middleware import FinishedRequest

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """Metrics of this process. Label values are few: path templates, never what callers send."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "Requests.", ["method", "path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time until the response was sent.",
            ["method", "path"],
            registry=self.registry,
        )
        self._errors = Counter(
            "api_errors", "Error responses, by code.", ["code"], registry=self.registry
        )
        in_use = Gauge(
            "database_pool_in_use", "Database connections in use.", registry=self.registry
        )
        in_use.set_function(lambda: database.connections_in_use)

    def observe(self, finished: FinishedRequest) -> None:
        route = finished.scope.get("route")
        path = route.path if route else "none"
        method = finished.scope["method"]
        if method not in METHODS:
            method = "other"
        self._requests.labels(method, path, finished.status).inc()
        self._seconds.labels(method, path).observe(finished.seconds)
        if finished.error_code:
            self._errors.labels(finished.error_code).inc()
