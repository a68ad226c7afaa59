"""The frozen description of a model: read from ``config.json``, validated, written back.

Reads Hugging Face's keys, old and new, of the families in ``families``, and NazX's own
``attention`` entry (docs: `nazx help checkpoints`). Everything is checked here, before anything is
allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.families import FAMILIES, TEXT_PARTS
from nazx_cli.families.base import FULL, Family, LayerKind, Names, Shape
from nazx_cli.families.rope import RopeConfig, read_rope
from nazx_cli.foreign import Fields, read_object
from nazx_cli.names import DEFAULT_SINKS, FAR_UPDATES

ATTENTION_KINDS = ("inattention", "windowed", "full")
FAR_KINDS = ("none", "inattention", "infini")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu")

MAX_VOCABULARY = 4_000_000
MAX_INITIAL_WINDOW = 4
MAX_FAR_RANK, MAX_FAR_WINDOW, MAX_FAR_AROUND, MAX_FAR_SEGMENT = 1024, 64, 4096, 1 << 16

# The largest value that any published model comes near, with room; beyond it a file is broken.
_LIMITS = {
    "vocab_size": MAX_VOCABULARY,
    "hidden_size": 65_536,
    "num_hidden_layers": 1_024,
    "num_attention_heads": 1_024,
    "num_key_value_heads": 1_024,
    "intermediate_size": 1_048_576,
    "head_dim": 4_096,
    "max_position_embeddings": 1 << 31,
}
_MAX_PARAMETERS = 2_000_000_000_000
_OF_ALL = ("torch_dtype", "dtype", "eos_token_id", "bos_token_id", "tie_word_embeddings")
_DAMAGED = "the checkpoint is damaged; fetch it again"
_ANOTHER = "take another; nazx ls --all names some that run"


class ConfigError(ModelUnavailableError):
    """A ``config.json`` that cannot be used."""


@dataclass(frozen=True)
class AttentionConfig:
    """What a position attends to; window and sinks count positions and serve ``windowed`` only.

    ``initial_window`` is how many tokens an initial state sees, its own included. What else begins
    with ``far`` describes the far memory of that kind: see ``model.far``.
    """

    kind: str = "full"
    local_window: int = 0
    sink_tokens: int = 0
    far: str = "none"
    initial_window: int = 1
    far_rank: int = 0
    far_window: int = 0
    far_around: int = 0
    far_segment: int = 0
    far_update: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The ``attention`` entry of ``config.json``."""
        entry = asdict(self)
        if self.initial_window == 1:
            del entry["initial_window"]
        if self.kind != "windowed":
            for key in ("local_window", "sink_tokens", "far"):
                del entry[key]
        described = _FAR_FIELDS[self.far]
        for key in [key for key in entry if key.startswith("far_") and key not in described]:
            del entry[key]
        return entry


