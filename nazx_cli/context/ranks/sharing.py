"""How several processes have a model and its contexts together, and the blocks of Star Attention.

Star Attention (arXiv 2411.17116) cuts a long prompt into blocks that do not see each other: a
position of a block sees the anchor, which is the first positions of the context, as many as a block
has, and what stands before it in its own block. What follows the blocks, the question and its
answer, sees all positions. Every position is at its true place. What the paper leaves open is said
by ``cut``: the last block of what is new is what asks, and a rest of less than half a block belongs
to the one before it.

No torch here: estimates need this too.
"""

from __future__ import annotations

from dataclasses import dataclass

from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError

BLOCK = 1_024
"""Tokens of a block where ``--block`` does not say; what it loses is in evaluation/README.md."""


FAR_IS_ALONE = "a far memory is one process's"


@dataclass(frozen=True)
class Share:
    """``ranks`` processes have a model's contexts together.

    Of live tokens each holds the keys and values of some blocks of ``block`` positions and has all
    weights; with ``split`` each has a part of every matrix and, of all positions, the keys and
    values of some heads.
    """

    ranks: int = 1
    block: int = BLOCK
    split: bool = False

    @property
    def parts(self) -> int:
        """Into how many parts matrices and heads are split."""
        return self.ranks if self.split else 1

    @property
    def stretches(self) -> int:
        """Into how many parts positions are."""
        return 1 if self.split else self.ranks


ALONE = Share()


def sees_plainly(config: ModelConfig) -> bool:
    """Whether every layer attends by a plain softmax over all positions that the attention kind
    lets it see, as blocks are defined for."""
    return config.attention_cap is None and not any(kind.window for kind in config.layer_kinds)


def check_share(config: ModelConfig, by: Share) -> None:
    """``UsageError`` where processes cannot share a model of ``config`` so."""
    attention = config.attention
    if by.ranks > 1 and attention.kind == "windowed" and attention.far != "none":
        raise UsageError(FAR_IS_ALONE, "use one process")
    if by.split:
        _check_split(config, by.ranks)
    elif by.ranks > 1 and attention.kind != "inattention" and not sees_plainly(config):
        raise UsageError(
            f"blocks are not defined for {config.family}: its layers have windows of their own, "
            "or caps on scores",
            "use one process, or --split-weights",
        )


def _check_split(config: ModelConfig, ranks: int) -> None:
    if ranks == 1:
        raise UsageError(
            "there is one process, with all weights", "start several: see nazx help ranks"
        )
    names = config.names
    if config.attention.kind == "inattention":
        raise UsageError(
            "weights are split of windowed and full models", "leave --split-weights out"
        )
    fused = len(names.qkv) < 3 or len(names.gate_up) < 1 + config.gated
    if fused or config.qk_norm == "all":
        raise UsageError(
            f"{config.family} is not split: it fuses matrices, or normalizes all heads together",
            "leave --split-weights out, or use a model of the Llama family",
        )
    counts = (config.num_heads, config.num_kv_heads, config.intermediate_size)
    if any(count % ranks for count in counts):
        fits = [str(n) for n in range(2, counts[1] + 1) if not any(c % n for c in counts)]
        raise UsageError(
            f"{counts[0]} heads, {counts[1]} of keys and {counts[2]:,} features between do not "
            f"divide by {ranks} processes",
            f"start {' or '.join(fits)}" if fits else "leave --split-weights out",
        )


def cut(start: int, stop: int, block: int) -> list[tuple[int, int]]:
    """(first, behind the last) of each block of positions ``start`` to ``stop``, in order."""
    starts = list(range(start, stop, block))
    if len(starts) > 1 and 2 * (stop - starts[-1]) < block:
        starts.pop()
    return list(zip(starts, [*starts[1:], stop], strict=True))


def anchor(start: int, block: int) -> int:
    """How many of the first positions a block that begins at ``start`` has before it."""
    return min(start, block)
