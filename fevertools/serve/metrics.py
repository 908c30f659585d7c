"""What a server counts, for Prometheus."""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FACES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server. None holds anything of a picture."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self.requests: Counter = Counter(
            "fevertools_requests", "Answers, by path and status.", ("path", "status"), registry=self._registry
        )
        self.seconds: Histogram = Histogram(
            "fevertools_request_seconds",
            "From the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batches: Histogram = Histogram(
            "fevertools_batch_faces", "Faces in one run of the encoder.", buckets=_FACES, registry=self._registry
        )
        Gauge(
            "fevertools_queue", "Requests that are being read, wait or are worked on.", registry=self._registry
        ).set_function(waiting)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)


class Measured:
    """ASGI middleware: counts and times every request.

    Args:
        paths: those that get a line of their own; whatever else is asked for is "other", so that lines stay few.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()  # what raises is answered with 500 further out

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
