"""A process in which templates run that may take any time and memory, and this end of it.

One request and one reply a line, in JSON. The process is started once and kept: a further template
then costs a fraction of a millisecond. It has nothing but its pipes, and ends when they close.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nazx_cli
from nazx_cli.session.templating.sandbox import OutputLimitError, run_template

CPU_SECONDS = 1
"""What a template may take, or up to a second more; real ones take milliseconds."""

_SECONDS = 8.0  # on the clock: a busy machine gives a process little, some have no limit of the CPU
_START_SECONDS = 60.0
_MEMORY = 512 << 20  # bytes of address space; where the system has such a limit


class TemplateFailedError(Exception):
    """A template raised an error; its words."""


class TemplateLimitError(Exception):
    """A template took more than it may; what of."""


def run_in_process(source: str, variables: Mapping[str, Any], max_output: int) -> str:
    """As ``sandbox.run_template``, held to ``CPU_SECONDS`` and to half a gigabyte.

    ``TemplateFailedError`` or ``TemplateLimitError``.
    """
    request = json.dumps([source, variables, max_output]).encode()
    with _lock:
        reply = _started().ask(request)
    if "text" in reply:
        return str(reply["text"])
    if "limit" in reply:
        raise TemplateLimitError(reply["limit"])
    raise TemplateFailedError(reply["error"])


def start() -> None:
    """Have the process start, so that it is there once it is asked."""
    with _lock:
        _started()


class _Process:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Not where the person is: modules of any name there would be run.
            cwd=Path(nazx_cli.__file__).parent.parent,
            start_new_session=True,  # Ctrl-C is for this process; it decides
        )
        self._ready = False
        self.ended = False

    def ask(self, request: bytes) -> dict[str, Any]:
        """The reply; one that does not come in time ends the process."""
        assert self._process.stdin is not None
        try:
            self._ready = self._ready or bool(self._line(_START_SECONDS))
            if not self._ready:
                raise TemplateFailedError("the process to run it in did not start")
            self._process.stdin.write(request + b"\n")
            self._process.stdin.flush()
            line = self._line(_SECONDS)
        except BrokenPipeError:
            line = b""
        except BaseException:  # Ctrl-C: the reply must not be taken for that to the next one
            self.end()
            raise
        if not line.endswith(b"\n"):
            self.end()
            limit = f"it takes more than {CPU_SECONDS} s of computing"
            raise TemplateLimitError(limit)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            return self._process.stdout.readline()
        finally:
            timer.cancel()

    def end(self) -> None:
        """Stop the process, whatever it is doing."""
        self.ended = True
        if self.owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


_lock = threading.Lock()
_current: _Process | None = None


def _started() -> _Process:
    global _current
    if _current is None or _current.ended or _current.owner != os.getpid():
        _current = _Process()
        atexit.register(_current.end)
    return _current


def _serve() -> None:
    limit = _limiter()
    replies = sys.stdout.buffer
    replies.write(b"\n")  # ready
    replies.flush()
    for line in sys.stdin.buffer:
        limit()
        replies.write(json.dumps(_reply(line)).encode() + b"\n")
        replies.flush()


def _reply(line: bytes) -> dict[str, str]:
    try:
        return {"text": run_template(*json.loads(line))}
    except OutputLimitError:
        return {"limit": "its text is far longer than the messages"}
    except MemoryError:
        return {"limit": "it takes more memory than it may"}
    except Exception as error:  # a template can fail in any way that Python code can
        return {"error": " ".join(str(error).split())[:1000] or type(error).__name__}


def _limiter() -> Callable[[], None]:
    """Limit the process's memory; the result grants it ``CPU_SECONDS`` from now on."""
    try:
        import resource
    except ImportError:  # Windows
        return lambda: None
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]

    def grant() -> None:
        until = math.ceil(time.process_time()) + CPU_SECONDS
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (until, most))

    return grant


if __name__ == "__main__":
    _serve()
