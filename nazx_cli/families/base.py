"""What makes a family: the names of its tensors, and where its arithmetic leaves Llama's.

Everything here is data about other people's checkpoints: no torch, no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nazx_cli.families.rope import RopeConfig, RopeKeys
from nazx_cli.foreign import Fields


@dataclass(frozen=True)
class Names:
    """Hugging Face's names of the tensors, by what they do; below ``layers`` from ``layers.N``.

    An empty name is a part that the family does not have. Query, key and value, and gate and
    up, are one matrix each where a family keeps them so, else one after another.
    """

    embed: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attention_norm: str = "input_layernorm"
    attention_norm_after: str = ""
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    q_norm: str = ""
    k_norm: str = ""
    out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    mlp_norm_after: str = ""
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"


NORMS_AROUND = Names(
    attention_norm_after="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_norm_after="post_feedforward_layernorm",
)
"""A family that normalizes both what goes into attention and feed-forward and what comes out."""


def with_qk_norms(names: Names) -> Names:
    """A family that normalizes queries and keys."""
    return replace(names, q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")


_WRITING = ("CausalLM", "ConditionalGeneration", "LMHead")

FULL, SLIDING = "full_attention", "sliding_attention"
"""What ``layer_types`` calls layers that see everything, and those that see a window."""


@dataclass(frozen=True)
class LayerKind:
    """How one layer's positions see those before them: the last ``window`` ones, itself included,
    or all; rotated by ``rope``, or not at all."""

    window: int | None = None
    rope: RopeConfig | None = None


@dataclass(frozen=True)
class Shape:
    """What of a configuration is read before its family is asked for more."""

    hidden_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    max_positions: int
    rope: RopeConfig


@dataclass(frozen=True)
class Family:
    """One model type of the Hub.

    fixed    fields of ``ModelConfig`` that all its models share
    read     further ones, from ``config.json`` and what is known already
    layers   the kind of every layer; all alike, with the whole context, where there is none
    rope     where its rotary settings are found, and their defaults
    assumed  values of keys that its published files leave out
    """

    name: str
    names: Names = field(default_factory=Names)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Fields, Shape], Mapping[str, Any]] = lambda fields, shape: {}
    layers: Callable[[Fields, Shape], tuple[LayerKind, ...]] | None = None
    rope: RopeKeys = field(default_factory=RopeKeys)
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6)
    activation: tuple[str, str] = ("hidden_act", "silu")
    tied: bool = False
    shares_keys: bool = True
    head_dim: int | None = None
    refused: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    gguf: Gguf | None = None

    def layer_kinds(self, fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
        """The kind of every layer."""
        if self.layers is not None:
            return self.layers(fields, shape)
        return (LayerKind(None, shape.rope),) * shape.num_layers

    def objection(self, data: Mapping[str, Any]) -> str | None:
        """What a ``config.json`` says that nothing here can run; None where there is nothing."""
        made_as = data.get("architectures")
        if isinstance(made_as, list) and made_as and not any(map(_writes, made_as)):
            return f"{made_as[0]!r:.60} is no model that writes text"
        for setting, value in {"is_causal": False, **self.refused}.items():
            if data.get(setting) == value:
                return f"{setting} is {value!r:.60}, which NazX cannot run"
        return None


def _writes(architecture: Any) -> bool:
    """Whether a class of that name says which token follows; others judge texts, or turn them into
    vectors."""
    return isinstance(architecture, str) and any(word in architecture for word in _WRITING)


class GgufMetadata(Protocol):
    """What a GGUF file says of its model, by keys below its architecture's name."""

    @property
    def names(self) -> frozenset[str]: ...

    def has(self, key: str) -> bool: ...

    def count(self, key: str, default: int | None = None) -> int: ...

    def number(self, key: str, default: float | None = None) -> float: ...

    def flag(self, key: str, default: bool) -> bool: ...


@dataclass(frozen=True)
class Gguf:
    """How llama.cpp keeps a family.

    architecture  its name there
    config        keys of ``config.json`` beyond the common ones, from the metadata
    pairs         whether query and key rows are ordered for interleaved rotary pairs
    by_head       whether a fused query-key-value has lost Hugging Face's order by head
    offset        what was added to the weights of norms
    refused       keys that only files of another family have, and that family's name
    """

    architecture: str
    config: Callable[[GgufMetadata], Mapping[str, Any]] = lambda file: {}
    pairs: bool = False
    by_head: bool = False
    offset: float = 0.0
    refused: Mapping[str, str] = field(default_factory=dict)


def window_of(fields: Fields, default: int | None = None) -> int | None:
    """``sliding_window``, where there is one."""
    if fields.data.get("sliding_window") is None:
        return default
    return fields.count("sliding_window", None)


def by_type(
    fields: Fields,
    shape: Shape,
    window: int | None,
    default: list[str],
    local: RopeConfig | None = None,
) -> tuple[LayerKind, ...]:
    """Kinds by ``layer_types``, or by the words ``default`` where the file has none: layers that
    see everything, and those that see a ``window``, rotated by ``local`` if they have their own."""
    kinds = {
        FULL: LayerKind(None, shape.rope),
        SLIDING: LayerKind(window, local or shape.rope),
    }
    words = fields.items("layer_types", str) or default
    if len(words) < shape.num_layers:
        raise fields.complain(f"layer_types names {len(words)} of {shape.num_layers} layers")
    for word in words:
        if word not in kinds:
            raise fields.complain(f"layer_types has {word!r:.60}; NazX knows {', '.join(kinds)}")
    return tuple(kinds[word] for word in words[: shape.num_layers])


def sliding(fields: Fields, shape: Shape) -> tuple[LayerKind, ...]:
    """Every layer with ``sliding_window``; what ``layer_types`` says is not asked for."""
    return (LayerKind(window_of(fields), shape.rope),) * shape.num_layers
