"""Chats about documents in memory and in the index, edited at random, come back as they were."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from chat_helpers import new_repl
from cli_helpers import tiny_checkpoint
from prompt_toolkit.input import DummyInput

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.opening import Opening
from nazx_cli.cli.shared.options import ChatOptions, ModelOptions, OutputOptions
from nazx_cli.documents.content import loads
from nazx_cli.index import shelf
from nazx_cli.index.shelf import is_indexed
from nazx_cli.ui.chat import Chat

BIRDS = ("crane", "heron", "stork", "egret", "ibis", "empty")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    folder = tmp_path / "birds"
    folder.mkdir()
    for name in BIRDS:
        text = "" if name == "empty" else f"The {name} stood.\n\nIt was an old {name}, 鳥.\n\n" * 9
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def open_chat(model: str, *, resume: bool) -> Chat:
    options = ChatOptions(resume=True) if resume else ChatOptions(session="birds")
    answers, named = AnswerOptions(max_tokens=4), frozenset({"model"})
    held = ModelOptions(model=model)
    return Opening((), held, answers, OutputOptions(), options, named, interactive=True).open()


def said(chat: Chat) -> dict[str, Any]:
    """All of a chat, as plain values."""
    found = chat.workspace.snapshot()
    branches = {
        name: {
            "documents": [
                (each.name, each.text, is_indexed((each,)), len(each), each.ids.tolist())
                for each in state.documents
            ],
            "turns": [loads(turn.record) for turn in state.history.turns],
            "settings": state.settings,
            "given up": (state.history.left_out, state.history.without_passages),
        }
        for name, state in found.branches.items()
    }
    return {"branches": branches, "branch": found.branch, "watched": found.watched}


def line_for(chat: Chat, rng: random.Random, birds: Path, number: int) -> str:
    count, branches = len(chat.workspace.documents), list(chat.workspace.branches)
    bird = birds / f"{rng.choice(BIRDS)}.txt"
    lines = [f"/read {bird}", f"/read {bird}", f"/read {birds}", "/undo", "/undo", "/redo"]
    lines += [f"Where did the {bird.stem} stand?", f"/fork b{number}", "/set read recall"]
    lines += [f"/switch {rng.choice(branches)}", f"/save s{number}", "/regen"]
    if count:
        at, to = rng.randint(1, count), rng.randint(1, count)
        lines += [f"/drop {at}", f"/drop {at}", f"/move {at} {to}", f"/reload {at}"]
    return rng.choice(lines)


@pytest.mark.parametrize("seed", range(8))
def test_chats_edited_at_random_come_back(
    seed: int, model: str, birds: Path, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    chat = open_chat(model, resume=False)
    monkeypatch.setattr(shelf, "INDEX_FROM", 0)
    new_repl(chat, DummyInput()).handle(f"/read {birds}")
    assert is_indexed(chat.workspace.documents) and len(chat.workspace.documents) == 5
    for number in range(4):
        repl = new_repl(chat, DummyInput())
        for step in range(7):
            monkeypatch.setattr(shelf, "INDEX_FROM", rng.choice((0, 10**9)))
            if rng.random() < 0.2:
                changed = birds / f"{rng.choice(BIRDS)}.txt"
                changed.write_text(f"The {changed.stem} flew {number}{step}. " * 20)
            repl.handle(line_for(chat, rng, birds, 10 * number + step))
        repl.handle("Who?")
        before, tokenizer = said(chat), chat.lm.tokenizer
        chat.autosave.close()
        assert chat.autosave.failure is None
        chat = open_chat(model, resume=True)
        assert said(chat) == before
        for state in chat.workspace.branches.values():
            for each in state.documents:
                assert each.ids.tolist() == tokenizer.encode_document(each.text).ids.tolist()
    chat.autosave.close()
    (isolated_home / "index").rename(isolated_home / "away")
    chat = open_chat(model, resume=True)
    without = said(chat)
    chat.autosave.close()
    for name, branch in before["branches"].items():
        left = [each for each in branch["documents"] if not each[2]]
        assert without["branches"][name] == branch | {"documents": left}
    (isolated_home / "away").rename(isolated_home / "index")
    chat = open_chat(model, resume=True)
    assert said(chat) == before  # to have been opened without them cost nothing
    chat.autosave.close()
