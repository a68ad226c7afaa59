"""GGUF files read as Hugging Face checkpoints, held to independent references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_blocks import dequantized
from numpy.typing import NDArray
from tiny_gguf import (
    HEADS,
    KV_HEADS,
    NAMES,
    TEMPLATE,
    TOKENS,
    VOCAB,
    llama,
    permuted,
    write_gguf,
)
from transformers import LlamaForCausalLM

from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import convert_gguf
from nazx_cli.checkpoint.gguf import GgufFile, unpermute
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.tokenizer import Tokenizer

WINDOWED = AttentionConfig("windowed", 16, 2)


def converted(
    tmp_path: Path, model: LlamaForCausalLM, kinds: dict[str, Kind], **fields: Any
) -> Path:
    write_gguf(tmp_path / "m.gguf", model, kinds, **fields)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", WINDOWED)
    return tmp_path / "out"


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """transformers' logits from the converted tensors."""
    checkpoint = Checkpoint.open(folder)
    config = ModelConfig.from_folder(folder)
    model = llama(config.tie_embeddings)
    state = {name: checkpoint.read(name).float() for name in checkpoint.shapes}
    left = model.load_state_dict(state, strict=False)
    assert set(left.missing_keys) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    assert not left.unexpected_keys
    model.tie_weights()
    with torch.no_grad():
        return model(ids).logits


def error_of(path: Path) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        convert_gguf(path, path.parent / "out", WINDOWED)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 8), (4, 6)])
def test_unpermuting_undoes_the_order_of_llama_cpp(heads: int, size: int) -> None:
    rows = np.random.default_rng(0).normal(size=(heads * size, 5))
    assert np.array_equal(unpermute(permuted(rows, heads), heads), rows)
    assert np.array_equal(unpermute(permuted(rows[:, 0], heads), heads), rows[:, 0])


@pytest.mark.parametrize("tied", [True, False])
def test_an_unquantized_model_comes_back_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    model = llama(tied)
    folder = converted(tmp_path, model, {})
    checkpoint = Checkpoint.open(folder)
    for name in checkpoint.shapes:
        assert torch.equal(checkpoint.read(name), model.state_dict()[name])
    assert ("lm_head.weight" in checkpoint.shapes) == (not tied)
    ids = torch.arange(20)[None] % VOCAB
    with torch.no_grad():
        assert torch.equal(logits(folder, ids), model(ids).logits)


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1])
def test_quantized_tensors_equal_a_slow_dequantization(tmp_path: Path, kind: Kind) -> None:
    model = llama(tied=True)
    # Row counts of the feed-forward make odd multiples of the block of 32 elements.
    folder = converted(tmp_path, model, {"ffn_down": kind, "attn_q": kind, "token_embd": kind})
    checkpoint = Checkpoint.open(folder)
    for name in ("model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"):
        data = model.state_dict()[name].numpy()
        wanted = dequantized(gguf.quants.quantize(data, kind).tobytes(), kind, data.shape)
        assert np.array_equal(checkpoint.read(name).numpy(), wanted)
    name = "model.layers.0.self_attn.q_proj.weight"
    stored = permuted(model.state_dict()[name].numpy(), HEADS)
    wanted = dequantized(gguf.quants.quantize(stored, kind).tobytes(), kind, stored.shape)
    assert np.array_equal(permuted(checkpoint.read(name).numpy(), HEADS), wanted)


def test_logits_of_a_quantized_model_stay_near_the_original(tmp_path: Path) -> None:
    model = llama(tied=True)
    kinds = {stem: Kind.Q8_0 for stem in NAMES.values() if not stem.endswith("norm")}
    folder = converted(tmp_path, model, kinds)
    ids = torch.arange(20)[None] % VOCAB
    with torch.no_grad():
        wanted = model(ids).logits
    assert (logits(folder, ids) - wanted).abs().mean() < 0.05 * wanted.std()


def _dequantizes(kind: Kind) -> bool:
    size = gguf.GGML_QUANT_SIZES[kind][1]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


QUANTIZED = [kind for kind in Kind if kind not in (Kind.F32, Kind.F16, Kind.BF16)]
READ = [kind for kind in QUANTIZED if _dequantizes(kind)]


