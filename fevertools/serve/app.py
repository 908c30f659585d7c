"""Requests to answers: a Starlette application."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar, cast

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fevertools import __version__
from fevertools.errors import DegenerateFaceError, ImageError, OptionError
from fevertools.options import choice
from fevertools.serve import page
from fevertools.serve.body import read_object, read_picture, read_query
from fevertools.serve.engine import Engine
from fevertools.serve.metrics import Measured, Metrics
from fevertools.serve.openapi import ANSWERS, QUERIES, describe
from fevertools.serve.settings import Settings
from fevertools.similarity import METRICS, Metric
from fevertools.tables import identity
from fevertools.types import Face

Value = TypeVar("Value")

_RETRY: Final = {"Retry-After": "1"}
_GONE: Final = 499  # nginx's number for a client that did not wait; nobody receives it
_EXAMPLE: Final = 'curl --data-binary @photo.jpg -H "Content-Type: image/jpeg" http://127.0.0.1:8000/v1/classify'


def create_app(settings: Settings | None = None) -> Starlette:
    """An ASGI application that answers as `fevertools serve` does; its networks are loaded here.

    `app.state.service.close()` finishes what has begun, and gives threads and memory back.

    Raises:
        FevertoolsError: the networks cannot be loaded, as for `Analyzer`.
    """
    service = Service(Settings() if settings is None else settings)
    routes = service.routes()
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Measured, metrics=service.metrics, paths=frozenset(route.path for route in routes)),
        ],
        exception_handlers={
            HTTPException: _refused,
            ImageError: _unusable,
            DegenerateFaceError: _unusable,
            OptionError: _unusable,
            ClientDisconnect: _left,
            Exception: _failed,
        },
    )
    app.state.service = service
    return app


class Service:
    """The answers of one server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._taken = 0
        self.metrics: Metrics = Metrics(lambda: self._taken)
        self._engine = Engine(settings, self.metrics.batches.observe)
        self._weights = identity(self._engine.entry)

    def close(self) -> None:
        """Finish what has begun, and give threads and memory back."""
        self._engine.close()

    def routes(self) -> list[Route]:
        """Every path, with what answers it."""
        description = describe(self._settings, self._engine.entry, __version__)
        shown = HTMLResponse(page.render(description, _EXAMPLE), headers=page.HEADERS)
        return [
            *(Route(f"/v1/{name}", partial(self._faces, name=name), methods=["POST"]) for name in ANSWERS),
            Route("/v1/similarity", self._similarity, methods=["POST"]),
            Route("/health", self._health),
            Route("/health/live", JSONResponse({"status": "live"}), methods=["GET"]),
            Route("/health/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", JSONResponse(description), methods=["GET"]),
            Route("/", shown, methods=["GET"]),
        ]

    async def _faces(self, request: Request, name: str) -> Response:
        query = read_query(request, QUERIES[name], self._settings)
        with self._place():
            picture = await read_picture(request, self._settings)
            if name == "detect":
                faces = await self._in_time(request, self._engine.detect(picture, **query))
                return JSONResponse({"faces": [_face(face) for face in faces]})
            results = await self._in_time(request, self._engine.analyze(picture, **query))
        told = [result.to_dict() for result in results]
        return JSONResponse(
            {"faces": [{key: face[key] for key in ANSWERS[name]} for face in told], "weights": self._weights}
        )

    async def _similarity(self, request: Request) -> Response:
        read_query(request, (), self._settings)
        with self._place():
            value = await read_object(request, self._settings)
        entry = self._engine.entry
        a, b = (_vector(value, name, entry.dimension) for name in ("a", "b"))
        usual = "triplet" if "triplet" in entry.files else "cosine"
        metric = cast(Metric, choice(value.get("metric", usual), "metric", METRICS))
        return JSONResponse({"similarity": self._engine.similarity(a, b, metric), "metric": metric})

    async def _health(self, _: Request) -> Response:
        state = {"status": self._state(), "version": __version__, "weights": self._weights}
        return JSONResponse(state, 200 if state["status"] == "ready" else 503)

    async def _ready(self, _: Request) -> Response:
        return JSONResponse({"status": self._state()}, 200 if self._state() == "ready" else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _state(self) -> str:
        return "ready" if self._taken < self._settings.queue else "busy"

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place in the queue; taken before the body is read, so that bodies in memory are no more than places."""
        if self._taken >= self._settings.queue:
            raise HTTPException(429, f"all {self._settings.queue} places of the queue are taken; try again", _RETRY)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, Value]) -> Value:
        """What the work gives, unless its time is over or the client goes away before."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(request.receive())  # after the body, nothing but the end can come
        try:
            await asyncio.wait({task, gone}, timeout=self._settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientDisconnect
            raise HTTPException(
                503, f"no answer after {self._settings.timeout:g} s; try again, or send a smaller picture", _RETRY
            )
        finally:
            task.cancel()
            gone.cancel()


def _face(face: Face) -> dict[str, Any]:
    """As those keys of `FaceResult.to_dict`."""
    return {"box": face.box.tolist(), "score": float(face.score), "landmarks": face.landmarks.tolist()}


def _vector(value: Any, name: str, dimension: int) -> list[float]:
    keys = {"a", "b", "metric"}
    if not isinstance(value, dict) or not {"a", "b"} <= value.keys() <= keys:
        raise HTTPException(422, 'the body is no object with "a", "b" and, if you like, "metric"')
    vector = value[name]
    # bool is a kind of int in Python, and none here
    if not isinstance(vector, list) or len(vector) != dimension or not {int, float} >= set(map(type, vector)):
        raise HTTPException(422, f"{name} is not a list of {dimension} numbers, an embedding of these weights")
    try:
        return [float(number) for number in vector]
    except OverflowError as error:
        raise HTTPException(422, f"{name} holds numbers that are not finite") from error


# ------------------------------------------------------------------------------------------------ what is not answered


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _unusable(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _left(_: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)


async def _failed(_: Request, error: Exception) -> Response:
    # What it was is for the log: it may name files of this machine.
    return JSONResponse({"error": "the server failed; its log says why"}, 500)
