"""The training loop: batches of items, AdamW with a cosine schedule, saving, held-out loss."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from nazx_cli.errors import UsageError
from nazx_cli.model.libraries import keep_for_training
from nazx_cli.ranks import uninterrupted
from nazx_cli.training.ranks import ALONE, Ranks
from nazx_cli.training.state import (
    Counters,
    Log,
    alone_in,
    load_best,
    load_state,
    save_best,
    save_state,
)

_BETAS = (0.9, 0.98)


class Item(Protocol):
    """What a step takes some of: ``tokens`` run through the model, and what its losses weigh."""

    @property
    def tokens(self) -> int: ...
    @property
    def weight(self) -> float: ...


I = TypeVar("I", bound=Item)  # noqa: E741
I_contra = TypeVar("I_contra", bound=Item, contravariant=True)


class Engine(Protocol[I_contra]):
    """Losses and gradients of items; ``parameters`` are the float32 masters that are trained."""

    parameters: list[nn.Parameter]

    def refresh(self) -> None:
        """Compute with the masters as they are now."""

    def loss(self, item: I_contra, scale: float | None) -> float:
        """The weighted sum of the item's losses; gradients of ``scale`` times that are added to
        the masters', if it is not None."""


@dataclass(frozen=True)
class Schedule:
    """How a run goes.

    steps         optimizer steps in all, or None where ``minutes`` of training are the limit,
                  or else ``tokens`` that are run through the model
    batch_tokens  tokens of items that make a step, at least
    rate          the learning rate at its peak, after ``warmup`` of the run; it falls by a
                  cosine to ``floor`` of it
    check_every   steps between held-out losses; the run ends early after ``patience`` of them
                  without a better one
    save_every    seconds between saves
    """

    steps: int | None = 1000
    minutes: float | None = None
    tokens: float | None = None
    batch_tokens: int = 4000
    rate: float = 1e-3
    warmup: float = 0.03
    floor: float = 0.02
    decay: float = 0.0
    clip: float = 1.0
    check_every: int = 100
    patience: int = 5
    save_every: float = 300.0
    seed: int = 0

    def lasting(self, tokens: float) -> Schedule:
        """The same; where nothing limits the run, with so many ``tokens``."""
        if self.steps is not None or self.minutes is not None:
            return self
        return replace(self, tokens=tokens)

    def done(self, counters: Counters) -> float:
        """The share of the run that is over."""
        if self.steps is not None:
            return _share(counters.step, self.steps)
        if self.minutes is not None:
            return _share(counters.seconds, 60 * self.minutes)
        return _share(counters.tokens, self.tokens or 0)

    def rate_at(self, share: float) -> float:
        """The learning rate when ``share`` of the run is over."""
        rise = min(1.0, (share + 1e-3) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return self.rate * rise * (self.floor + (1 - self.floor) * fall)


@dataclass(frozen=True)
class Progress:
    """What a step came to: ``share`` of the run is over, ``seconds_left`` by the pace so far."""

    step: int
    share: float
    seconds_left: float
    loss: float
    tokens_per_second: float
    held_out: float | None = None


OnProgress = Callable[[Progress], None]
Check = Callable[[], dict[str, float]]


class Trainer(Generic[I]):
    """Trains ``engine`` on items, in a folder that it saves its state to.

    With several ``ranks`` each runs its share of every step, and the first one alone writes.
    Parameters with one of ``paces`` are learnt at the rate of all others times that, without decay.
    """

    def __init__(
        self,
        engine: Engine[I],
        train: Sequence[I],
        held: Sequence[I],
        schedule: Schedule,
        folder: Path,
        ranks: Ranks = ALONE,
        paces: Sequence[tuple[nn.Parameter, float]] = (),
    ) -> None:
        if not train:
            raise UsageError("there is nothing to train on", "name files with questions or text")
        keep_for_training()
        self.engine, self.train, self.held = engine, train, held
        self.schedule, self.folder, self.ranks = schedule, folder, ranks
        self.optimizer = torch.optim.AdamW(
            _groups(engine.parameters, schedule.decay, paces), lr=schedule.rate, betas=_BETAS
        )
        found = load_state(folder, engine.parameters, self.optimizer)
        self.counters = found or Counters()
        ranks.wait()  # all have read the state before the first one writes anything
        self._begun = self.counters.step
        self._order: tuple[int, list[int]] = (-1, [])
        self._updating = 0.0  # seconds of the last update
        engine.refresh()

    def run(self, on_progress: OnProgress | None = None, check: Check | None = None) -> Counters:
        """Train to the end; ``check`` gives further held-out figures for the log.

        A run that is interrupted saves its state first. Afterwards the engine holds the best
        parameters. ``UsageError`` where another process trains in the folder.
        """
        with alone_in(self.folder) if self.ranks.is_first else nullcontext():
            return self._run(on_progress, check)

    def _run(self, on_progress: OnProgress | None, check: Check | None) -> Counters:
        saved = time.monotonic()
        held: float | None = None
        try:
            while self.schedule.done(self.counters) < 1 and not self._is_stale:
                loss = self.step()
                if self.held and self.counters.step % self.schedule.check_every == 0:
                    held = self.check(check)
                if on_progress:
                    on_progress(self._progress(loss, held))
                if time.monotonic() - saved > self.schedule.save_every:
                    saved = time.monotonic()
                    self.save()
        finally:
            self.save()
        if self.held and self.counters.judged != self.counters.step:
            self.check(check)
            self.save()
        self.take_best()
        return self.counters

    def take_best(self) -> None:
        """Have the engine hold the best parameters, and ``counters`` say which those are. The
        present ones are among them: where a run was stopped between two checks they are judged
        now."""
        counters = self.counters
        if self.held and counters.judged != counters.step and self.ranks.size == 1:
            loss, counters.judged = held_out_loss(self.engine, self.held), counters.step
            if loss < counters.best:
                counters.best, counters.best_step = loss, counters.step
        if counters.best_step != counters.step and load_best(self.folder, self.engine.parameters):
            self.engine.refresh()

    @cached_property
    def _log(self) -> Log:
        """Begun with the first line: who only looks at a run leaves its log alone."""
        return Log(self.folder, self._begun)

    @property
    def _is_stale(self) -> bool:
        return self.counters.worse >= self.schedule.patience

    def step(self) -> float:
        """One step of the optimizer; the mean loss of its batch."""
        began = time.monotonic()
        share = self.schedule.done(self.counters)
        batch = self._batch()
        total = sum(item.weight for item in batch)
        mine = batch[self.ranks.rank :: self.ranks.size]
        loss = sum(self.engine.loss(item, 1 / total) for item in mine)
        self.ranks.add_gradients(self.engine.parameters)
        # What is over by the clock is over for all at once.
        loss, seconds = self.ranks.sums(loss, time.monotonic() - began + self._updating)
        self.counters.seconds += seconds / self.ranks.size
        began = time.monotonic()
        with uninterrupted(signal.SIGINT, signal.SIGTERM):  # what is saved is no half of a step
            self._update(batch, loss / total, self.schedule.rate_at(share))
        self._updating = time.monotonic() - began  # counted with the next step
        return loss / total

    def _update(self, batch: Sequence[I], loss: float, rate: float) -> None:
        """Move the parameters by the gradients of ``batch``, and count it as done."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.engine.parameters, self.schedule.clip))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        if math.isfinite(norm):  # a step that overflowed teaches nothing
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.engine.refresh()
        counters = self.counters
        counters.step += 1
        counters.packs += len(batch)
        counters.tokens += sum(item.tokens for item in batch)
        self._write(
            {
                "step": counters.step,
                "loss": round(loss, 5),
                "norm": round(norm, 4),
                "rate": rate,
                "tokens": counters.tokens,
                "seconds": round(counters.seconds, 1),
            }
        )

    def check(self, more: Check | None = None) -> float:
        """The held-out loss; keeps the parameters if it is the best so far."""
        loss = held_out_loss(self.engine, self.held, self.ranks)
        figures = more() if more else {}
        counters = self.counters
        counters.judged = counters.step
        counters.worse += 1
        if loss < counters.best:
            counters.best, counters.best_step, counters.worse = loss, counters.step, 0
            if self.ranks.is_first:
                save_best(self.folder, self.engine.parameters)
        self._write({"step": counters.step, "held_out": round(loss, 5), **figures})
        return loss

    def save(self) -> None:
        """Save the state."""
        if self.ranks.is_first:
            save_state(self.folder, self.counters, self.engine.parameters, self.optimizer)

    def _write(self, line: dict[str, Any]) -> None:
        if self.ranks.is_first:
            self._log.write(line)

    def _batch(self) -> list[I]:
        """The next items in the order of the run, which its seed and the epoch fix."""
        batch: list[I] = []
        tokens, at = 0, self.counters.packs
        while tokens < self.schedule.batch_tokens:
            epoch, place = divmod(at, len(self.train))
            if self._order[0] != epoch:
                order = list(range(len(self.train)))
                random.Random(f"{self.schedule.seed} {epoch}").shuffle(order)
                self._order = epoch, order
            batch.append(self.train[self._order[1][place]])
            tokens += batch[-1].tokens
            at += 1
        return batch

    def _progress(self, loss: float, held: float | None) -> Progress:
        counters = self.counters
        share = min(1.0, self.schedule.done(counters))
        left = counters.seconds * (1 - share) / max(share, 1e-9)
        pace = counters.tokens / max(counters.seconds, 1e-9)
        return Progress(counters.step, share, left, loss, pace, held)


def _share(so_far: float, limit: float) -> float:
    return so_far / limit if limit else 1.0


def held_out_loss(
    engine: Engine[I],
    items: Sequence[I],
    ranks: Ranks = ALONE,
    on_item: Callable[[], None] = lambda: None,
) -> float:
    """The mean loss of ``items``, weighted as in training; ``on_item`` is called after each."""
    loss = total = 0.0
    for number in range(ranks.rank, len(items), ranks.size):
        item = items[number]
        loss += engine.loss(item, None)
        total += item.weight
        on_item()
    loss, total = ranks.sums(loss, total)
    return loss / total if total else 0.0


def _groups(
    parameters: Sequence[nn.Parameter], decay: float, paces: Sequence[tuple[nn.Parameter, float]]
) -> list[dict[str, Any]]:
    """Matrices, which decay, and all else, which does not; those with a pace of their own."""
    apart = {id(parameter) for parameter, _ in paces}
    others = [p for p in parameters if id(p) not in apart]
    groups = [
        ([p for p in others if p.dim() > 1], decay, 1.0),
        ([p for p in others if p.dim() <= 1], 0.0, 1.0),
        *(([parameter], 0.0, pace) for parameter, pace in paces),
    ]
    return [
        {"params": some, "weight_decay": rate, "pace": pace} for some, rate, pace in groups if some
    ]
