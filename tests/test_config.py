"""config.json: what is read, what is refused, and that nothing is allocated on the way."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, nazx, random_tensors, write_checkpoint

from nazx_cli import load_model
from nazx_cli.config import ConfigError, ModelConfig
from nazx_cli.errors import ModelUnavailableError

WINDOWED = {"kind": "windowed", "local_window": 8, "sink_tokens": 2, "far": "none"}


def test_a_plain_family_config_loads_as_full_attention() -> None:
    assert ModelConfig.from_dict(LLAMA).attention.kind == "full"
    assert ModelConfig.from_dict(GPT_NEOX).attention.kind == "full"


def test_writing_and_reading_again_changes_nothing() -> None:
    config = ModelConfig.from_dict(nazx(LLAMA, WINDOWED, custom_key=3))
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert config.to_dict()["custom_key"] == 3


@pytest.mark.parametrize("base", (GPT_NEOX, LLAMA, {**LLAMA, "tie_word_embeddings": False}))
def test_the_number_of_parameters_is_that_of_the_tensors(base: dict[str, Any]) -> None:
    tensors = random_tensors(base)
    assert ModelConfig.from_dict(base).num_parameters == sum(t.numel() for t in tensors.values())


@pytest.mark.parametrize(
    ("change", "says"),
    (
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"intermediate_size": -4}, "intermediate_size"),
        (
            {
                "hidden_size": 60_000,
                "num_attention_heads": 600,
                "num_hidden_layers": 1024,
                "intermediate_size": 10**6,
            },
            "weights",
        ),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"hidden_size": None}, "missing"),
        ({"hidden_size": 47}, "multiple"),
        ({"num_key_value_heads": 4}, "share"),
        ({"hidden_act": "swish-ish"}, "hidden_act"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_scaling": {"type": "spiral"}}, "rope_type"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": 3}, "rope_scaling"),
        (
            {
                "rope_scaling": {"type": "linear", "factor": 4.0},
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            },
            "rope_scaling and rope_parameters differ in rope_type",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"model_type": "mamba"}, "model_type"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"architectures": ["LlamaModel"]}, "no model that writes text"),
        ({"is_causal": False}, "is_causal"),
        ({"model_type": "nazx"}, "base_model_type"),
        ({"model_type": "nazx", "base_model_type": "llama"}, "attention"),
    ),
    ids=str,
)
def test_impossible_values_are_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        ModelConfig.from_dict({**LLAMA, **change})
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_who_names_a_family_that_does_not_run_is_told_to_take_another() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict({**LLAMA, "model_type": "mixtral"})
    assert "ls --all" in (caught.value.hint or "") and "again" not in (caught.value.hint or "")


@pytest.mark.parametrize("made_as", (["LlamaForCausalLM"], ["My", "GPT2LMHeadModel"], [], None))
def test_models_that_write_run_by_whatever_name(made_as: list[str] | None) -> None:
    assert ModelConfig.from_dict({**LLAMA, "architectures": made_as}).family == "llama"


@pytest.mark.parametrize(
    "attention",
    (
        {"kind": "psychic"},
        {"kind": "windowed"},
        {"kind": "windowed", "local_window": 0},
        {"kind": "windowed", "local_window": 8, "sink_tokens": -1},
        {"kind": "windowed", "local_window": 8, "far": "inattention"},
        "inattention",
    ),
    ids=str,
)
def test_impossible_attention_entries_are_refused(attention: Any) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_dict(nazx(LLAMA, attention))


@pytest.mark.parametrize("text", ("", "{", "[1, 2]", "null", "{}", "\udcff"), ids=repr)
def test_a_config_that_is_no_config_is_one_clear_line(tmp_path: Path, text: str) -> None:
    folder = write_checkpoint(tmp_path / "model", LLAMA)
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelUnavailableError, match=r"config\.json") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", LLAMA)
    config = {**LLAMA, "hidden_size": 60_000, "num_attention_heads": 600, "vocab_size": 3_000_000}
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelUnavailableError, match="shape"):
        load_model(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    name = "model.layers.1.mlp.up_proj.weight"
    missing = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ModelUnavailableError, match=name):
        load_model(write_checkpoint(tmp_path / "missing", LLAMA, missing))
    misshapen = {**tensors, name: torch.zeros(80, 47)}
    with pytest.raises(ModelUnavailableError, match=r"\(80, 47\)"):
        load_model(write_checkpoint(tmp_path / "misshapen", LLAMA, misshapen))


def test_half_precision_checkpoints_load_in_any_type(tmp_path: Path) -> None:
    tensors = {k: v.to(torch.float16) for k, v in random_tensors(LLAMA).items()}
    folder = write_checkpoint(tmp_path / "half", LLAMA, tensors)
    for dtype in ("float32", "bfloat16", "float16", "auto"):
        lm = load_model(folder, dtype=dtype)
        assert dtype in ("auto", lm.dtype)
        assert lm.logits([1, 2, 3]).isfinite().all()
