"""Workload ``decode``: seconds per token of a greedy answer to prompts of several lengths."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nazx_cli.bench.peers import TRANSFORMERS, TransformersPeer
from nazx_cli.bench.prefill import prefilled
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.context.context import Context
from nazx_cli.engine.language_model import LanguageModel

NAME = "decode"


def run(setup: Setup) -> Iterator[Row]:
    """A row for each prompt length. Every run starts from a prompt that has just been taken in,
    so that both sides pay for growing their caches."""
    lm, peer, count = setup.lm, setup.peer, setup.settings.new_tokens
    for length in setup.prompt_lengths():
        ids = zipf_ids(lm.config.vocab_size, length)
        sides = [_ours(lm, ids, count)]
        if peer:
            sides.append(_theirs(peer, ids, count))
        label = f"{NAME} after {length:,} tokens"
        runs = alternate(sides, setup.settings.repeat, on_round=setup.rounds(label))
        yield Row(
            workload=NAME,
            measure="time per token",
            tokens=length,
            unit="s",
            dtype=lm.dtype,
            ours=Spread(runs[0]),
            peer=peer.name if peer else TRANSFORMERS,
            theirs=Spread(runs[1]) if peer else None,
            note=setup.peer_note,
            details={"new_tokens": count},
        )


def greedy(lm: LanguageModel, context: Context, token: int, count: int) -> list[int]:
    """``count`` greedy tokens after ``token``, which is not yet in ``context``."""
    found = []
    for _ in range(count):
        context.append([token])
        token = int(lm.next_logits(context).argmax())
        found.append(token)
    return found


def _ours(lm: LanguageModel, ids: Tensor, count: int) -> Side:
    def side() -> float:
        context, logits = prefilled(lm, ids)
        token = int(logits.argmax())
        return clock(lambda: greedy(lm, context, token, count))[0] / count

    return side


def _theirs(peer: TransformersPeer, ids: Tensor, count: int) -> Side:
    long_ids = ids.long()

    def side() -> float:
        cache, logits = peer.prefill(long_ids)
        token = int(logits.argmax())
        return clock(lambda: peer.decode(cache, token, count))[0] / count

    return side