def as_trained(positions: int, sinks: int = DEFAULT_SINKS) -> AttentionConfig:
    """Windowed attention that is full attention within the ``positions`` of a model's training."""
    return AttentionConfig("windowed", max(1, positions - sinks), sinks)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a decoder's arithmetic; ``raw`` keeps the file it was read from.

    norm, norm_offset   ``rms`` or ``layer``; what is added to the weights of all norms
    heads_interleaved   a fused query-key-value has its rows head by head
    qk_norm             queries and keys are normalized: each ``head``, or ``all`` together
    *_scale, *_cap      factors of embeddings, residuals, logits and scores; the largest values
                        that scores and logits come near by way of a tanh
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    activation: str
    parallel_residual: bool
    tie_embeddings: bool
    max_positions: int
    rope: RopeConfig
    layer_kinds: tuple[LayerKind, ...]
    attention: AttentionConfig
    norm: str = "rms"
    norm_offset: float = 0.0
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    heads_interleaved: bool = False
    qk_norm: str | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float | None = None
    attention_scale: float = 1.0
    attention_cap: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def names(self) -> Names:
        """What its tensors are called in a checkpoint."""
        return FAMILIES[self.family].names

    @property
    def norms(self) -> int:
        """Norms of the size of a state in each layer."""
        names = self.names
        return sum(
            bool(name)
            for name in (
                names.attention_norm,
                names.attention_norm_after,
                names.mlp_norm,
                names.mlp_norm_after,
            )
        )

    @property
    def attends_plainly(self) -> bool:
        """Whether attention is what InAttention is defined on: keys are a projection of a
        normalized state, rotated alike in all layers, and scores are their plain products."""
        return (
            bool(self.names.attention_norm)
            and not self.names.attention_norm_after
            and self.qk_norm is None
            and self.attention_cap is None
            and self.norm_offset == 0.0
            and self.embedding_scale == 1.0
            and math.isclose(self.attention_scale, self.head_dim**-0.5)
            and all(kind == LayerKind(None, self.rope) for kind in self.layer_kinds)
        )

    @property
    def prefers_resident(self) -> bool:
        """Whether documents are best attended to as a whole: a far memory finds less than recall
        does."""
        return self.attention.kind == "inattention"

    @property
    def window(self) -> int | None:
        """Live tokens attended to at once: sinks and window, the trained length of a ``full``
        model, or None for InAttention."""
        kind = self.attention
        if kind.kind == "windowed":
            return kind.local_window + kind.sink_tokens
        return None if kind.kind == "inattention" else self.max_positions

    @property
    def num_parameters(self) -> int:
        """Weights of the decoder, counted once where input and output embeddings are tied."""
        c, d = self.hidden_size, self.head_dim
        q, kv = self.num_heads * d, self.num_kv_heads * d
        attention = c * (q + 2 * kv) + q * c
        mlp_matrices = 3 if self.gated else 2
        mlp = mlp_matrices * c * self.intermediate_size
        per_norm = c if self.norm == "rms" else 2 * c
        biases = (q + 2 * kv) * self.qkv_bias + c * self.out_bias
        biases += ((mlp_matrices - 1) * self.intermediate_size + c) * self.mlp_bias
        qk_norms = {None: 0, "head": 2 * d, "all": q + kv}[self.qk_norm]
        embeddings = self.vocab_size * c * (1 if self.tie_embeddings else 2)
        layers = self.num_layers * (attention + mlp + self.norms * per_norm + biases + qk_norms)
        window = self.attention.initial_window
        convolution = window * c if window > 1 else 0
        return embeddings + convolution + layers + per_norm

    def to_dict(self) -> dict[str, Any]:
        """The ``config.json`` of a NazX checkpoint: the base family's keys plus NazX's own."""
        return {
            **self.raw,
            "model_type": "nazx",
            "base_model_type": self.family,
            "attention": self.attention.to_dict(),
        }

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read ``folder/config.json``; ``ModelUnavailableError`` says what is wrong with it."""
        try:
            data = read_object(
                folder / "config.json",
                "the folder is no usable checkpoint; fetch the model again",
            )
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} is no checkpoint: it has no config.json",
                "name a folder with config.json, model.safetensors and tokenizer.json",
            ) from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> ModelConfig:
        """Build and validate a configuration from the parsed ``config.json``."""
        if not isinstance(data, dict):
            raise ConfigError("config.json does not hold a JSON object", "fetch the model again")
        data = _text_part(data)
        family = _family(data)
        data = {**family.assumed, **data}
        reader = _fields(data)
        shape, kv_heads = _shape(reader, family)
        arithmetic = {
            "activation": reader.choice(family.activation[0], ACTIVATIONS, family.activation[1]),
            "parallel_residual": False,
            "attention_scale": shape.head_dim**-0.5,
            **family.fixed,
            **family.read(reader, shape),
        }
        config = cls(
            family=family.name,
            vocab_size=_size(reader, "vocab_size"),
            hidden_size=shape.hidden_size,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            num_kv_heads=kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=_size(reader, "intermediate_size"),
            norm_eps=reader.number(*family.eps, 1e-12, 1.0),
            tie_embeddings=reader.flag("tie_word_embeddings", family.tied),
            max_positions=shape.max_positions,
            rope=shape.rope,
            layer_kinds=family.layer_kinds(reader, shape),
            attention=_attention(data),
            raw=dict(data),
            **arithmetic,
        )
        config._check()
        return config

    def _check(self) -> None:
        if self.num_parameters > _MAX_PARAMETERS:
            raise ConfigError(
                f"config.json describes {self.num_parameters:,} weights, beyond any real model",
                _DAMAGED,
            )
        window = self.attention.initial_window
        if window > 1 and (self.vocab_size + 1) ** window >= 1 << 63:
            raise ConfigError(
                f"config.json: initial_window {window} with {self.vocab_size:,} tokens has more "
                "combinations than NazX can number",
                f"use {window - 1} at most, or a smaller vocabulary",
            )
        if self.attention.kind == "inattention" and not self.attends_plainly:
            raise ConfigError(
                f"config.json: InAttention is not defined for {self.family} with these settings",
                'use "attention": {"kind": "full"}, or a model that attends as Llama does',
            )


def _fields(
    data: Mapping[str, Any], hint: str = "correct it, fetch the model again, or take another"
) -> Fields:
    def complain(what: str) -> ConfigError:
        return ConfigError(f"config.json: {what}", hint)

    return Fields(data, complain)


def _size(reader: Fields, key: str, default: int | None = None) -> int:
    return reader.count(key, default, 1, _LIMITS[key])


def _family(data: Mapping[str, Any]) -> Family:
    """The family that a file names; a setting of it that is not supported is refused by name."""
    key = "base_model_type" if data.get("model_type") == "nazx" else "model_type"
    family = FAMILIES[_fields(data, _ANOTHER).choice(key, tuple(FAMILIES))]
    if data.get("quantization_config") is not None:
        raise ConfigError(
            "config.json: the weights are quantized in a form that NazX does not read",
            "take the original model and add --quantize int8 or nf4",
        )
    if reason := family.objection(data):
        raise ConfigError(f"config.json: {reason}", _ANOTHER)
    return family


def _text_part(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model that sees pictures too what concerns its text, in the keys of its family."""
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        return dict(data)
    inner = data.get("text_config")
    if not isinstance(inner, dict):
        raise ConfigError(f"config.json: a model of type {kind} needs a text_config", _DAMAGED)
    outer = {key: data[key] for key in _OF_ALL if key in data}
    return {**outer, **inner, "model_type": TEXT_PARTS[kind]}


