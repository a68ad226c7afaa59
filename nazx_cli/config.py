"""The frozen description of a model: read from ``config.json``, validated, written back.

Reads Hugging Face's ``gpt_neox`` and ``llama`` keys, old and new, and NazX's own ``attention``
entry (docs: README, "Checkpoints"). Everything is checked here, before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import Fields, read_object
from nazx_cli.names import DEFAULT_WINDOW

FAMILIES = ("gpt_neox", "llama")
ATTENTION_KINDS = ("inattention", "windowed", "full")
FAR_KINDS = ("none", "inattention", "infini")
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu")

MAX_VOCABULARY = 4_000_000

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
_DAMAGED = "the checkpoint is damaged; fetch it again"


class ConfigError(ModelUnavailableError):
    """A ``config.json`` that cannot be used."""


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position settings; ``dim`` is the number of rotated dimensions of a head."""

    dim: int
    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    original_positions: int = 2048
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class AttentionConfig:
    """What a position attends to; window and sinks count positions and serve ``windowed`` only."""

    kind: str = "full"
    local_window: int = 0
    sink_tokens: int = 0
    far: str = "none"

    def to_dict(self) -> dict[str, Any]:
        """The ``attention`` entry of ``config.json``."""
        return asdict(self) if self.kind == "windowed" else {"kind": self.kind}


