"""A web server on loopback that answers each path with the bytes it was told, as they are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Answer = bytes | Callable[[socket.socket], None]


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; ``Content_Length`` and so on put other headers in."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = {"Content-Length": str(len(body)), **named}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[str]:
    """The address that ``answers`` are below; one may write to the connection itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, answers), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def _serve(listening: socket.socket, answers: Mapping[str, Answer]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, answers), daemon=True).start()


def _answer(connection: socket.socket, answers: Mapping[str, Answer]) -> None:
    with connection:
        try:
            asked = connection.recv(1 << 16).split(b" ")
            path = asked[1].decode().lstrip("/") if len(asked) > 1 else ""
            answer = answers.get(path, http(b"", "404 Not Found"))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)
        except (OSError, ValueError):
            return  # the other side has had enough, or asked for nothing
