"""Which checkpoint tensors make up each parameter of the decoder, family by family.

Checkpoints keep the base family's Hugging Face names and one matrix per projection (or, in
GPT-NeoX, query, key and value interleaved by head); the decoder stacks what it multiplies
together. A family is one function here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    Arrange = Callable[[list[Tensor]], Tensor]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """One decoder parameter: its name, the tensors it is made of, and how they are joined."""

    parameter: str
    sources: tuple[tuple[str, Shape], ...]
    arrange: Arrange | None = None

    @property
    def is_block_matrix(self) -> bool:
        """Whether it is one of those that are quantized: a matrix of a block."""
        return self.parameter.startswith("blocks.") and len(self.sources[0][1]) == 2

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in) of a matrix."""
        return sum(shape[0] for _, shape in self.sources), self.sources[0][1][1]

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """The parameter, put together, in the type it is stored in."""
        tensors = [checkpoint.read(name) for name, _ in self.sources]
        return self.arrange(tensors) if self.arrange else tensors[0]


def recipes(config: ModelConfig) -> Iterator[Recipe]:
    """Every parameter of the decoder, layer by layer."""
    yield from _FAMILIES[config.family](config)


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor that a checkpoint of this configuration must hold, with its shape."""
    return {name: shape for recipe in recipes(config) for name, shape in recipe.sources}


def _gpt_neox(config: ModelConfig) -> Iterator[Recipe]:
    c, inner, v = config.hidden_size, config.intermediate_size, config.vocab_size

    def split_heads(tensors: list[Tensor]) -> Tensor:
        """(heads, [q, k, v], D, ...) to ([q, k, v], heads, D, ...)."""
        (qkv,) = tensors
        by_head = qkv.view(config.num_heads, 3, config.head_dim, *qkv.shape[1:])
        return by_head.transpose(0, 1).reshape(qkv.shape)

    yield _one("embed.weight", "gpt_neox.embed_in.weight", (v, c))
    for i in range(config.num_layers):
        to, of = f"blocks.{i}.", f"gpt_neox.layers.{i}."
        for mine, theirs in (("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm")):
            yield _one(f"{to}{mine}.weight", f"{of}{theirs}.weight", (c,))
            yield _one(f"{to}{mine}.bias", f"{of}{theirs}.bias", (c,))
        fused = f"{of}attention.query_key_value."
        yield Recipe(f"{to}qkv.weight", ((f"{fused}weight", (3 * c, c)),), split_heads)
        if config.attention_bias:
            yield Recipe(f"{to}qkv.bias", ((f"{fused}bias", (3 * c,)),), split_heads)
        yield from _linear(f"{to}out", f"{of}attention.dense", c, c, config.attention_bias)
        yield from _linear(f"{to}mlp.up", f"{of}mlp.dense_h_to_4h", inner, c, True)
        yield from _linear(f"{to}mlp.down", f"{of}mlp.dense_4h_to_h", c, inner, True)
    yield _one("final_norm.weight", "gpt_neox.final_layer_norm.weight", (c,))
    yield _one("final_norm.bias", "gpt_neox.final_layer_norm.bias", (c,))
    if not config.tie_embeddings:
        yield _one("head.weight", "embed_out.weight", (v, c))


def _llama(config: ModelConfig) -> Iterator[Recipe]:
    c, inner, v = config.hidden_size, config.intermediate_size, config.vocab_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield _one("embed.weight", "model.embed_tokens.weight", (v, c))
    for i in range(config.num_layers):
        to, of = f"blocks.{i}.", f"model.layers.{i}."
        yield _one(f"{to}norm1.weight", f"{of}input_layernorm.weight", (c,))
        yield _one(f"{to}norm2.weight", f"{of}post_attention_layernorm.weight", (c,))
        stack = (("q_proj", q), ("k_proj", kv), ("v_proj", kv))
        yield from _stacked(f"{to}qkv", f"{of}self_attn.", stack, c, config.attention_bias)
        yield from _linear(f"{to}out", f"{of}self_attn.o_proj", c, q, config.attention_bias)
        for mine, rows, columns in (("gate", inner, c), ("up", inner, c), ("down", c, inner)):
            theirs = f"{of}mlp.{mine}_proj"
            yield from _linear(f"{to}mlp.{mine}", theirs, rows, columns, config.mlp_bias)
    yield _one("final_norm.weight", "model.norm.weight", (c,))
    if not config.tie_embeddings:
        yield _one("head.weight", "lm_head.weight", (v, c))


def _one(parameter: str, name: str, shape: Shape) -> Recipe:
    return Recipe(parameter, ((name, shape),))


def _linear(parameter: str, name: str, rows: int, columns: int, bias: bool) -> Iterator[Recipe]:
    yield _one(f"{parameter}.weight", f"{name}.weight", (rows, columns))
    if bias:
        yield _one(f"{parameter}.bias", f"{name}.bias", (rows,))


def _stacked(
    parameter: str, prefix: str, rows: tuple[tuple[str, int], ...], columns: int, bias: bool
) -> Iterator[Recipe]:
    def join(tensors: list[Tensor]) -> Tensor:
        import torch

        return torch.cat(tensors)

    weights = tuple((f"{prefix}{name}.weight", (n, columns)) for name, n in rows)
    yield Recipe(f"{parameter}.weight", weights, join)
    if bias:
        yield Recipe(
            f"{parameter}.bias", tuple((f"{prefix}{name}.bias", (n,)) for name, n in rows), join
        )


_FAMILIES: dict[str, Callable[[ModelConfig], Iterator[Recipe]]] = {
    "gpt_neox": _gpt_neox,
    "llama": _llama,
}
