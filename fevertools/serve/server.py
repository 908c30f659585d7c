"""The application behind a socket: uvicorn, with the limits on connections that it lacks."""

import asyncio
import ipaddress
import math
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from fevertools.options import whole
from fevertools.serve.app import create_app
from fevertools.serve.settings import Settings

MAX_CONNECTIONS: Final = 512
PATIENCE: Final = 10.0
"""Seconds for the head of a request; and for a client to take an answer, and to end the body of what was refused."""


class Guarded(H11Protocol):
    """One connection. It ends where the head of a request is slow to come, or an answer slow to be taken."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._expect_head()

    def on_response_complete(self) -> None:
        self._expect_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            # Body and work have limits of their own, and this is their sum.
            longest = self.config.timeout_graceful_shutdown or 0
            self._timer = self.loop.call_later(longest, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def configure(app: Starlette, settings: Settings) -> uvicorn.Config:
    """uvicorn as it is wanted here: quiet, with nothing but HTTP, and with an end to everything."""
    return uvicorn.Config(
        app,
        http=Guarded,
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.body_timeout + settings.timeout + PATIENCE),
    )


def run(
    settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, told: Callable[[str], object] = print
) -> None:
    """Serve until SIGINT or SIGTERM; then finish what has begun, and raise that signal again.

    Args:
        settings: of the server.
        host: address to listen on; all but loopback addresses let others in, and there is no authentication.
        port: 0 takes a free one.
        told: is called with the URL, once requests are answered.

    Raises:
        FevertoolsError: the networks cannot be loaded, as for `Analyzer`, or the port is none.
        OSError: the address cannot be listened on.
    """
    whole(port, "port", 0, 65535)
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # First, for the networks take longer to load than a taken port to be found.
    with socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS) as listener:
        # Connections take it from here; asyncio sets it only on sockets that name their protocol. Without it the body
        # of an answer waits up to 40 ms for its head to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = create_app(settings)
        told(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        with closing(app.state.service):
            uvicorn.Server(configure(app, settings)).run([listener])


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; a name other than "localhost" may be any address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
