"""Several processes that work as one: how they meet, what they send each other, and how one learns
that another has ended.

``torchrun`` starts them, or a person on several machines, with ``RANK``, ``WORLD_SIZE``,
``MASTER_ADDR`` and ``MASTER_PORT`` in the environment. Processes meet over gloo, and where there is
CUDA their tensors on GPUs over nccl. Nothing is waited for longer than ``NAZX_RANKS_TIMEOUT``
seconds.

Importing this loads no torch: most commands only ask whether they are alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import NazxError, UsageError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PATIENCE = 600.0  # seconds: for a rank that loads a model, makes an index or writes a state
_BEATS = 4  # signs of life within that time
_HEADER = 20  # numbers


class Kind(IntEnum):
    """What a message says; its first number."""

    IDLE = 0
    """Nothing, but that the first rank is there."""
    END = 1
    """All is over."""
    LOAD = 2
    """Load a model (``engine.following``)."""
    STEP = 3
    """Run the last position of a context (``context.ranks.ranked``)."""
    DROP = 4
    """Forget a context."""
    RUN = 5
    """Run further live tokens of a context (``context.ranks.live``)."""


def world_size() -> int:
    """How many processes were started; 1 where this one is alone."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among all, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return _number("LOCAL_RANK", 0)


def local_size() -> int:
    """How many of the processes are on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def patience() -> timedelta:
    """How long a process waits for another."""
    given = os.environ.get("NAZX_RANKS_TIMEOUT", "")
    try:
        seconds = float(given or _PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"NAZX_RANKS_TIMEOUT is {given!r}", "give seconds, such as 600")
    return timedelta(seconds=seconds)


@contextmanager
def joined(hint: str) -> Iterator[tuple[int, int]]:
    """The process group, left at the end: this process's rank, and how many there are.

    Where another process ends, or does not answer, that is a ``NazxError`` with ``hint``; so is
    SIGTERM, by which torchrun ends the others then.
    """
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with told(hint):
        dist.init_process_group(backend, timeout=patience())
    try:
        with told(hint), _ended(hint):
            yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


@contextmanager
def told(hint: str) -> Iterator[None]:
    """What a broken connection means, in a line."""
    try:
        yield
    except RuntimeError as error:  # all of torch.distributed's are such
        text = str(error).lower()
        if not any(word in text for word in ("connection", "gloo", "nccl", "timed out", "peer")):
            raise
        late = "timed out" in text or "timeout" in text
        limit = f"{patience().total_seconds():g} s"
        what = f"did not answer for {limit}" if late else f"ended ({_reason(error)})"
        raise NazxError(f"{_name()}: another process {what}", hint) from None


def _name() -> str:
    return f"rank {rank()} of {world_size()}"


def _reason(error: Exception) -> str:
    """What a library says of a connection, without where in its source it says so."""
    line = first_line(error).split("] ", 1)[-1]
    return line.split(". ", 1)[0]


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default


@contextmanager
def _ended(hint: str) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        raise NazxError(f"{_name()} was told to end: another process ended, or torchrun", hint)

    with _handling(signal.SIGTERM, handle):
        yield


@contextmanager
def _handling(number: int, handler: Callable[[int, FrameType | None], Any] | int) -> Iterator[None]:
    """``handler`` for a signal while entered, where that is this thread's to decide."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class Group:
    """The processes that hold one context, from the inside of ``joined``.

    The first one leads: it sends messages, each of up to ``_HEADER`` numbers and then tensors of
    which both sides know the sizes; the others hear them in order. ``moved`` counts the bytes that
    this process has sent and received as messages and by gathering. ``numbers`` are for what the
    others know by a number, ``dropped`` those that they do not know yet to be free.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.moved = 0
        self.numbers = count()
        self.dropped: list[int] = []
        self._lock = threading.RLock()
        self._lost = ""

    @property
    def leads(self) -> bool:
        """Whether this process is the first one."""
        return self.rank == 0

    @property
    def others(self) -> range:
        """The ranks that follow."""
        return range(1, self.size)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Of the first rank: the others hear now and then that it is there, and at the end that
        all is over."""
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            if not self._lost:
                with suppress(NazxError, RuntimeError), self.together():
                    for rank in self.others:
                        self.send(rank, (Kind.END,))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all ranks do at once, or not at all: Ctrl-C waits until it is done. If it fails
        nothing more can be done together."""
        with self._lock, uninterrupted(signal.SIGINT):
            if self._lost:
                raise NazxError(f"the other processes are lost: {self._lost}", "start all again")
            try:
                yield
            except BaseException as error:
                self._lost = first_line(error)
                raise

    def tell_dropped(self) -> None:
        """Have the others forget contexts that are gone."""
        while self.dropped:
            number = self.dropped.pop()
            for rank in self.others:
                self.send(rank, (Kind.DROP, number))

    def send(self, rank: int, numbers: Sequence[int], *payload: Tensor) -> None:
        """A message for one of the others."""
        import torch
        import torch.distributed as dist

        header = torch.zeros(_HEADER, dtype=torch.int64)
        header[: len(numbers)] = torch.tensor(numbers)
        for tensor in (header, *payload):
            if tensor.numel():
                dist.send(tensor.contiguous(), rank)
                self.moved += tensor.nbytes

    def hear(self) -> list[int]:
        """The numbers of the next message, zeros behind them."""
        import torch

        return self.receive((_HEADER,), torch.int64).tolist()

    def receive(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of the message that was heard last."""
        import torch
        import torch.distributed as dist

        tensor = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            dist.recv(tensor, 0)
            self.moved += tensor.nbytes
        return tensor

    def gather(self, own: Tensor) -> Tensor:
        """(ranks, *shape): ``own`` (*shape) of every rank, in their order; one collective."""
        import torch.distributed as dist

        every = own.new_empty((self.size, *own.shape))
        dist.all_gather(list(every), own.contiguous())
        self.moved += 2 * (self.size - 1) * own.nbytes
        return every

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(patience().total_seconds() / _BEATS):
            try:
                with self.together():
                    for rank in self.others:
                        self.send(rank, (Kind.IDLE,))
            except (NazxError, RuntimeError):
                return  # told where something is wanted of the others


@contextmanager
def uninterrupted(*signals: int) -> Iterator[None]:
    """Signals, of those that Python handles, wait until this is done."""
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in signals}
    with ExitStack() as stack:
        for number, handler in before.items():
            if callable(handler):  # else ignored, or not Python's to handle
                wait = _handling(number, lambda *each: came.append(each))
                stack.enter_context(wait)
        yield
    for number, frame in came[:1]:
        handler = before[number]
        assert callable(handler)
        handler(number, frame)
