"""Which of the registry's models run on a machine, how, and how fast; no torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.catalog.registry import Registry, RegistryEntry
from nazx_cli.config import ModelConfig
from nazx_cli.memory.estimate import TextSize, bytes_per_token, longest_context
from nazx_cli.memory.machine import Hardware, this_machine
from nazx_cli.memory.plan import LEAST_READ, LoadOptions, Plan, plan, readable

LEAST_SPEED = 4.0
"""Tokens a second, at most, below which no model is suggested: about as fast as people read."""
BEARABLE = 20.0
"""Seconds within which the model that is recommended answers a question about a book."""
_READ = 800  # tokens, about: what a model that was taught to read is shown of a book for a question


@dataclass(frozen=True)
class Fit:
    """How a model runs on a machine: ``plan`` holds the most precise weights that fit.

    ``context`` is how many tokens a prompt may then have, 0 where nothing fits; ``speed`` how many
    tokens a second it writes at most: the bytes of the weights that each token reads,
    over the memory's bandwidth.
    """

    plan: Plan
    context: int
    speed: float

    @property
    def fits(self) -> bool:
        """Whether it runs at all."""
        return self.plan.fits

    @property
    def precision(self) -> str:
        """How its weights are held; the smallest way there is where it does not fit."""
        return self.plan.estimate.precision


def fit(config: ModelConfig, machine: Hardware, limit: int | None = None) -> Fit:
    """How ``config`` runs on ``machine``, within ``limit`` bytes (None: what is free)."""
    found = plan(config, TextSize(), LoadOptions(limit=limit), machine.place)
    precision = found.estimate.precision
    read = bytes_per_token(config, precision, found.width)
    context = _context(config, found) if found.fits else 0
    return Fit(found, context, machine.bandwidth / read)


def _context(config: ModelConfig, found: Plan) -> int:
    if found.live is not None:
        return found.live
    room = found.limit - found.estimate.process
    return longest_context(config, found.estimate, room, found.width)


class Offer(NamedTuple):
    """A model of the registry, and how it runs."""

    entry: RegistryEntry
    fit: Fit


def suggestions(
    machine: Hardware, limit: int | None = None, *, hub: bool = True, gated: bool = False
) -> list[Offer]:
    """Up to three models for a person who has none in mind: the best that fits, one between, and
    the default, which is always there.

    ``hub`` says whether the Hub's models can be had, ``gated`` whether those that need a token.
    The best has the most weights of those that write at ``LEAST_SPEED`` or above and read
    ``LEAST_READ`` tokens in the operations that a prompt may take here; the one between is the
    largest that was taught to read documents, of those that answer in ``BEARABLE`` time if there
    are such, else the one that is, by the ratio of weights, in the middle.
    """
    registry = Registry.load()
    entry = registry.entries[registry.default]
    default = Offer(entry, fit(entry.config, machine, limit))
    larger = [*_worthwhile(machine, limit, hub, gated)]
    if not larger:
        return [default]
    *others, best = larger
    taught = [offer for offer in others if offer.entry.reader_folder is not None]
    soon = [offer for offer in others if _reads_soon(offer.entry, machine)]
    middle = math.sqrt(best.entry.parameters * entry.parameters)
    between = (
        soon[-1:]
        or taught[-1:]
        or sorted(others, key=lambda offer: abs(math.log(offer.entry.parameters / middle)))
    )
    return [best, *between[:1], default]


def wait(entry: RegistryEntry, machine: Hardware) -> float:
    """Seconds, about, that a question about a book takes of a model that was taught to read: those
    of the operations by which it reads what it is shown; 0 where they were not measured.

    Measured on one core of an EPYC: 11 s with AVX-512 and bfloat16 where this says 11
    (``qwen2.5-coder-1.5b``), 3.4 where it says 3, 1.9 where it says 1 (the default).
    """
    config = entry.config
    embeddings = (1 if config.tie_embeddings else 2) * config.vocab_size * config.hidden_size
    return 2 * _READ * (config.num_parameters - embeddings) / machine.operations


def recommended(machine: Hardware, offers: Sequence[Offer]) -> int:
    """Which of ``offers`` a person without a wish gets: the largest that was taught to read
    documents, which is right far more often, of those that answer in ``BEARABLE`` time. Else the
    last, the default."""
    soon = (at for at, offer in enumerate(offers) if _reads_soon(offer.entry, machine))
    return max(soon, key=lambda at: offers[at].entry.parameters, default=len(offers) - 1)


def _reads_soon(entry: RegistryEntry, machine: Hardware) -> bool:
    return entry.reader_folder is not None and wait(entry, machine) <= BEARABLE


def _worthwhile(machine: Hardware, limit: int | None, hub: bool, gated: bool) -> Iterator[Offer]:
    """Models to suggest, larger than the default, the largest last."""
    registry = Registry.load()
    for entry in registry.entries.values():
        reachable = (hub or not entry.needs_hub) and (gated or not entry.gated)
        if not entry.suggest or entry.name == registry.default or not reachable:
            continue
        found = fit(entry.config, machine, limit)
        soon = readable(entry.config, machine.place) >= LEAST_READ
        if found.fits and found.speed >= LEAST_SPEED and soon:
            yield Offer(entry, found)


def better_model(
    name: str, limit: int | None = None, machine: Hardware | None = None
) -> str | None:
    """One line that names the largest model to suggest that fits ``machine`` (None: this one),
    where it is larger than ``name``, and the command to get it or, where it is here, to use it;
    None where there is none."""
    entry = Registry.load().find(name)
    if entry is None:
        return None
    best, found = suggestions(machine or this_machine(), limit)[0]
    if best.parameters <= entry.parameters:
        return None
    here = ModelRef.parse(best.name).present() is not None
    return (
        f"a larger model would fit: {best.name} ({best.parameters / 1e9:.1f} billion weights, "
        f"{found.precision}, {found.plan.estimate.total / 1e9:.1f} GB): "
        f"{'nazx chat -m' if here else 'nazx pull'} {best.name}"
    )