def _blocks(kind: Kind, rows: int) -> NDArray[np.uint8]:
    """Rows of two random blocks each whose numbers are finite."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(5).integers(0, 256, (40 * rows, size), np.uint8)
    with np.errstate(all="ignore"):
        sound = np.isfinite(gguf.quants.dequantize(blocks, kind)).all(axis=-1)
    return np.ascontiguousarray(blocks[sound][: 2 * rows].reshape(rows, 2 * size))


def _write_tensors(path: Path, raw: NDArray[np.uint8], kind: Kind) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(2)
    for name in ("token_embd.weight", "blk.0.attn_q.weight"):
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_every_type_that_the_library_dequantizes_is_read_row_by_row(
    tmp_path: Path, kind: Kind
) -> None:
    """What it makes of one row at a time, put in order."""
    raw = _blocks(kind, 8)
    _write_tensors(tmp_path / "m.gguf", raw, kind)
    wanted = np.concatenate([gguf.quants.dequantize(row[None], kind) for row in raw])
    embedding, query = GgufFile.open(tmp_path / "m.gguf").tensors()
    assert (embedding.dtype, embedding.shape) == ("F32", wanted.shape)
    found = [np.frombuffer(t.load(), np.float32).reshape(wanted.shape) for t in (embedding, query)]
    assert np.array_equal(found[0], wanted)
    assert np.array_equal(permuted(found[1], 2), wanted)


def test_most_types_are_among_those() -> None:
    names = {kind.name for kind in READ}
    assert names >= {"Q4_0", "Q4_K", "Q6_K", "Q8_0", "IQ2_XXS", "IQ4_XS", "TQ1_0", "MXFP4"}


@pytest.mark.parametrize(
    "kind", [kind for kind in QUANTIZED if kind not in READ], ids=lambda kind: kind.name
)
def test_other_types_are_refused_by_name(tmp_path: Path, kind: Kind) -> None:
    size = 2 * gguf.GGML_QUANT_SIZES[kind][1]
    _write_tensors(tmp_path / "m.gguf", np.zeros((8, size), np.uint8), kind)
    with pytest.raises(ModelUnavailableError, match=f"kept as {kind.name}, cannot be read"):
        GgufFile.open(tmp_path / "m.gguf").tensors()[0].load()


def test_half_precision_tensors_keep_their_type(tmp_path: Path) -> None:
    kinds = {"ffn_up": Kind.F16, "attn_k": Kind.BF16}
    model = llama(tied=True)
    checkpoint = Checkpoint.open(converted(tmp_path, model, kinds))
    for name, kind in (("mlp.up_proj", torch.float16), ("self_attn.k_proj", torch.bfloat16)):
        full = f"model.layers.0.{name}.weight"
        assert torch.equal(checkpoint.read(full), model.state_dict()[full].to(kind))


def test_the_configuration_comes_from_the_metadata(tmp_path: Path) -> None:
    config = ModelConfig.from_folder(converted(tmp_path, llama(tied=True), {}))
    assert config.family == "llama"
    assert config.attention == WINDOWED
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (HEADS, KV_HEADS, 16)
    assert (config.vocab_size, config.max_positions) == (VOCAB, 128)
    assert config.norm_eps == 1e-5
    assert config.rope.theta == 100000.0
    assert config.tie_embeddings


def test_the_tokenizer_cuts_digits_and_knows_its_special_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(converted(tmp_path, llama(tied=True), {}))
    assert tokenizer.encode("ab 12") == [TOKENS.index(t) for t in ("ab", "Ġ", "1", "2")]
    assert tokenizer.decode(tokenizer.encode("abc 90 p")) == "abc 90 p"
    assert tokenizer.encode_markup("<|im_start|>a") == [1, TOKENS.index("a")]
    assert 1 not in tokenizer.encode("<|im_start|>a")
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.special["bos_token"] == "<|im_start|>"


def test_every_token_that_ends_an_answer_stops_it(tmp_path: Path) -> None:
    folder = converted(tmp_path, llama(tied=True), {})
    assert Tokenizer.from_folder(folder).stop_ids == {0, 2}
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_large_models_are_written_in_shards(tmp_path: Path) -> None:
    model = llama(tied=True)
    write_gguf(tmp_path / "m.gguf", model, {})
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", WINDOWED, max_shard_bytes=50_000)
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert len(checkpoint.files) > 2
    for name in checkpoint.shapes:
        assert torch.equal(checkpoint.read(name), model.state_dict()[name])


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama(tied=True), {}, architecture="mamba")
    assert "mamba" in error_of(tmp_path / "m.gguf")


def test_an_unknown_way_of_cutting_words_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama(tied=True), {}, pre="klingon")
    assert "klingon" in error_of(tmp_path / "m.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, llama(tied=True), {})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert str(path) in error_of(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\x03\x04" * 100)
    assert "GGUF" in error_of(path)
