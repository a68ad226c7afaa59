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

from nazx_cli.checkpoint.write import PendingTensor
from nazx_cli.errors import ModelUnavailableError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor
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
    hidden, heads = file.needed("embedding_length"), file.needed("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_key_value_heads": file.own("attention.head_count_kv", heads),
        "head_dim": file.own("attention.key_length", hidden // heads if heads else 0),
        "hidden_act": "silu",
        "rms_norm_eps": decimal(file.needed("attention.layer_norm_rms_epsilon")),
        "rope_theta": float(file.own("rope.freq_base", 10_000.0)),
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_down.bias" in file.names,
    }


def _gpt_neox_config(file: GgufFile) -> dict[str, Any]:
    hidden, heads = file.needed("embedding_length"), file.needed("attention.head_count")
    size = hidden // heads if heads else 1
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "layer_norm_eps": decimal(file.needed("attention.layer_norm_epsilon")),
        "rotary_emb_base": float(file.own("rope.freq_base", 10_000.0)),
        "rotary_pct": file.needed("rope.dimension_count") / max(size, 1),
        "use_parallel_residual": bool(file.own("use_parallel_residual", True)),
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


_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TAKE_ANOTHER = "take the model's own safetensors checkpoint"


class GgufFile:
    """One opened file; tensors stay on the disk until they are read."""

    def __init__(self, path: Path, reader: GGUFReader, architecture: str) -> None:
        self.path = path
        self.architecture = architecture
        self._reader = reader
        self._family = FAMILIES[architecture]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Parse the header; ``ModelUnavailableError`` if damaged or of no known architecture."""
        from gguf import GGUFReader

        try:
            reader = GGUFReader(path)
            field = reader.get_field("general.architecture")
            architecture = None if field is None else field.contents()
        except Exception as error:  # the parser meets broken files with whatever numpy raises
            raise ModelUnavailableError(
                f"{path} is damaged or no GGUF file: {error or type(error).__name__}",
                "fetch the model again",
            ) from None
        if architecture not in FAMILIES:
            raise ModelUnavailableError(
                f"{path} holds a model of the architecture {architecture!r}",
                f"of GGUF files, NazX reads the architectures {' and '.join(FAMILIES)}",
            )
        return cls(path, reader, architecture)

    @property
    def names(self) -> frozenset[str]:
        """GGUF's names of the tensors."""
        return frozenset(tensor.name for tensor in self._reader.tensors)

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as Python object, or ``default``."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def own(self, key: str, default: Any = None) -> Any:
        """A metadata value of the architecture: ``context_length`` of ``llama.context_length``."""
        return self.field(f"{self.architecture}.{key}", default)

    def needed(self, key: str) -> Any:
        """The same, for one that has to be there."""
        value = self.own(key)
        if value is None:
            raise self.damaged(f"it does not say {self.architecture}.{key}")
        return value

    def config(self) -> dict[str, Any]:
        """The ``config.json`` of the model, in Hugging Face's keys."""
        tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if "token_embd.weight" not in tensors:
            raise self.damaged("it has no token_embd.weight")
        embedding = tensors["token_embd.weight"]
        config = {
            **self._family.config(self),
            "vocab_size": int(embedding.shape[1]),
            "hidden_size": self.needed("embedding_length"),
            "intermediate_size": self.needed("feed_forward_length"),
            "num_hidden_layers": self.needed("block_count"),
            "max_position_embeddings": self.needed("context_length"),
            "tie_word_embeddings": "output.weight" not in tensors,
            "torch_dtype": _TORCH_DTYPES[_stored_as(embedding)],
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
        }
        scaling = self._rope_scaling()
        return {**config, "rope_scaling": scaling} if scaling else config

    def tensors(self) -> list[PendingTensor]:
        """Every tensor under its Hugging Face name, rows in Hugging Face's order.

        F32, F16 and BF16 stay as they are. Quantized ones become F32, which is exact: rounded to
        F16, SmolLM2-135M's Q4_1 has logits that are 0.003 off on average and 0.04 at most.
        """
        return [self._pending(tensor) for tensor in self._reader.tensors]

    def _pending(self, tensor: ReaderTensor) -> PendingTensor:
        name = self._hugging_face_name(tensor.name)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        arrange, key = self._family.arranged.get(tensor.name.split(".")[-2], (None, ""))
        heads = self.own(key, self.needed("attention.head_count")) if arrange else 1

        def load() -> memoryview:
            try:
                data = arrange(tensor.data, heads) if arrange else tensor.data
            except (ValueError, ZeroDivisionError):
                reason = f"{tensor.name} has {shape[0]} rows for {heads} heads"
                raise self.damaged(reason) from None
            return self._bytes(tensor, data)

        return PendingTensor(name, _stored_as(tensor), shape, load)

    def _bytes(self, tensor: ReaderTensor, data: NDArray[Any]) -> memoryview:
        import numpy as np
        from gguf.quants import dequantize

        if tensor.tensor_type.name not in _TORCH_DTYPES:
            try:
                data = dequantize(data, tensor.tensor_type).astype(np.float32, copy=False)
            except NotImplementedError:
                raise ModelUnavailableError(
                    f"{self.path}: {tensor.name} is quantized as {tensor.tensor_type.name}, "
                    "which cannot be read",
                    _TAKE_ANOTHER,
                ) from None
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
        kind = self.own("rope.scaling.type", "none")
        if kind == "none":
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": float(self.needed("rope.scaling.factor"))}
        raise ModelUnavailableError(
            f"{self.path}: its rotary scaling {kind!r} cannot be read from GGUF", _TAKE_ANOTHER
        )

    def damaged(self, reason: str) -> ModelUnavailableError:
        """The error for a file with which something is wrong: ``reason``."""
        return ModelUnavailableError(f"{self.path} is damaged: {reason}", "fetch the model again")


def _stored_as(tensor: ReaderTensor) -> str:
    """Element type that the tensor gets in the checkpoint, in safetensors' words."""
    kind: str = tensor.tensor_type.name
    return kind if kind in _TORCH_DTYPES else "F32"
