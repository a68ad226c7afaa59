"""How GGUF names and orders the tensors of each architecture; a further one is one entry here.

llama.cpp renames the tensors, orders a Llama's query and key rows for interleaved rotary pairs
where Hugging Face has half-split ones, and puts a GPT-NeoX's query, key and value rows one after
the other where Hugging Face has them head by head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.checkpoint.gguf_header import GgufHeader, GgufTensor, read_header
from nazx_cli.checkpoint.write import PendingTensor
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import FETCH_AGAIN, Fields, guarded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrange = Callable[[NDArray[Any], int], NDArray[Any]]


@dataclass(frozen=True)
class GgufFamily:
    """An architecture: Hugging Face's names by GGUF's, and its ``config.json``.

    ``arranged`` are the tensors whose rows are ordered otherwise: by GGUF name, how to put them
    right, and the metadata key of the number of heads that this takes.
    """

    prefix: str
    whole_model: Mapping[str, str]
    per_layer: Mapping[str, str]
    arranged: Mapping[str, tuple[Arrange, str]]
    config: Callable[[GgufFile], dict[str, Any]]


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


def decimal(value: float | np.float32) -> float:
    """A float32 as the short decimal that was meant: 1e-5, not 9.999999747378752e-06."""
    return float(f"{float(value):.6g}")


def _llama_config(file: GgufFile) -> dict[str, Any]:
    hidden, heads = file.count("embedding_length"), file.count("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_key_value_heads": file.count("attention.head_count_kv", heads),
        "head_dim": file.count("attention.key_length", max(hidden // heads, 1)),
        "hidden_act": "silu",
        "rms_norm_eps": decimal(file.number("attention.layer_norm_rms_epsilon")),
        "rope_theta": file.number("rope.freq_base", 10_000.0),
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_down.bias" in file.names,
    }


def _gpt_neox_config(file: GgufFile) -> dict[str, Any]:
    hidden, heads = file.count("embedding_length"), file.count("attention.head_count")
    size = max(hidden // heads, 1)
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "layer_norm_eps": decimal(file.number("attention.layer_norm_epsilon")),
        "rotary_emb_base": file.number("rope.freq_base", 10_000.0),
        "rotary_pct": file.count("rope.dimension_count") / size,
        "use_parallel_residual": file.fields.flag("gptneox.use_parallel_residual", True),
        "attention_bias": "blk.0.attn_qkv.bias" in file.names,
    }


FAMILIES = {
    "llama": GgufFamily(
        prefix="model.layers",
        whole_model={
            "token_embd": "model.embed_tokens",
            "output_norm": "model.norm",
            "output": "lm_head",
        },
        per_layer={
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        arranged={
            "attn_q": (unpermute, "attention.head_count"),
            "attn_k": (unpermute, "attention.head_count_kv"),
        },
        config=_llama_config,
    ),
    "gptneox": GgufFamily(
        prefix="gpt_neox.layers",
        whole_model={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
        per_layer={
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        arranged={"attn_qkv": (interleave_heads, "attention.head_count")},
        config=_gpt_neox_config,
    ),
}


_LAYER_NAME = re.compile(r"blk\.([0-9]{1,4})\.(\w+)\.(weight|bias)")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ELEMENTS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_TAKE_ANOTHER = "take the model's own safetensors checkpoint"


class GgufFile:
    """One opened file; tensors stay on the disk until they are read. ``fields`` is its metadata."""

    def __init__(self, path: Path, header: GgufHeader, architecture: str) -> None:
        self.path = path
        self.architecture = architecture
        self.fields = Fields(header.metadata, self.damaged)
        self._tensors = header.tensors
        self._family = FAMILIES[architecture]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Parse the header; ``ModelUnavailableError`` if damaged or of no known architecture."""
        try:
            header = read_header(path)
        except (OSError, ValueError) as error:
            raise ModelUnavailableError(
                f"{path} is damaged or no GGUF file: {error}", FETCH_AGAIN
            ) from None
        architecture = header.metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in FAMILIES:
            raise ModelUnavailableError(
                f"{path} holds a model of the architecture {architecture!r:.60}",
                f"of GGUF files, NazX reads the architectures {' and '.join(FAMILIES)}",
            )
        return cls(path, header, architecture)

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

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture: ``context_length`` of ``llama.context_length``."""
        return self.fields.count(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the architecture."""
        return self.fields.number(f"{self.architecture}.{key}", default, 0.0, 1e12)

    def token_id(self, name: str) -> int | None:
        """The id of the token for ``bos``, ``eos``, ... where the file names one."""
        key = f"tokenizer.ggml.{name}_token_id"
        if self.fields.data.get(key) is None:
            return None
        return self.fields.count(key, None, 0, self.vocab_size - 1)

    def config(self) -> dict[str, Any]:
        """The ``config.json`` of the model, in Hugging Face's keys."""
        config = {
            **self._family.config(self),
            "vocab_size": self.vocab_size,
            "hidden_size": self.count("embedding_length"),
            "intermediate_size": self.count("feed_forward_length"),
            "num_hidden_layers": self.count("block_count"),
            "max_position_embeddings": self.count("context_length"),
            "tie_word_embeddings": "output.weight" not in self._tensors,
            "torch_dtype": _TORCH_DTYPES[_stored_as(self._embedding)],
            "bos_token_id": self.token_id("bos"),
            "eos_token_id": self.token_id("eos"),
        }
        scaling = self._rope_scaling()
        return {**config, "rope_scaling": scaling} if scaling else config

    def tensors(self) -> list[PendingTensor]:
        """Every tensor under its Hugging Face name, rows in Hugging Face's order.

        F32, F16 and BF16 stay as they are. Quantized ones become F32, which is exact: rounded to
        F16, SmolLM2-135M's Q4_1 has logits that are 0.003 off on average and 0.04 at most.
        """
        return [self._pending(tensor) for tensor in self._tensors.values()]

    def _pending(self, tensor: GgufTensor) -> PendingTensor:
        name = self._hugging_face_name(tensor.name)
        arrange, key = self._family.arranged.get(tensor.name.split(".")[-2], (None, ""))
        heads = self.count(key, self.count("attention.head_count")) if arrange else 1

        def load() -> memoryview:
            data = self._rows(tensor)
            try:
                data = arrange(data, heads) if arrange else data
            except (ValueError, ZeroDivisionError):
                reason = f"{tensor.name} has {tensor.shape[0]:,} rows for {heads:,} heads"
                raise self.damaged(reason) from None
            return self._bytes(tensor, data)

        return PendingTensor(name, _stored_as(tensor), tensor.shape, load)

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
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        if tensor.kind not in _TORCH_DTYPES:
            what = f"{self.path}: {tensor.name}, which is kept as {tensor.kind}, cannot be read"
            with guarded(what, _TAKE_ANOTHER), np.errstate(all="ignore"):
                data = dequantize(data, GGMLQuantizationType[tensor.kind])
                data = data.astype(np.float32, copy=False)
            if not np.isfinite(data).all():
                raise self.damaged(f"{tensor.name} holds values beyond any real weight")
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data

    def _hugging_face_name(self, name: str) -> str:
        base, _, kind = name.rpartition(".")
        family = self._family
        if base in family.whole_model and kind in ("weight", "bias"):
            return f"{family.whole_model[base]}.{kind}"
        match = _LAYER_NAME.fullmatch(name)
        if match and match[2] in family.per_layer:
            return f"{family.prefix}.{int(match[1])}.{family.per_layer[match[2]]}.{match[3]}"
        raise ModelUnavailableError(
            f"{self.path}: the tensor {name} does not belong to a plain {self.architecture} model",
            _TAKE_ANOTHER,
        )

    def _rope_scaling(self) -> dict[str, Any] | None:
        kind = self.fields.text(f"{self.architecture}.rope.scaling.type")
        if kind in (None, "none"):
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": self.number("rope.scaling.factor")}
        raise ModelUnavailableError(
            f"{self.path}: its rotary scaling {kind!r:.60} cannot be read from GGUF", _TAKE_ANOTHER
        )

    def damaged(self, reason: str) -> ModelUnavailableError:
        """The error for a file with which something is wrong: ``reason``."""
        return ModelUnavailableError(f"{self.path} is damaged: {reason}", FETCH_AGAIN)


def _stored_as(tensor: GgufTensor) -> str:
    """Element type that the tensor gets in the checkpoint, in safetensors' words."""
    return tensor.kind if tensor.kind in _TORCH_DTYPES else "F32"
