"""The one thread that owns the model, and the queue before it.

A job is a generator; what it yields reaches the event loop that asked for it, one by one. A job
whose client has left ends before its next token: ``Worker.heed`` raises what Ctrl-C would.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import closing, suppress
from typing import Any, Generic, TypeVar

from nazx_cli.serving.errors import ApiError, as_api_error, is_fault

T = TypeVar("T")
Work = Callable[[], Generator[T, None, None]]
_END = object()
_PATIENCE = 30.0  # seconds for the token in hand to end


class LeftError(KeyboardInterrupt):
    """The client has left, or the server ends."""


class Job(Generic[T]):
    """Work that is queued; ``async for`` gives what it yields, or raises an ``ApiError``."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.left = False
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.left = True

    def tell(self, item: object) -> None:
        """From the worker's thread to the loop's."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._told.put_nowait, item)

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._told.get()) is not _END:
            if isinstance(item, ApiError):
                raise item
            yield item


class Worker:
    """Runs jobs in the order they come, at most ``most_waiting`` behind the present one.

    ``on_fault`` is told of what is no fault of a request. ``after`` is run behind each job.
    """

    def __init__(
        self,
        most_waiting: int,
        on_fault: Callable[[BaseException], None],
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._most, self._on_fault, self._after = most_waiting, on_fault, after
        self._jobs: deque[Job[Any]] = deque()
        self._current: Job[Any] | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="nazx-model", daemon=True)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(not job.left for job in tuple(self._jobs))

    @property
    def running(self) -> int:
        """Jobs at work: 1 or 0."""
        return int(self._current is not None)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, work: Work[T], *, always: bool = False) -> Job[T]:
        """Queue ``work``; an ``ApiError`` where there is no room for it, unless it is to be done
        ``always``."""
        job = Job(work)
        with self._changed:
            if self._stopping:
                raise _ending()
            if self.waiting >= self._most and not always:
                message = f"{self._most} requests wait already; try again later"
                raise ApiError(429, message, None, "queue_full")
            self._jobs.append(job)
            self._changed.notify()
        return job

    def heed(self) -> None:
        """Raise where the present job is to end; the model calls it before every token."""
        job = self._current
        if self._stopping or (job is not None and job.left):
            raise LeftError

    def stop(self) -> None:
        """End the present job, refuse all others."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self) -> None:
        """Wait until the token in hand is done."""
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._work(job)
            except BaseException as error:
                if isinstance(error, LeftError):
                    error = _ending() if self._stopping else _left()
                if is_fault(error):
                    self._on_fault(error)
                job.tell(as_api_error(error))
            finally:
                self._current = None
                with suppress(Exception):
                    self._after()
                job.tell(_END)

    def _work(self, job: Job[Any]) -> None:
        self.heed()
        with closing(job.work()) as events:
            for item in events:
                job.tell(item)
                self.heed()

    def _next(self) -> Job[Any] | None:
        with self._changed:
            while not self._jobs and not self._stopping:
                self._changed.wait()
            self._current = self._jobs.popleft() if self._jobs else None
            return self._current


def _left() -> ApiError:
    """Which nobody reads."""
    return ApiError(499, "the client has left", None, "left")


def _ending() -> ApiError:
    return ApiError(503, "the server is shutting down", None, "shutting_down")