DEFAULT_ATTENTION = AttentionConfig("windowed", DEFAULT_WINDOW, sink_tokens=4)
"""What a checkpoint of a base family is converted to where nothing else is asked for."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a decoder's arithmetic; ``raw`` keeps the file it was read from."""

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
    attention_bias: bool
    mlp_bias: bool
    max_positions: int
    rope: RopeConfig
    attention: AttentionConfig
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_parameters(self) -> int:
        """Weights of the decoder, counted once where input and output embeddings are tied."""
        c, d = self.hidden_size, self.head_dim
        q, kv = self.num_heads * d, self.num_kv_heads * d
        attention = c * (q + 2 * kv) + q * c
        mlp_matrices = 3 if self.family == "llama" else 2
        mlp = mlp_matrices * c * self.intermediate_size
        per_norm = c if self.family == "llama" else 2 * c
        biases = (q + 2 * kv + c) * self.attention_bias
        biases += ((mlp_matrices - 1) * self.intermediate_size + c) * self.mlp_bias
        embeddings = self.vocab_size * c * (1 if self.tie_embeddings else 2)
        layers = self.num_layers * (attention + mlp + 2 * per_norm + biases)
        return embeddings + layers + per_norm

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
        reader = _fields(data)
        family = _family(data)
        hidden = _size(reader, "hidden_size")
        heads = _size(reader, "num_attention_heads")
        kv_heads = _size(reader, "num_key_value_heads", heads) if family == "llama" else heads
        if data.get("head_dim") is None and hidden % heads:
            raise ConfigError(
                f"config.json: hidden_size {hidden} is not a multiple of {heads} heads", _DAMAGED
            )
        head_dim = hidden // heads
        if family == "llama":
            head_dim = _size(reader, "head_dim", head_dim)
        if heads % kv_heads:
            raise ConfigError(
                f"config.json: {heads} heads cannot share {kv_heads} key/value heads", _DAMAGED
            )
        max_positions = _size(reader, "max_position_embeddings", 2048)
        neox = family == "gpt_neox"
        norm = ("layer_norm_eps", 1e-5) if neox else ("rms_norm_eps", 1e-6)
        config = cls(
            family=family,
            vocab_size=_size(reader, "vocab_size"),
            hidden_size=hidden,
            num_layers=_size(reader, "num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=_size(reader, "intermediate_size"),
            norm_eps=reader.number(*norm, 1e-12, 1.0),
            activation=reader.choice("hidden_act", ACTIVATIONS, "gelu" if neox else "silu"),
            parallel_residual=reader.flag("use_parallel_residual", neox) if neox else False,
            tie_embeddings=reader.flag("tie_word_embeddings", False),
            attention_bias=reader.flag("attention_bias", neox),
            mlp_bias=True if neox else reader.flag("mlp_bias", False),
            max_positions=max_positions,
            rope=_rope(reader, family, head_dim, max_positions),
            attention=_attention(data),
            raw=dict(data),
        )
        if config.num_parameters > _MAX_PARAMETERS:
            raise ConfigError(
                f"config.json describes {config.num_parameters:,} weights, beyond any real model",
                _DAMAGED,
            )
        return config


def _fields(data: Mapping[str, Any]) -> Fields:
    def complain(what: str) -> ConfigError:
        return ConfigError(f"config.json: {what}", "correct it or fetch the model again")

    return Fields(data, complain)


def _size(reader: Fields, key: str, default: int | None = None) -> int:
    return reader.count(key, default, 1, _LIMITS[key])


def _family(data: Mapping[str, Any]) -> str:
    key = "base_model_type" if data.get("model_type") == "nazx" else "model_type"
    return _fields(data).choice(key, FAMILIES)


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
        return AttentionConfig(kind)
    far = reader.choice("far", FAR_KINDS, "none")
    if far != "none":
        raise ConfigError(
            f"config.json: this version of NazX cannot run the far memory {far!r} yet",
            'use a checkpoint with "far": "none"',
        )
    window = reader.count("local_window", None, minimum=1)
    return AttentionConfig(kind, window, reader.count("sink_tokens", 0, minimum=0), far)


def _rope(reader: Fields, family: str, head_dim: int, max_positions: int) -> RopeConfig:
    """Merge the new key (``rope_parameters``) with the older ones; the new one wins."""
    data = reader.data
    entry: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = data.get(key)
        if isinstance(value, dict):
            entry.update(value)
        elif value is not None:
            raise ConfigError(f"config.json: {key} is no JSON object", "fetch the model again")
    neox = family == "gpt_neox"
    theta = data.get("rope_theta")
    entry.setdefault("rope_theta", data.get("rotary_emb_base", theta) if neox else theta)
    share_key = "rotary_pct" if neox else "partial_rotary_factor"
    entry.setdefault("partial_rotary_factor", data.get(share_key))
    entry.setdefault("rope_type", entry.get("type"))
    original_key = "original_max_position_embeddings"
    if data.get(original_key) is not None:
        entry[original_key] = data[original_key]
    rope = _fields(entry)
    kind = rope.choice("rope_type", ROPE_TYPES, "default")
    share = rope.number("partial_rotary_factor", 0.25 if neox else 1.0, 0.0, 1.0)
    dim = int(head_dim * share)
    original = rope.count(original_key, max_positions)
    default_factor = max_positions / original if kind == "yarn" else None
    factor = 1.0 if kind == "default" else rope.number("factor", default_factor, 1.0, 1e6)
    if dim % 2:
        raise ConfigError(f"config.json: {dim} rotated dimensions cannot be paired", _DAMAGED)
    attention_factor = None
    if entry.get("attention_factor") is not None:
        attention_factor = rope.number("attention_factor", None, 1e-3, 1e3)
    return RopeConfig(
        dim=dim,
        theta=rope.number("rope_theta", 10_000.0, 1.0, 1e12),
        kind=kind,
        factor=factor,
        original_positions=original,
        low_freq_factor=rope.number("low_freq_factor", 1.0, 1e-6, 1e6),
        high_freq_factor=rope.number("high_freq_factor", 4.0, 1e-6, 1e6),
        beta_fast=rope.number("beta_fast", 32.0, 1e-6, 1e6) or 32.0,
        beta_slow=rope.number("beta_slow", 1.0, 1e-6, 1e6) or 1.0,
        mscale=rope.number("mscale", 0.0, 0.0, 1e3),
        mscale_all_dim=rope.number("mscale_all_dim", 0.0, 0.0, 1e3),
        attention_factor=attention_factor,
        truncate=rope.flag("truncate", True),
    )
