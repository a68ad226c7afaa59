"""Documents in the index, as ``nazx ask``, ``nazx chat`` and ``nazx index`` have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint, write_birds

QUESTION = ("--max-tokens", "8", "--json", "Where did the heron stand?")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def birds(tmp_path: Path) -> str:
    return str(write_birds(tmp_path / "birds"))


def test_the_answer_and_its_sources_are_those_without_the_index(model: str, birds: str) -> None:
    asked = ("ask", "-m", model, "-f", birds, *QUESTION)
    plain, _, code = nazx(*asked, "--index", "never")
    assert code == 0
    first, told, _ = nazx(*asked, "--index", "always")
    assert "documents in the index: 3, new: 3" in told
    again, told, _ = nazx(*asked, "--index", "always")
    assert "index" not in told
    keys = ("answer", "sources", "cited", "finish_reason")
    for found in map(json.loads, (first, again)):
        assert {key: found.get(key) for key in keys} == {
            key: json.loads(plain).get(key) for key in keys
        }


def test_copies_are_one_document(model: str, birds: str) -> None:
    (Path(birds) / "other.txt").write_bytes((Path(birds) / "stork.txt").read_bytes())
    _, told, _ = nazx("ask", "-m", model, "-f", birds, "--index", "always", *QUESTION)
    assert told.startswith("note: documents in the index: 3, new: 3") and "others: 1" in told


def test_the_index_is_shown_and_emptied(model: str, birds: str) -> None:
    nazx("ask", "-m", model, "-f", birds, "--index", "always", *QUESTION)
    out, _, code = nazx("index", "--json")
    assert code == 0 and json.loads(out)["files"] == 1 and json.loads(out)["bytes"] > 1000
    _, told, code = nazx("index", "clear")
    assert code == 2 and "--yes" in told
    out, _, code = nazx("index", "clear", "--yes")
    assert code == 0 and out.startswith("removed ")
    assert json.loads(nazx("index", "--json")[0])["bytes"] == 0
    out, _, code = nazx("index", "clear", "--yes")  # nothing is left to empty
    assert code == 0 and out == "removed 0 bytes\n"


def test_an_index_without_room_is_one_line(model: str, birds: str) -> None:
    more = ("--index", "always", "--index-size", "2kB")
    _, told, code = nazx("ask", "-m", model, "-f", birds, *more, *QUESTION)
    assert code == 1 and "--index-size" in told and told.count("error:") == 1


def test_the_estimate_counts_what_is_on_disk_as_that(
    model: str, birds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("vram-estimate", "-m", model, "--file", birds, "--json")
    plain = nazx(*asked)[0]
    monkeypatch.setenv("NAZX_INDEX", "always")
    assert json.loads(nazx(*asked)[0]) == json.loads(plain)
