"""Workload ``prefill``: from a prompt's ids to the logits after it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nazx_cli.bench.peers import TRANSFORMERS, TransformersPeer
from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.shapes import zipf_ids
from nazx_cli.bench.timing import Side, alternate, clock
from nazx_cli.context.context import Context
from nazx_cli.engine.language_model import LanguageModel

NAME = "prefill"


def run(setup: Setup) -> Iterator[Row]:
    """A row for each prompt length."""
    for count in setup.prompt_lengths():
        yield _row(setup, zipf_ids(setup.lm.config.vocab_size, count))


def prefilled(lm: LanguageModel, ids: Tensor) -> tuple[Context, Tensor]:
    """A new context of ids (T,), and the logits after the last of them."""
    context = lm.new_context()
    context.append(ids)
    return context, lm.next_logits(context)


def _row(setup: Setup, ids: Tensor) -> Row:
    lm, peer = setup.lm, setup.peer
    long_ids = ids.long()
    sides: list[Side] = [lambda: clock(lambda: prefilled(lm, ids))[0]]
    if peer:
        sides.append(lambda: clock(lambda: peer.prefill(long_ids))[0])
    label = f"{NAME} of {len(ids):,} tokens"
    runs = alternate(sides, setup.settings.repeat, on_round=setup.rounds(label))
    return Row(
        workload=NAME,
        measure="prefill",
        tokens=len(ids),
        unit="s",
        dtype=lm.dtype,
        ours=Spread(runs[0]),
        peer=peer.name if peer else TRANSFORMERS,
        theirs=Spread(runs[1]) if peer else None,
        note=setup.peer_note,
        details={"largest_logit_difference": _difference(lm, peer, ids)} if peer else {},
    )


def _difference(lm: LanguageModel, peer: TransformersPeer, ids: Tensor) -> float:
    """How far apart the two sides' logits are: proof that they compute the same."""
    ours, theirs = prefilled(lm, ids)[1], peer.prefill(ids.long())[1]
    return float((ours - theirs.float()).abs().max())
