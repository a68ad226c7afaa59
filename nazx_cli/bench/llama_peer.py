"""llama.cpp by way of llama-cpp-python's own bindings, as llama-cpp-python sets it up.

Some builds of llama.cpp die on some processors (a segmentation fault, seen with AMX). So a file
is first tried in a process of its own, and where that dies, once more without the buffers that
repack weights for such instructions.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nazx_cli.bench.engine import Rival
from nazx_cli.errors import NazxError

NAME = "llama.cpp"
MISSING = "llama-cpp-python is not installed: pip install 'nazx[bench]'"

_BATCH = 512  # tokens at a time, llama-cpp-python's default
_ROOM = 64  # positions beyond the longest prompt
_TIMEOUT = 300  # seconds for the trial


def is_installed() -> bool:
    """Whether llama-cpp-python can be imported."""
    return find_spec("llama_cpp") is not None


def rival(file: Path, precision: str, longest: int) -> Rival:
    """llama.cpp on a GGUF file, for prompts of up to ``longest`` tokens and a few more."""
    for repack, note in ((True, ""), (False, "without repacked weights (AMX): it crashes here")):
        if (died := _trial(file, repack)) == "":
            engine = LlamaPeer(file, longest + _ROOM, repack)
            return Rival(engine.name, engine, precision, note)
    return Rival(NAME, None, precision, f"llama.cpp cannot run {file.name} here: {died}")


class LlamaPeer:
    """A GGUF file on the CPU, on as many threads as torch computes with; 16-bit keys and
    values, flash attention off, batches of 512: llama-cpp-python's defaults."""

    def __init__(self, file: Path, positions: int, repack: bool = True) -> None:
        self._lib: Any = import_module("llama_cpp.llama_cpp")
        lib = self._lib
        # Kept for as long as the library may call it.
        self._log = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(self._log, ctypes.c_void_p(0))
        lib.llama_backend_init()
        loading = lib.llama_model_default_params()
        loading.n_gpu_layers = 0
        loading.use_extra_bufts = repack
        self._model = lib.llama_model_load_from_file(str(file).encode(), loading)
        if not self._model:
            raise NazxError(f"llama.cpp cannot read {file}", "name another file: --gguf FILE")
        threads = torch.get_num_threads()
        running = lib.llama_context_default_params()
        running.n_ctx, running.n_batch, running.n_ubatch = positions, _BATCH, _BATCH
        running.n_threads = running.n_threads_batch = threads
        running.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = lib.llama_init_from_model(self._model, running)
        if not self._context:
            raise NazxError(f"llama.cpp has no memory for {positions:,} positions", "--ctx less")
        self.vocab_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    @property
    def name(self) -> str:
        """The library and the version of its Python package."""
        try:
            return f"{NAME} ({version('llama-cpp-python')})"
        except PackageNotFoundError:
            return NAME

    def prefill(self, ids: Tensor) -> tuple[None, Tensor]:
        """Run ids (T,) from an empty cache; (V,) logits after the last."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)
        self._run(ids.tolist())
        return None, self._logits()

    def decode(self, cache: None, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in the cache."""
        found = []
        for _ in range(count):
            self._run([token])
            token = int(self._logits().argmax())
            found.append(token)
        return found

    def cache_bytes(self, cache: None) -> int:
        """Bytes of the positions in the cache: what saving them would take."""
        return int(self._lib.llama_state_seq_get_size(self._context, 0))

    def close(self) -> None:
        """Give back weights and cache."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def _run(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            tokens = (self._lib.llama_token * len(part))(*part)
            batch = self._lib.llama_batch_get_one(tokens, len(part))
            if code := self._lib.llama_decode(self._context, batch):
                raise NazxError(f"llama.cpp gave up with code {code}", "try a shorter context")

    def _logits(self) -> Tensor:
        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        row = (ctypes.c_float * self.vocab_size).from_address(ctypes.addressof(pointer.contents))
        return torch.frombuffer(row, dtype=torch.float32).clone()


def _trial(file: Path, repack: bool) -> str:
    """Run a few tokens in a process of its own; why that failed, or nothing."""
    command = [sys.executable, "-m", "nazx_cli.bench.llama_peer", str(file), str(int(repack))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"it dies of signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["it fails"])[-1]


def _try(file: Path, repack: bool) -> None:
    engine = LlamaPeer(file, 2 * _BATCH, repack)
    engine.prefill(torch.arange(100))
    engine.decode(None, 1, 2)


if __name__ == "__main__":
    _try(Path(sys.argv[1]), sys.argv[2] == "1")
