"""The models that are known by name: what their entries say, and what their own files correct."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import GPT_NEOX, LLAMA, write_checkpoint
from cli_helpers import run_nazx as nazx
from fake_hub import FakeHub, FakeRepo

from nazx_cli.catalog.hub_download import fetch_config
from nazx_cli.catalog.registry import Registry, RegistryEntry
from nazx_cli.cli.shared.options import model_names
from nazx_cli.quantization.cost import KINDS
from nazx_cli.ui.phrases import size_text

ENTRIES = Registry.load().entries
HELP = Path(__file__).parents[1] / "nazx_cli" / "help" / "models.md"
PYTHIA = "EleutherAI/pythia-70m"


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_shapes_are_accepted_and_have_the_published_number_of_weights(entry: RegistryEntry) -> None:
    config = entry.config
    assert abs(config.num_parameters / entry.parameters - 1) < 0.02
    attention = config.attention
    assert (attention.kind, attention.sink_tokens) == ("windowed", 4)
    assert attention.local_window <= config.max_positions
    if not entry.name.startswith("nazx-"):  # within what it was trained for it is full attention
        assert config.window == config.max_positions


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_entries_say_all_that_a_person_chooses_by(entry: RegistryEntry) -> None:
    assert entry.description and entry.good_at and entry.licence and entry.sources
    assert entry.quantize in (None, *KINDS)
    assert entry.chat or not entry.suggest
    # The Hub has two bytes a weight, the package index files of 4 bits.
    least, most = (2.0, 3.0) if entry.needs_hub else (0.5, 1.0)
    assert least * entry.parameters <= entry.download_bytes < most * entry.parameters


def test_known_models_are_told_by_completion_and_as_they_are_by_help() -> None:
    assert ENTRIES.keys() <= set(model_names())
    rows = [line.strip("| ").split(" | ") for line in HELP.read_text("utf-8").splitlines()]
    told = {row[0].strip("`"): row[2:] for row in rows if len(row) == 6}
    for entry in ENTRIES.values():
        licence = entry.licence + (", gated" if entry.gated else "")
        size = size_text(entry.download_bytes)
        assert told[entry.name] == [size, licence, entry.quantize or "-", entry.good_at]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub whose Pythia has other shapes than the registry says."""
    folder = write_checkpoint(tmp_path / "pythia", GPT_NEOX)
    repo = FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})
    with FakeHub({PYTHIA: repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_what_came_with_the_weights_corrects_the_registry_and_is_said(hub: FakeHub) -> None:
    said = "nazx-70m: its own config says vocab_size 300, not 50304; hidden_size 48, not 512"
    assert said in nazx("pull", "nazx-70m")[1]
    assert said in nazx("ls")[1]
    assert said in nazx("ls", "--all")[1]
    shown = json.loads(nazx("show", "nazx-70m", "--json")[0])
    assert (shown["layers"], shown["vocab_size"]) == (3, 300)
    assert said in shown["correction"] and "layers 3, not 6" in shown["correction"]
    assert "its own config" in nazx("show", "nazx-70m")[0]
    out, err, _ = nazx("vram-estimate", "--model", "nazx-70m")
    assert f"{shown['parameters']:,} weights" in out and said in err


def test_a_window_is_as_long_as_the_model_that_came_was_trained_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "pleias", LLAMA)
    repo = FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})
    with FakeHub({"PleIAs/Pleias-RAG-350M": repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        fetch_config("PleIAs/Pleias-RAG-350M")
        before = json.loads(nazx("show", "pleias-rag-350m", "--json")[0])
        assert nazx("pull", "pleias-rag-350m")[2] == 0
    after = json.loads(nazx("show", "pleias-rag-350m", "--json")[0])
    for shown in (before, after):
        window = shown["attention"]
        assert window["local_window"] + window["sink_tokens"] == shown["max_positions"] == 256


def test_a_config_that_came_before_the_weights_corrects_too(hub: FakeHub) -> None:
    fetch_config(PYTHIA)
    shown = json.loads(nazx("show", "nazx-70m", "--json")[0])
    assert not shown["present"] and shown["correction"]
    assert (shown["layers"], shown["attention"]["kind"]) == (3, "windowed")


def test_shapes_that_are_as_known_need_no_word() -> None:
    shown = json.loads(nazx("show", "nazx-70m", "--json")[0])
    assert shown["correction"] is None and shown["licence"] == "Apache-2.0"
    assert nazx("vram-estimate", "--model", "nazx-70m")[1] == ""
