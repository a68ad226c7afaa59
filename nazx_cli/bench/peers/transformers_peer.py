"""The peer transformers: the same weights, type and threads, with ordinary attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nazx_cli.bench.models import Rival, random_tensors
from nazx_cli.bench.results import version_of
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.recipes import expected_shapes
from nazx_cli.config import ModelConfig
from nazx_cli.errors import NazxError

TRANSFORMERS = "transformers"
MISSING = "transformers is not installed: pip install 'nazx[bench]'"

_TILE = 4096  # positions of random keys that are then repeated
_OURS = ("model_type", "base_model_type", "attention")  # keys that the library must not see


def is_installed() -> bool:
    """Whether transformers can be imported."""
    return find_spec(TRANSFORMERS) is not None


def rival(load: Callable[[], TransformersPeer], precision: str) -> Rival:
    """The peer that ``load`` gives, where the library is installed."""
    if not is_installed():
        return Rival(TRANSFORMERS, None, precision, MISSING)
    engine = load()
    return Rival(engine.name, engine, precision)


class TransformersPeer:
    """A model of transformers on the CPU, with ordinary attention and its own dynamic cache."""

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype
    ) -> None:
        self._config = config
        self._model = _build(config, tensors, dtype)

    @classmethod
    def from_folder(cls, config: ModelConfig, folder: Path, dtype: torch.dtype) -> TransformersPeer:
        """The model of a NazX checkpoint, from the tensors that NazX itself reads."""
        checkpoint = Checkpoint.open(folder)
        tensors = {
            name: checkpoint.read(name).to(dtype, copy=True) for name in expected_shapes(config)
        }
        return cls(config, tensors, dtype)

    @classmethod
    def random(cls, config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> TransformersPeer:
        """A model of these shapes with random weights."""
        return cls(config, dict(random_tensors(config, dtype, seed=seed)), dtype)

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"{TRANSFORMERS} {version_of(TRANSFORMERS)}".rstrip()

    def prefill(self, ids: Tensor) -> tuple[Any, Tensor]:
        """Run ids (T,); the cache they leave, and (V,) logits after the last."""
        with torch.inference_mode():
            out = self._model(ids.long()[None], use_cache=True, logits_to_keep=1)
        return out.past_key_values, out.logits[0, -1]

    def decode(self, cache: Any, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in ``cache``."""
        found = []
        with torch.inference_mode():
            for _ in range(count):
                out = self._model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                token = int(out.logits[0, -1].argmax())
                found.append(token)
        return found

    def cache_bytes(self, cache: Any) -> int:
        """Bytes of the keys and values in a dynamic cache."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    def filled_cache(self, positions: int, room: int | None = None, seed: int = 0) -> Any:
        """A cache of ``positions``, as a prefill leaves it but for its values, which are random:
        how long decoding takes does not depend on them.

        It is a dynamic one, the library's default, which is copied to grow; with ``room`` for
        so many further positions it is a static one.
        """
        generator = torch.Generator().manual_seed(seed)
        library: Any = import_module(TRANSFORMERS)
        config = self._config
        shape = (1, config.num_kv_heads, min(positions, _TILE), config.head_dim)
        cache = (
            library.DynamicCache()
            if room is None
            else library.StaticCache(self._model.config, max_cache_len=positions + room)
        )
        times = -(-positions // shape[2])
        for layer in range(config.num_layers):
            tile = torch.randn(shape, generator=generator).to(self._model.dtype)
            rows = tile.repeat(1, 1, times, 1)[:, :, :positions]
            cache.update(rows, rows.flip(2), layer)
        return cache


def _build(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """The library's model with ``tensors`` as its weights; nothing is initialised first."""
    library: Any = import_module(TRANSFORMERS)
    raw = {key: value for key, value in config.raw.items() if key not in _OURS}
    theirs = library.AutoConfig.for_model(config.family, **raw)
    with torch.device("meta"):
        model = library.AutoModelForCausalLM.from_config(theirs)
    model.load_state_dict(tensors, strict=False, assign=True)
    head = tensors.get(f"{config.names.head}.weight")
    if head is not None and not config.tie_embeddings:
        # Newer versions call GPT-NeoX's head lm_head, and rename it only when they read a file.
        model.get_output_embeddings().weight = torch.nn.Parameter(head)
    model.tie_weights()
    # Rotary frequencies are no weights: they are computed, and on the meta device they are not.
    rotary = model.base_model.rotary_emb
    model.base_model.rotary_emb = type(rotary)(config=theirs)
    weights = (*model.named_parameters(), *model.named_buffers())
    empty = [name for name, weight in weights if weight.is_meta]
    if empty or model.dtype != dtype:
        raise NazxError(
            f"this version of transformers wants other weights: {', '.join(empty[:3])}",
            "install the version that NazX is tested with: pip install 'nazx[test]'",
        )
    # As a user has it: with gradients switched off on the weights, torch's matmul takes a path for
    # one-row slices that copies the whole output head.
    return model.eval()