def _shape(reader: Fields, family: Family) -> tuple[Shape, int]:
    """Sizes and rotation, and the number of key/value heads."""
    hidden, heads = _size(reader, "hidden_size"), _size(reader, "num_attention_heads")
    kv_heads = _size(reader, "num_key_value_heads", heads) if family.shares_keys else heads
    own = family.head_dim
    if own is None and reader.data.get("head_dim") is None and hidden % heads:
        raise ConfigError(
            f"config.json: hidden_size {hidden} is not a multiple of {heads} heads", _DAMAGED
        )
    head_dim = hidden // heads
    if family.shares_keys:
        head_dim = _size(reader, "head_dim", own or head_dim)
    if heads % kv_heads:
        raise ConfigError(
            f"config.json: {heads} heads cannot share {kv_heads} key/value heads", _DAMAGED
        )
    positions = _size(reader, "max_position_embeddings", 2048)
    rope = read_rope(reader, family.rope, head_dim, positions, FULL)
    layers = _size(reader, "num_hidden_layers")
    return Shape(hidden, layers, heads, head_dim, positions, rope), kv_heads


def _attention(data: Mapping[str, Any]) -> AttentionConfig:
    entry = data.get("attention")
    if data.get("model_type") != "nazx":
        return AttentionConfig("full")
    if not isinstance(entry, dict):
        raise ConfigError(
            "config.json: a NazX checkpoint needs an 'attention' entry",
            'for instance "attention": {"kind": "inattention"}',
        )
    reader = _fields(entry)
    kind = reader.choice("kind", ATTENTION_KINDS, None)
    if kind != "windowed":
        most = MAX_INITIAL_WINDOW if kind == "inattention" else 1
        return AttentionConfig(kind, initial_window=reader.count("initial_window", 1, 1, most))
    window = reader.count("local_window", None, minimum=1)
    found = AttentionConfig(kind, window, reader.count("sink_tokens", 0, minimum=0))
    return with_far(found, entry)


def with_far(attention: AttentionConfig, data: Mapping[str, Any]) -> AttentionConfig:
    """``attention`` with the far memory that ``data`` describes, by the keys of ``config.json``, in
    place of any that it has.

    ``ConfigError`` where it is none that this version can run.
    """
    reader = _fields(data)
    far = reader.choice("far", FAR_KINDS, "none")
    described = {name: read(reader) for name, read in _FAR_FIELDS[far].items()}
    others = {each.name: each.default for each in fields(AttentionConfig) if "far_" in each.name}
    return replace(attention, far=far, **{**others, **described})


def with_memory(config: ModelConfig, data: Mapping[str, Any]) -> ModelConfig:
    """``config`` with the far memory that ``data`` describes; errors as ``with_far``."""
    return replace(config, attention=with_far(config.attention, data))


def _rank(least: int) -> Callable[[Fields], int]:
    return lambda reader: reader.count("far_rank", None, least, MAX_FAR_RANK)


_FAR_FIELDS: Mapping[str, Mapping[str, Callable[[Fields], Any]]] = {
    "none": {},
    "inattention": {
        "far_rank": _rank(1),
        "far_window": lambda reader: reader.count("far_window", None, 1, MAX_FAR_WINDOW),
        "far_around": lambda reader: reader.count("far_around", 0, 0, MAX_FAR_AROUND),
    },
    "infini": {
        "far_rank": _rank(0),
        "far_segment": lambda reader: reader.count("far_segment", None, 1, MAX_FAR_SEGMENT),
        "far_update": lambda reader: reader.choice("far_update", tuple(FAR_UPDATES)),
    },
}
"""What describes a far memory of each kind, and how it is read."""
