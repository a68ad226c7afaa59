"""GGUF files of every family, held to transformers on the weights that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from family_gguf import CONFIGS, full_config, write_family_gguf
from models import random_ids

from nazx_cli import load_model
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.convert import convert_gguf
from nazx_cli.checkpoint.gguf import ARCHITECTURES, GgufFile
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import ModelUnavailableError

transformers = pytest.importorskip("transformers")
FULL = AttentionConfig("full")
LENGTH = 60


def _logits(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' (T, V) logits of all positions."""
    config = full_config(name)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    ).eval()
    left = model.load_state_dict(tensors, strict=False)
    assert not left.unexpected_keys and set(left.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([random_ids(LENGTH, seed=20)])).logits[0]
    return logits


@pytest.mark.parametrize("name", CONFIGS)
def test_a_family_s_file_has_the_weights_and_logits_of_the_original(
    tmp_path: Path, name: str
) -> None:
    tensors = write_family_gguf(tmp_path / "m.gguf", name)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", FULL)
    checkpoint = Checkpoint.open(tmp_path / "out")
    assert set(checkpoint.shapes) == set(tensors)
    for key, tensor in tensors.items():
        assert torch.allclose(checkpoint.read(key), tensor, rtol=0, atol=2e-7)
    want = _logits(name, tensors)
    assert want.std() > 1e-3
    got = load_model(tmp_path / "out").logits(random_ids(LENGTH, seed=20))
    assert (got - want).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["qwen2", "mistral"])
def test_transformers_reads_the_same_from_the_file(tmp_path: Path, name: str) -> None:
    """Of families that it reads without leaving out a setting."""
    write_family_gguf(tmp_path / "m.gguf", name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        want = model(torch.tensor([random_ids(LENGTH, seed=20)])).logits[0]
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", FULL)
    got = load_model(tmp_path / "out").logits(random_ids(LENGTH, seed=20))
    assert (got - want).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("olmo2", {"attention__sliding_window": 4096}, "OLMo 3"),
        ("qwen3", {"attention__causal": False}, "looks ahead"),
        ("llama3", {"expert_count": 8}, "experts"),
    ],
)
def test_relatives_of_the_same_architecture_are_refused_by_name(
    tmp_path: Path, name: str, more: dict[str, Any], words: str
) -> None:
    write_family_gguf(tmp_path / "m.gguf", name, **more)
    with pytest.raises(ModelUnavailableError, match=words) as caught:
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", FULL)
    assert caught.value.hint


def _config(tmp_path: Path, name: str, **more: Any) -> ModelConfig:
    write_family_gguf(tmp_path / "m.gguf", name, **more)
    return ModelConfig.from_dict(GgufFile.open(tmp_path / "m.gguf").config())


def test_heads_that_are_rotated_in_part_are_refused_where_the_family_has_none(
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelUnavailableError, match=r"partial_rotary_factor is 0\.5"):
        _config(tmp_path, "qwen3", rope__dimension_count=5)
    assert _config(tmp_path, "qwen3", rope__dimension_count=10).rope.dim == 10
    assert _config(tmp_path, "phi3", rope__dimension_count=4).rope.dim == 4


def test_gemma_3_names_the_base_of_its_windows_where_it_is_another(tmp_path: Path) -> None:
    config = _config(tmp_path, "gemma3", rope__freq_base_swa=700.0)
    bases = [kind.rope.theta for kind in config.layer_kinds if kind.rope]
    assert bases == [700.0] * 5 + [90_000.0, 700.0]


def test_the_files_do_not_name_the_family_alone(tmp_path: Path) -> None:
    """Mistral's are a Llama's, with heads of a size of their own."""
    config = _config(tmp_path, "mistral")
    assert (config.family, config.head_dim) == ("llama", 12)


def test_every_family_that_has_files_is_among_them() -> None:
    seen = {config["model_type"].replace("mistral", "llama") for config in CONFIGS.values()}
    assert seen == {family.name for family in ARCHITECTURES.values()} - {"gpt_neox"}
