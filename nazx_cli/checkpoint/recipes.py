"""Which checkpoint tensors make up each parameter of the decoder, by its family's names.

Checkpoints keep one matrix per projection, or some of them fused; the decoder stacks what it
multiplies together: query, key and value, gate and up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from nazx_cli.model.split import Part

    Arrange = Callable[[list[Tensor]], Tensor]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """One decoder parameter: its name, the tensors it is made of, and how they are joined.

    ``offset`` is added to it; it is then kept in float32, whatever is computed in.
    """

    parameter: str
    sources: tuple[tuple[str, Shape], ...]
    arrange: Arrange | None = None
    offset: float = 0.0

    @property
    def layer(self) -> int | None:
        """The layer that it is of; None outside them."""
        parts = self.parameter.split(".")
        return int(parts[1]) if parts[0] == "blocks" else None

    @property
    def is_block_matrix(self) -> bool:
        """Whether it is one of those that are quantized: a matrix of a block."""
        return self.parameter.startswith("blocks.") and len(self.sources[0][1]) == 2

    @property
    def shape(self) -> Shape:
        """The parameter's: the rows of its sources, one after another."""
        return sum(shape[0] for _, shape in self.sources), *self.sources[0][1][1:]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in) of a matrix."""
        rows, columns = self.shape
        return rows, columns

    def read(
        self, checkpoint: Checkpoint, part: Part | None = None, wanted: dtype | None = None
    ) -> Tensor:
        """The parameter, put together, on the CPU in the type ``wanted``, else in the one that it
        is stored in. Rows that are only stacked are read in their places."""
        import torch

        from nazx_cli.model.pages import empty

        kept = wanted or self._type_in(checkpoint)
        if part is not None:
            return self._joined(checkpoint, part).to(kept)
        out = empty(self.shape, kept, torch.device("cpu"))
        if self.arrange not in (None, _join) or self.offset:
            return out.copy_(self._joined(checkpoint))
        at = 0
        for name, shape in self.sources:
            checkpoint.read_into(name, out[at : at + shape[0]])
            at += shape[0]
        return out

    def _joined(self, checkpoint: Checkpoint, part: Part | None = None) -> Tensor:
        """The parameter in the type it is stored in; a ``part`` of it is put together of the same
        part of each source. For a part of the columns all of a matrix is read, since in the file
        they lie side by side."""
        tensors = []
        for name, shape in self.sources:
            own = slice(None) if part is None else part.of(shape)
            if part is None or part.axis == 0:
                tensors.append(checkpoint.read(name, None if part is None else own))
            else:
                tensors.append(checkpoint.read(name)[:, own])
        joined = self.arrange(tensors) if self.arrange else tensors[0]
        return joined.float() + self.offset if self.offset else joined

    def _type_in(self, checkpoint: Checkpoint) -> dtype:
        import torch

        found = (checkpoint.type_of(name) for name, _ in self.sources)
        return torch.float32 if self.offset else reduce(torch.promote_types, found)


def recipes(config: ModelConfig) -> Iterator[Recipe]:
    """Every parameter of the decoder, layer by layer."""
    names, c, v = config.names, config.hidden_size, config.vocab_size
    yield _one("embed.weight", f"{names.embed}.weight", (v, c))
    if (window := config.attention.initial_window) > 1:
        yield _one("initial_conv.weight", "initial_conv.weight", (window, c))
    for i in range(config.num_layers):
        to, of = f"blocks.{i}.", f"{names.layers}.{i}."
        for mine, theirs in (
            ("norm1", names.attention_norm),
            ("norm1_after", names.attention_norm_after),
            ("norm2", names.mlp_norm),
            ("norm2_after", names.mlp_norm_after),
        ):
            if theirs:
                yield from _norm(config, f"{to}{mine}", f"{of}{theirs}", c)
        yield from _attention(config, to, of)
        yield from _feed_forward(config, to, of)
    yield from _norm(config, "final_norm", names.final_norm, c)
    if not config.tie_embeddings:
        yield _one("head.weight", f"{names.head}.weight", (v, c))
    yield from far_recipes(config)


def far_recipes(config: ModelConfig) -> Iterator[Recipe]:
    """The parameters of the far memory, where there is one."""
    for name, shape in _FAR_SHAPES[config.attention.far](config).items():
        yield _one(f"far.{name}", f"far.{name}", shape)


def _of_inattention(config: ModelConfig) -> dict[str, Shape]:
    attention, c = config.attention, config.hidden_size
    parts = attention.far_window + (attention.far_around > 0)
    matrices = dict.fromkeys(("keys", "queries", "state"), (parts, attention.far_rank, c))
    return {**matrices, "null": (c,), "bias": (2,)}


def _of_infini(config: ModelConfig) -> dict[str, Shape]:
    layers, rank, d = config.num_layers, config.attention.far_rank, config.head_dim
    shared = (layers, config.num_kv_heads * d, rank)
    return {
        "gates": (layers, config.num_heads),
        "down": (layers, 3 * rank, config.hidden_size),
        "query": (layers, config.num_heads * d, rank),
        "key": shared,
        "value": shared,
    }


_FAR_SHAPES: dict[str, Callable[[ModelConfig], dict[str, Shape]]] = {
    "none": lambda config: {},
    "inattention": _of_inattention,
    "infini": _of_infini,
}


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor that a checkpoint of this configuration must hold, with its shape."""
    return {name: shape for recipe in recipes(config) for name, shape in recipe.sources}


