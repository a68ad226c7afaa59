"""Rivals of the random InAttention models: ordinary attention at the same shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nazx_cli.bench import llama_peer, peers
from nazx_cli.bench.engine import Rival
from nazx_cli.bench.setup import Setup
from nazx_cli.config import ModelConfig


@contextmanager
def random_rivals(
    setup: Setup, config: ModelConfig, dtype: torch.dtype, longest: int, *, llama_cpp: bool = True
) -> Iterator[list[Rival]]:
    """transformers in ``dtype`` and llama.cpp in F16, of random weights, for prompts of up to
    ``longest`` tokens; those that are not installed say so."""
    found = [_transformers(config, dtype)]
    with TemporaryDirectory(prefix="nazx-bench-") as scratch:
        if llama_cpp:
            found.append(_llama_cpp(setup, config, Path(scratch), longest))
        yield found
        for rival in found:
            if isinstance(rival.engine, llama_peer.LlamaPeer):
                rival.engine.close()


def _transformers(config: ModelConfig, dtype: torch.dtype) -> Rival:
    if not peers.is_installed():
        return Rival(peers.TRANSFORMERS, note=peers.MISSING)
    engine = peers.TransformersPeer.random(config, dtype)
    return Rival(engine.name, engine, str(dtype).removeprefix("torch."))


def _llama_cpp(setup: Setup, config: ModelConfig, scratch: Path, longest: int) -> Rival:
    if not llama_peer.is_installed():
        return Rival(llama_peer.NAME, note=llama_peer.MISSING)
    from nazx_cli.bench.gguf_models import write_random

    file = scratch / "random.gguf"
    setup.note("writing a random model for llama.cpp")
    write_random(config, file)
    return llama_peer.rival(file, "F16", longest)
