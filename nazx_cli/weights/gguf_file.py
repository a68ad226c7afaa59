"""A GGUF file, read as a Hugging Face checkpoint: tensors dequantized, renamed, put in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.weights.gguf_families import FAMILIES
from nazx_cli.weights.write import PendingTensor

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
    from numpy.typing import NDArray

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
            raise self._damaged(f"it does not say {self.architecture}.{key}")
        return value

    def config(self, quantized_as: str = "F32") -> dict[str, Any]:
        """The ``config.json`` of the model, in Hugging Face's keys."""
        tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if "token_embd.weight" not in tensors:
            raise self._damaged("it has no token_embd.weight")
        embedding = tensors["token_embd.weight"]
        config = {
            **self._family.config(self),
            "vocab_size": int(embedding.shape[1]),
            "hidden_size": self.needed("embedding_length"),
            "intermediate_size": self.needed("feed_forward_length"),
            "num_hidden_layers": self.needed("block_count"),
            "max_position_embeddings": self.needed("context_length"),
            "tie_word_embeddings": "output.weight" not in tensors,
            "torch_dtype": _TORCH_DTYPES[_stored_as(embedding, quantized_as)],
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
        return [self._pending(tensor, quantized_as) for tensor in self._reader.tensors]

    def _pending(self, tensor: ReaderTensor, quantized_as: str) -> PendingTensor:
        name = self._hugging_face_name(tensor.name)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        dtype = _stored_as(tensor, quantized_as)
        arrange, key = self._family.arranged.get(tensor.name.split(".")[-2], (None, ""))
        heads = self.own(key, self.needed("attention.head_count")) if arrange else 1

        def load() -> memoryview:
            try:
                data = arrange(tensor.data, heads) if arrange else tensor.data
            except (ValueError, ZeroDivisionError):
                reason = f"{tensor.name} has {shape[0]} rows for {heads} heads"
                raise self._damaged(reason) from None
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

    def _damaged(self, reason: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{self.path} is damaged: {reason}", "fetch the model again")


def _stored_as(tensor: ReaderTensor, quantized_as: str) -> str:
    """Element type that the tensor gets in the checkpoint, in safetensors' words."""
    kind: str = tensor.tensor_type.name
    return kind if kind in _TORCH_DTYPES else quantized_as