def _attention(config: ModelConfig, to: str, of: str) -> Iterator[Recipe]:
    names, c, d = config.names, config.hidden_size, config.head_dim
    q, kv = config.num_heads * d, config.num_kv_heads * d
    rows = (q, kv, kv)

    def by_part(tensors: list[Tensor]) -> Tensor:
        """(heads, [q, k, v], D, ...) to ([q, k, v], heads, D, ...)."""
        (qkv,) = tensors
        by_head = qkv.view(config.num_heads, 3, d, *qkv.shape[1:])
        return by_head.transpose(0, 1).reshape(qkv.shape)

    arrange = by_part if config.heads_interleaved else None
    yield from _linear(f"{to}qkv", of, names.qkv, rows, c, config.qkv_bias, arrange)
    yield from _linear(f"{to}out", of, (names.out,), (c,), q, config.out_bias)
    if config.qk_norm is not None:
        sizes = (d, d) if config.qk_norm == "head" else (q, kv)
        for mine, theirs, size in zip(
            ("q_norm", "k_norm"), (names.q_norm, names.k_norm), sizes, strict=True
        ):
            yield from _norm(config, f"{to}{mine}", f"{of}{theirs}", size)


def _feed_forward(config: ModelConfig, to: str, of: str) -> Iterator[Recipe]:
    names, c, inner = config.names, config.hidden_size, config.intermediate_size
    rows = (inner, inner) if config.gated else (inner,)
    yield from _linear(f"{to}mlp.up", of, names.gate_up, rows, c, config.mlp_bias)
    yield from _linear(f"{to}mlp.down", of, (names.down,), (c,), inner, config.mlp_bias)


def _norm(config: ModelConfig, parameter: str, name: str, size: int) -> Iterator[Recipe]:
    weight = ((f"{name}.weight", (size,)),)
    yield Recipe(f"{parameter}.weight", weight, offset=config.norm_offset)
    if config.norm == "layer":
        yield _one(f"{parameter}.bias", f"{name}.bias", (size,))


def _one(parameter: str, name: str, shape: Shape) -> Recipe:
    return Recipe(parameter, ((name, shape),))


def _linear(
    parameter: str,
    prefix: str,
    names: Sequence[str],
    rows: Sequence[int],
    columns: int,
    bias: bool,
    arrange: Arrange | None = None,
) -> Iterator[Recipe]:
    """Matrix and bias of what is stacked in the decoder and kept under one name or several."""
    counts = rows if len(names) == len(rows) else (sum(rows),)
    if len(names) > 1:
        arrange = _join
    for kind, shape in (("weight", (columns,)), ("bias", ())):
        if kind == "weight" or bias:
            sources = tuple(
                (f"{prefix}{name}.{kind}", (count, *shape))
                for name, count in zip(names, counts, strict=True)
            )
            yield Recipe(f"{parameter}.{kind}", sources, arrange)


def _join(tensors: list[Tensor]) -> Tensor:
    import torch

    return torch.cat(tensors)
