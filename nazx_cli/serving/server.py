"""Listening: the socket, the signals, and an end that leaves nothing half done."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from nazx_cli.errors import NazxError

if TYPE_CHECKING:
    from nazx_cli.serving.app import Service

_GRACE = 5  # seconds for answers to be sent after the last token
_BACKLOG = 512  # connections that may wait to be taken


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 takes a free one. ``NazxError`` where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "choose another --port, or 0 for a free one"
        raise NazxError(f"cannot listen at {host} port {port}: {reason}", hint) from None
    return bound


def serve(make: Callable[[], Service], bound: socket.socket, on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT or SIGTERM, whose number is returned; ``make`` is called in the event
    loop, ``on_ready`` when requests are taken."""
    return asyncio.run(_serve(make, bound, on_ready))


async def _serve(
    make: Callable[[], Service], bound: socket.socket, on_ready: Callable[[], None]
) -> int:
    service = make()
    config = uvicorn.Config(
        service.app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    ended = signal.SIGTERM

    def end(number: signal.Signals) -> None:
        nonlocal ended
        if server.should_exit:
            server.force_exit = True
        ended = number
        server.should_exit = True
        service.worker.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    service.worker.start()
    on_ready()
    try:
        await server.serve(sockets=[bound])
    finally:
        service.worker.stop()
        await asyncio.to_thread(service.worker.join)
    return int(ended)


class _Server(uvicorn.Server):
    """Leaves signals to whoever starts it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are captured."""
        yield
