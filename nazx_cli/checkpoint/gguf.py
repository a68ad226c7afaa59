"""A GGUF file as a checkpoint of Hugging Face's names, orders and ``config.json``.

llama.cpp renames the tensors, orders query and key rows of some families for interleaved rotary
pairs where Hugging Face has half-split ones, puts a GPT-NeoX's query, key and value rows one after
the other where Hugging Face has them head by head, and adds 1 to Gemma's norms. Which family has
which of these is said in ``families``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.checkpoint.gguf_header import GgufHeader, GgufTensor, read_header
from nazx_cli.checkpoint.write import PendingTensor, tensor_bytes
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.families import FAMILIES
from nazx_cli.families.base import Family, Gguf, Names
from nazx_cli.foreign import FETCH_AGAIN, Fields, decimal, guarded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrange = Callable[[NDArray[Any]], NDArray[Any]]

ARCHITECTURES = {
    family.gguf.architecture: family for family in FAMILIES.values() if family.gguf is not None
}
"""Families by llama.cpp's names of them."""


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's order of the rows of a query or key projection.

    ``rows`` (heads * d, ...) has each head's dimensions as pairs (0, d/2), (1, d/2 + 1), ...;
    the result has them in their natural order 0, 1, ..., d - 1.
    """
    size = rows.shape[0]
    pairs = rows.reshape(heads, size // heads // 2, 2, -1)  # (H, d/2, 2, C)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def interleave_heads(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """From all queries, all keys, all values to each head's query, key and value."""
    stacked = rows.reshape(3, heads, rows.shape[0] // heads // 3, -1)  # (3, H, d, C)
    return stacked.swapaxes(0, 1).reshape(rows.shape)


def whole_model_names(names: Names) -> dict[str, str]:
    """Hugging Face's names by GGUF's of the tensors outside the layers."""
    return {"token_embd": names.embed, "output_norm": names.final_norm, "output": names.head}


def layer_names(names: Names) -> dict[str, str]:
    """Hugging Face's names by GGUF's of the tensors of a layer."""
    return {gguf: theirs for gguf, theirs in _layer_names(names) if theirs}


def _layer_names(names: Names) -> Iterator[tuple[str, str]]:
    yield "attn_norm", names.attention_norm
    yield "post_attention_norm", names.attention_norm_after
    yield "ffn_norm", names.mlp_norm
    yield "post_ffw_norm", names.mlp_norm_after
    yield "attn_q_norm", names.q_norm
    yield "attn_k_norm", names.k_norm
    stacked = ("attn_q", "attn_k", "attn_v") if len(names.qkv) == 3 else ("attn_qkv",)
    yield from zip(stacked, names.qkv, strict=True)
    yield "attn_output", names.out
    yield from zip(("ffn_gate", "ffn_up")[-len(names.gate_up) :], names.gate_up, strict=True)
    yield "ffn_down", names.down


_NORM_NAMES = (
    "output_norm",
    "attn_norm",
    "post_attention_norm",
    "ffn_norm",
    "post_ffw_norm",
    "attn_q_norm",
    "attn_k_norm",
)
_SCALES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_YARN = {"attn_factor": "attention_factor", "beta_fast": "beta_fast", "beta_slow": "beta_slow"}
_LAYER_NAME = re.compile(r"blk\.([0-9]{1,4})\.(\w+)\.(weight|bias)")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ELEMENTS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MOST_PAIRS = 4096
_ANOTHER_MODEL = "`nazx ls --all` lists models that NazX can run"
_TAKE_ANOTHER = "take the model's own safetensors checkpoint"


class GgufFile:
    """One opened file; tensors stay on the disk until they are read. ``fields`` is its metadata.

    ``dequantized`` is what quantized tensors become, F32 or BF16.
    """

    def __init__(
        self, path: Path, header: GgufHeader, architecture: str, dequantized: str = "F32"
    ) -> None:
        self.path, self._dequantized = path, dequantized
        self.architecture = architecture
        self.fields = Fields(header.metadata, self.damaged)
        self._tensors = header.tensors
        self._family = ARCHITECTURES[architecture]

    @classmethod
    def open(cls, path: Path, dequantized: str = "F32") -> GgufFile:
        """Parse the header; ``ModelUnavailableError`` if damaged or of no known architecture."""
        try:
            header = read_header(path)
        except (OSError, ValueError) as error:
            raise ModelUnavailableError(
                f"{path} is damaged or no GGUF file: {error}", FETCH_AGAIN
            ) from None
        architecture = header.metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
            raise ModelUnavailableError(
                f"{path} holds a model of the architecture {architecture!r:.60}",
                f"of GGUF files, NazX reads the architectures {', '.join(ARCHITECTURES)}",
            )
        return cls(path, header, architecture, dequantized)

    @property
    def family(self) -> Family:
        """The family that the model is of."""
        return self._family

    @property
    def _own(self) -> Gguf:
        found = self._family.gguf
        assert found is not None, "it was found by it"
        return found

    @property
    def names(self) -> frozenset[str]:
        """GGUF's names of the tensors."""
        return frozenset(self._tensors)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        shape = self._embedding.shape
        if len(shape) != 2:
            raise self.damaged(f"its token_embd.weight has {len(shape)} dimensions")
        return shape[0]

    @property
    def _embedding(self) -> GgufTensor:
        if "token_embd.weight" not in self._tensors:
            raise self.damaged("it has no token_embd.weight")
        return self._tensors["token_embd.weight"]

    def has(self, key: str) -> bool:
        """Whether the metadata say something of the architecture."""
        return self.fields.data.get(f"{self.architecture}.{key}") is not None

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture: ``context_length`` of ``llama.context_length``."""
        return self.fields.count(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the architecture."""
        return self.fields.number(f"{self.architecture}.{key}", default, 0.0, 1e12)

    def flag(self, key: str, default: bool) -> bool:
        """True or false, of the architecture."""
        return self.fields.flag(f"{self.architecture}.{key}", default)

    def token_id(self, name: str) -> int | None:
        """The id of the token for ``bos``, ``eos``, ... where the file names one."""
        key = f"tokenizer.ggml.{name}_token_id"
        if self.fields.data.get(key) is None:
            return None
        return self.fields.count(key, None, 0, self.vocab_size - 1)

    def config(self) -> dict[str, Any]:
        """The ``config.json`` of the model, in Hugging Face's keys."""
        self._refuse_relatives()
        hidden, heads = self.count("embedding_length"), self.count("attention.head_count")
        config: dict[str, Any] = {
            "model_type": self._family.name,
            "vocab_size": self.vocab_size,
            "hidden_size": hidden,
            "intermediate_size": self.count("feed_forward_length"),
            "num_hidden_layers": self.count("block_count"),
            "num_attention_heads": heads,
            "max_position_embeddings": self.count("context_length"),
            "tie_word_embeddings": "output.weight" not in self._tensors,
            "torch_dtype": _TORCH_DTYPES[self._stored_as(self._embedding)],
            "bos_token_id": self.token_id("bos"),
            "eos_token_id": self.token_id("eos"),
        }
        if self._family.shares_keys:
            config["num_key_value_heads"] = self.count("attention.head_count_kv", heads)
            head = self.count("attention.key_length", max(hidden // heads, 1))
            config["head_dim"] = head
            if (rotated := self.count("rope.dimension_count", head)) != head:
                config["partial_rotary_factor"] = rotated / head
            config["rope_theta"] = self.number("rope.freq_base", 10_000.0)
        if self._family.eps[0] == "rms_norm_eps":
            config["rms_norm_eps"] = decimal(self.number("attention.layer_norm_rms_epsilon"))
        config |= self._own.config(self)
        scaling = self._rope_scaling()
        return {**config, "rope_scaling": scaling} if scaling else config

    def _refuse_relatives(self) -> None:
        """Files of other families have the same architecture, and something that tells them."""
        for key, whose in self._own.refused.items():
            if self.has(key):
                raise ModelUnavailableError(
                    f"{self.path} holds a model of the family {whose}, which NazX cannot run",
                    _ANOTHER_MODEL,
                )
        if self.number("expert_count", 0.0):
            raise ModelUnavailableError(
                f"{self.path} holds a model of experts, which NazX cannot run", _ANOTHER_MODEL
            )
        if not self.flag("attention.causal", True):
            raise ModelUnavailableError(
                f"{self.path} holds a model that does not write: it looks ahead", _ANOTHER_MODEL
            )

    def tensors(self) -> list[PendingTensor]:
        """Every tensor under its Hugging Face name, rows in Hugging Face's order.

        F32, F16 and BF16 stay as they are. F32 is exact for quantized ones: rounded to F16,
        SmolLM2-135M's Q4_1 has logits that are 0.003 off on average and 0.04 at most.
        """
        kept = (tensor for name, tensor in self._tensors.items() if name not in _SCALES)
        return [self._pending(tensor) for tensor in kept]

    def _pending(self, tensor: GgufTensor) -> PendingTensor:
        name = self._hugging_face_name(tensor.name)
        arrange = self._arrangement(tensor)

        def load() -> memoryview:
            data = self._rows(tensor)
            try:
                data = arrange(data) if arrange else data
            except (ValueError, ZeroDivisionError):
                reason = (
                    f"{tensor.name} has {tensor.shape[0]:,} rows, which its heads do not divide"
                )
                raise self.damaged(reason) from None
            return self._bytes(tensor, data)

        return PendingTensor(name, self._stored_as(tensor), tensor.shape, load)

    def _stored_as(self, tensor: GgufTensor) -> str:
        """Element type that the tensor gets in the checkpoint, in safetensors' words."""
        return tensor.kind if tensor.kind in _TORCH_DTYPES else self._dequantized

    def _arrangement(self, tensor: GgufTensor) -> Arrange | None:
        """What puts the tensor's rows, or its numbers, as Hugging Face has them."""
        stem, own = tensor.name.split(".")[-2], self._own
        heads = self.count("attention.head_count")
        if own.pairs and stem == "attn_q":
            return lambda rows: unpermute(rows, heads)
        if own.pairs and stem == "attn_k":
            shared = self.count("attention.head_count_kv", heads)
            return lambda rows: unpermute(rows, shared)
        if own.by_head and stem == "attn_qkv":
            return lambda rows: interleave_heads(rows, heads)
        if own.offset and stem in _NORM_NAMES:
            if tensor.kind != "F32":
                raise self.damaged(f"{tensor.name} is kept as {tensor.kind}, F32 is wanted")
            return lambda numbers: numbers - own.offset
        return None

    def _rows(self, tensor: GgufTensor) -> NDArray[Any]:
        """The tensor as it lies in the file: elements, or bytes of the blocks of each row."""
        import numpy as np

        kind = _ELEMENTS.get(tensor.kind, "u1")
        shape = tensor.shape if tensor.kind in _ELEMENTS else (*tensor.shape[:-1], -1)
        try:
            flat = np.fromfile(self.path, np.uint8, count=tensor.nbytes, offset=tensor.start)
        except OSError as error:
            raise self.damaged(f"{tensor.name} cannot be read: {error}") from None
        if len(flat) != tensor.nbytes:
            raise self.damaged(f"it ends before its tensor {tensor.name} does")
        return flat.view(kind).reshape(shape)

    def _bytes(self, tensor: GgufTensor, data: NDArray[Any]) -> memoryview:
        import numpy as np
        import torch
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        if tensor.kind not in _TORCH_DTYPES:
            what = f"{self.path}: {tensor.name}, which is kept as {tensor.kind}, cannot be read"
            with guarded(what, _TAKE_ANOTHER), np.errstate(all="ignore"):
                data = dequantize(data, GGMLQuantizationType[tensor.kind])
                data = data.astype(np.float32, copy=False)
            if not np.isfinite(data).all():
                raise self.damaged(f"{tensor.name} holds values beyond any real weight")
            if self._dequantized == "BF16":
                return tensor_bytes(torch.from_numpy(data).bfloat16())
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data

    def _hugging_face_name(self, name: str) -> str:
        base, _, kind = name.rpartition(".")
        names = self._family.names
        whole, layer = whole_model_names(names), layer_names(names)
        if base in whole and kind in ("weight", "bias"):
            return f"{whole[base]}.{kind}"
        match = _LAYER_NAME.fullmatch(name)
        if match and match[2] in layer:
            return f"{names.layers}.{int(match[1])}.{layer[match[2]]}.{match[3]}"
        raise ModelUnavailableError(
            f"{self.path}: the tensor {name} does not belong to a plain {self.architecture} model",
            _TAKE_ANOTHER,
        )

    def _rope_scaling(self) -> dict[str, Any] | None:
        """Settings of the metadata, or factors by frequency that are kept as tensors."""
        kind = self.fields.text(f"{self.architecture}.rope.scaling.type")
        original = {}
        if self.has("rope.scaling.original_context_length"):
            count = self.count("rope.scaling.original_context_length")
            original = {"original_max_position_embeddings": count}
        if "rope_factors_long.weight" in self._tensors:
            factors = {
                "short_factor": self._numbers("rope_factors_short.weight"),
                "long_factor": self._numbers("rope_factors_long.weight"),
            }
            scale = self.number("rope.scaling.attn_factor", 0.0)
            more = {"attention_factor": scale} if scale else {}
            return {"rope_type": "longrope", **factors, **more, **original}
        if "rope_freqs.weight" in self._tensors:  # Llama 3: the same factors at any length
            same = self._numbers("rope_freqs.weight")
            both = {"short_factor": same, "long_factor": same}
            return {"rope_type": "longrope", **both, "attention_factor": 1.0, **original}
        if kind in (None, "none"):
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": self.number("rope.scaling.factor")}
        if kind == "yarn":
            factor = {"factor": self.number("rope.scaling.factor")}
            return {"rope_type": "yarn", **factor, **self._yarn(), **original}
        raise ModelUnavailableError(
            f"{self.path}: its rotary scaling {kind!r:.60} cannot be read from GGUF", _TAKE_ANOTHER
        )

    def _yarn(self) -> dict[str, float]:
        """What a file says of yarn beyond its factor, by Hugging Face's names."""
        found = {name: f"rope.scaling.yarn_{key}" for key, name in _YARN.items()}
        return {name: self.number(key) for name, key in found.items() if self.has(key)}

    def _numbers(self, name: str) -> list[float]:
        if name not in self._tensors:
            raise self.damaged(f"it has no {name}")
        tensor = self._tensors[name]
        of_numbers = tensor.kind in ("F32", "F16") and len(tensor.shape) == 1
        if not of_numbers or tensor.shape[0] > _MOST_PAIRS:
            raise self.damaged(f"its {name} is no list of factors")
        return [float(number) for number in self._rows(tensor)]

    def damaged(self, reason: str) -> ModelUnavailableError:
        """The error for a file with which something is wrong: ``reason``."""
        return ModelUnavailableError(f"{self.path} is damaged: {reason}", FETCH_AGAIN)
