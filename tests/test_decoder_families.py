"""Every family's logits against transformers on tiny random models: a whole prompt, decoding,
several prompts at once, windowed, and two types of arithmetic."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from checkpoints import nazx, write_checkpoint
from family_configs import FAMILIES, family_tensors, write_family
from models import random_ids

from nazx_cli import load_model
from nazx_cli.config import ConfigError, ModelConfig
from nazx_cli.model.attention.batch import PromptBatch

transformers = pytest.importorskip("transformers")
LENGTH = 60


@cache
def _theirs(name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(T, V) logits of all positions."""
    with TemporaryDirectory() as root:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            write_family(Path(root), name), dtype=dtype, attn_implementation="eager"
        ).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([random_ids(LENGTH, seed=20)])).logits[0]
    return logits.float()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_position_equals_transformers(tmp_path: Path, name: str) -> None:
    lm = load_model(write_family(tmp_path, name))
    want = _theirs(name)
    assert want.std() > 1e-3
    assert (lm.logits(random_ids(LENGTH, seed=20)) - want).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_equals_transformers(tmp_path: Path, name: str) -> None:
    """One token after a prompt, several at once, and a conversation that is taken back a little."""
    lm, ids = load_model(write_family(tmp_path, name)), random_ids(LENGTH, seed=20)
    want = _theirs(name)
    context = lm.new_context()
    context.append(ids[:30])
    lm.next_logits(context)
    for stop in (31, 32, 45, LENGTH):
        context.append(ids[len(context) : stop])
        # Frequencies that follow the length are those of the prompt so far.
        if stop == LENGTH or "longrope" not in str(FAMILIES[name]):
            assert (lm.next_logits(context) - want[stop - 1]).abs().max() < 1e-4
        else:
            lm.next_logits(context)
    context.delete(50, LENGTH)
    lm.next_logits(context)
    context.append(ids[50:])
    assert (lm.next_logits(context) - want[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_side_by_side_equal_transformers(tmp_path: Path, name: str) -> None:
    lm, ids = load_model(write_family(tmp_path, name)), random_ids(LENGTH, seed=20)
    want = _theirs(name)
    batch = PromptBatch(lm.decoder, [ids[:-2], random_ids(7, seed=3)], room=2)
    for token in ids[-2:]:
        batch.step([token, 5])
    assert (batch.logits[0] - want[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_as_near_as_transformers_is(tmp_path: Path, name: str) -> None:
    exact, rounded = _theirs(name), _theirs(name, torch.bfloat16)
    ours = load_model(write_family(tmp_path, name), dtype="bfloat16").logits(
        random_ids(LENGTH, seed=20)
    )
    error, theirs = (ours - exact).norm(), (rounded - exact).norm()
    assert error < 1.3 * theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_windowed_is_full_while_the_window_is_not_filled(tmp_path: Path, name: str) -> None:
    attention = {"kind": "windowed", "local_window": LENGTH, "sink_tokens": 4, "far": "none"}
    lm = load_model(write_family(tmp_path, name, attention))
    assert (lm.logits(random_ids(LENGTH, seed=20)) - _theirs(name)).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_windowed_beyond_the_window_is_the_same_in_one_run_and_step_by_step(
    tmp_path: Path, name: str
) -> None:
    attention = {"kind": "windowed", "local_window": 10, "sink_tokens": 3, "far": "none"}
    lm, ids = load_model(write_family(tmp_path, name, attention)), random_ids(LENGTH, seed=20)
    want = lm.logits(ids)
    context = lm.new_context()
    for at, token in enumerate(ids):
        context.append([token])
        if at % 7 == 0 or at == LENGTH - 1:
            got = lm.next_logits(context)
    assert (got - want[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_counted_as_they_are(name: str) -> None:
    config = ModelConfig.from_dict(FAMILIES[name])
    assert config.num_parameters == sum(tensor.numel() for tensor in family_tensors(name).values())


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("llama3", "qwen2")])
def test_inattention_is_refused_where_it_is_not_defined(name: str) -> None:
    config = ModelConfig.from_dict(FAMILIES[name])
    data = nazx(FAMILIES[name], {"kind": "inattention"})
    if config.attends_plainly:
        assert ModelConfig.from_dict(data).attention.kind == "inattention"
        return
    with pytest.raises(ConfigError, match="InAttention is not defined"):
        ModelConfig.from_dict(data)


def test_settings_that_cannot_be_run_are_refused_by_name() -> None:
    config = {**FAMILIES["gemma3"], "use_bidirectional_attention": True}
    with pytest.raises(ConfigError, match="use_bidirectional_attention"):
        ModelConfig.from_dict(config)
    config = {**FAMILIES["ministral"], "layer_types": ["chunked_attention"] * 4}
    with pytest.raises(ConfigError, match="chunked_attention"):
        ModelConfig.from_dict(config)


def test_the_text_part_of_a_model_that_sees_pictures_runs(tmp_path: Path) -> None:
    """Gemma 3's larger models: settings below ``text_config``, tensors below a prefix."""
    text = {key: value for key, value in FAMILIES["gemma3"].items() if key != "vocab_size"}
    text |= {"vocab_size": 300, "model_type": "gemma3_text"}
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}}
    for number, prefix in enumerate(("model.language_model.", "language_model.model.")):
        tensors = {
            name.replace("model.", prefix, 1): tensor
            for name, tensor in family_tensors("gemma3").items()
        }
        tensors["vision_tower.patch.weight"] = torch.ones(2, 2)
        folder = write_checkpoint(tmp_path / str(number), whole, tensors)
        lm = load_model(folder)
        assert (lm.logits(random_ids(LENGTH, seed=20)) - _theirs("gemma3")).abs().max() < 1e-4
    with pytest.raises(ConfigError, match="text_config"):
        ModelConfig.from_dict({"model_type": "gemma3"})


def test_what_a_file_of_gemma_leaves_out_is_what_its_library_assumes() -> None:
    published = {
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    }
    theirs = transformers.Gemma3TextConfig(**published["text_config"])
    ours = ModelConfig.from_dict(published)
    assert (ours.num_heads, ours.num_kv_heads) == (
        theirs.num_attention_heads,
        theirs.num_key_value_heads,
    )
    assert (ours.head_dim, ours.vocab_size) == (theirs.head_dim, theirs.vocab_size)
    assert (ours.max_positions, ours.tie_embeddings) == (theirs.max_position_embeddings, True)
    assert (ours.rope.theta, ours.rope.factor) == (1e6, 8.0)
    assert [kind.window for kind in ours.layer_kinds[:6]] == [1024] * 5 + [None]
    assert 3.8e9 < ours.num_parameters < 4.0e9


def test_weights_quantized_by_other_tools_are_refused_by_name() -> None:
    config = {**FAMILIES["qwen2"], "quantization_config": {"quant_method": "gptq"}}
    with pytest.raises(ConfigError, match="quantized in a form"):
        ModelConfig.from_dict(config)
