"""A GGUF file of the Llama architecture, read as a Hugging Face checkpoint.

GGUF renames the tensors, quantizes them in blocks, and orders the rows of the query and key
projections for interleaved rotary pairs where Hugging Face has half-split ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.weights.write import PendingTensor

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor
    from numpy.typing import NDArray

_WHOLE_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TAKE_ANOTHER = "take the model's own safetensors checkpoint"


class GgufFile:
    """One opened file; tensors stay on the disk until they are read."""

    def __init__(self, path: Path, reader: GGUFReader) -> None:
        self.path = path
        self._reader = reader

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Parse the header; ``ModelUnavailableError`` if damaged or no Llama."""
        from gguf import GGUFReader

        try:
            file = cls(path, GGUFReader(path))
        except Exception as error:  # the parser meets broken files with whatever numpy raises
            raise ModelUnavailableError(
                f"{path} is damaged or no GGUF file: {error or type(error).__name__}",
                "fetch the model again",
            ) from None
        architecture = file.field("general.architecture")
        if architecture != "llama":
            raise ModelUnavailableError(
                f"{path} holds a model of the architecture {architecture!r}",
                "of GGUF files, NazX reads the architecture llama",
            )
        return file

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as Python object, or ``default``."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def config(self, quantized_as: str = "F32") -> dict[str, Any]:
        """The ``config.json`` of the model, in the keys of Hugging Face's ``llama``."""
        names = {tensor.name: tensor for tensor in self._reader.tensors}
        if "token_embd.weight" not in names:
            raise self._damaged("it has no token_embd.weight")
        hidden, heads = self._needed("embedding_length"), self._needed("attention.head_count")
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": int(names["token_embd.weight"].shape[1]),
            "hidden_size": hidden,
            "intermediate_size": self._needed("feed_forward_length"),
            "num_hidden_layers": self._needed("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.field("llama.attention.head_count_kv", heads),
            "head_dim": self.field("llama.attention.key_length", hidden // heads if heads else 0),
            "hidden_act": "silu",
            "max_position_embeddings": self._needed("context_length"),
            "rms_norm_eps": _decimal(self._needed("attention.layer_norm_rms_epsilon")),
            "rope_theta": float(self.field("llama.rope.freq_base", 10_000.0)),
            "attention_bias": "blk.0.attn_q.bias" in names,
            "mlp_bias": "blk.0.ffn_down.bias" in names,
            "tie_word_embeddings": "output.weight" not in names,
            "torch_dtype": _TORCH_DTYPES[_stored_as(names["token_embd.weight"], quantized_as)],
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
        }
        scaling = self._rope_scaling()
        return {**config, "rope_scaling": scaling} if scaling else config

    def tensors(self, quantized_as: str = "F32") -> list[PendingTensor]:
        """Every tensor under its Hugging Face name, rows in Hugging Face's order.

        F32, F16 and BF16 stay as they are. Quantized ones become ``quantized_as``: exact in F32;
        half the size in F16, at the cost of rounding (on SmolLM2-135M's Q4_1 it moves logits by
        0.003 on average and 0.04 at most).
        """
        heads = self._needed("attention.head_count")
        kv_heads = self.field("llama.attention.head_count_kv", heads)
        return [
            self._pending(tensor, heads, kv_heads, quantized_as) for tensor in self._reader.tensors
        ]

    def _pending(
        self, tensor: ReaderTensor, heads: int, kv_heads: int, quantized_as: str
    ) -> PendingTensor:
        name = self._hugging_face_name(tensor.name)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        permuted = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2], 0)
        if permuted and (permuted < 1 or shape[0] % (2 * permuted)):
            raise self._damaged(f"{tensor.name} has {shape[0]} rows for {permuted} heads")
        dtype = _stored_as(tensor, quantized_as)

        def load() -> memoryview:
            data = unpermute(tensor.data, permuted) if permuted else tensor.data
            return self._bytes(tensor, data, dtype)

        return PendingTensor(name, dtype, shape, load)

    def _bytes(self, tensor: ReaderTensor, data: NDArray[Any], dtype: str) -> memoryview:
        import numpy as np
        from gguf.quants import dequantize

        if tensor.tensor_type.name not in _TORCH_DTYPES:
            try:
                data = dequantize(data, tensor.tensor_type).astype(
                    np.float16 if dtype == "F16" else np.float32, copy=False
                )
            except NotImplementedError:
                raise ModelUnavailableError(
                    f"{self.path}: {tensor.name} is quantized as {tensor.tensor_type.name}, "
                    "which cannot be read",
                    _TAKE_ANOTHER,
                ) from None
            if not np.isfinite(data).all():
                raise self._damaged(f"{tensor.name} holds values beyond any real weight")
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data

    def _hugging_face_name(self, name: str) -> str:
        base, _, kind = name.rpartition(".")
        if base in _WHOLE_MODEL and kind == "weight":
            return f"{_WHOLE_MODEL[base]}.weight"
        match = _LAYER_NAME.fullmatch(name)
        if match and match[2] in _PER_LAYER:
            return f"model.layers.{int(match[1])}.{_PER_LAYER[match[2]]}.{match[3]}"
        raise ModelUnavailableError(
            f"{self.path}: the tensor {name} does not belong to a plain Llama model", _TAKE_ANOTHER
        )

    def _rope_scaling(self) -> dict[str, Any] | None:
        kind = self.field("llama.rope.scaling.type", "none")
        if kind == "none":
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": float(self._needed("rope.scaling.factor"))}
        raise ModelUnavailableError(
            f"{self.path}: its rotary scaling {kind!r} cannot be read from GGUF", _TAKE_ANOTHER
        )

    def _needed(self, key: str) -> Any:
        value = self.field(f"llama.{key}")
        if value is None:
            raise self._damaged(f"it does not say llama.{key}")
        return value

    def _damaged(self, reason: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{self.path} is damaged: {reason}", "fetch the model again")


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's order of the rows of a query or key projection.

    ``rows`` (heads * d, ...) has each head's dimensions as pairs (0, d/2), (1, d/2 + 1), ...;
    the result has them in their natural order 0, 1, ..., d - 1.
    """
    size = rows.shape[0]
    pairs = rows.reshape(heads, size // heads // 2, 2, -1)  # (H, d/2, 2, C)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _stored_as(tensor: ReaderTensor, quantized_as: str) -> str:
    """Element type that the tensor gets in the checkpoint, in safetensors' words."""
    kind: str = tensor.tensor_type.name
    return kind if kind in _TORCH_DTYPES else quantized_as


def _decimal(value: float | np.float32) -> float:
    """A float32 as the short decimal that was meant: 1e-5, not 9.999999747378752e-06."""
    return float(f"{float(value):.6g}")
