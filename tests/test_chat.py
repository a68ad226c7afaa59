"""``nazx chat`` on the real engine with a tiny model: sessions, options, scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from chat_helpers import new_repl
from cli_helpers import run_nazx, tiny_checkpoint
from prompt_toolkit.input import DummyInput

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.opening import Opening
from nazx_cli.cli.shared.options import ChatOptions, ModelOptions, OutputOptions
from nazx_cli.errors import NazxError
from nazx_cli.index import shelf
from nazx_cli.index.shelf import is_indexed
from nazx_cli.session.saving.autosave import Autosave
from nazx_cli.session.saving.store import Store
from nazx_cli.ui.chat import Chat

SHORT = ("--max-tokens", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def store(isolated_home: Path) -> Store:
    return Store(isolated_home / "sessions")


def chat(*arguments: str, stdin: str = "Who?\n") -> tuple[str, str, int]:
    return run_nazx("chat", *arguments, stdin=stdin)


def open_chat(model: str, options: ChatOptions | None = None, files: tuple[str, ...] = ()) -> Chat:
    """A chat as in a terminal."""
    answers, output = AnswerOptions(max_tokens=4), OutputOptions()
    opening = Opening(
        files,
        ModelOptions(model=model),
        answers,
        output,
        options or ChatOptions(),
        frozenset({"model"}),
        True,
    )
    return opening.open()


def handle(chat: Chat, *lines: str) -> None:
    repl = new_repl(chat, DummyInput())
    for line in lines:
        repl.handle(line)


def close(chat: Chat) -> None:
    chat.autosave.close()


def test_a_script_leaves_no_session_unless_one_is_named(model: str, store: Store) -> None:
    assert chat("-m", model, *SHORT)[2] == 0
    assert store.infos() == []
    assert chat("-m", model, *SHORT, "--session", "work")[2] == 0
    assert [(info.name, info.turns) for info in store.infos()] == [("work", 1)]


def test_a_script_prints_one_object_a_turn(model: str) -> None:
    out, _, code = chat("-m", model, *SHORT, "--json", stdin="One?\n\nTwo?\n")
    assert code == 0
    assert [json.loads(line)["mode"] for line in out.splitlines()] == ["none", "none"]


def test_a_session_goes_on_with_its_model_and_settings(model: str, store: Store) -> None:
    chat("-m", model, *SHORT, "--session", "work", "--repeat-penalty", "1.5", "-s", "Be brief.")
    _, err, code = chat("--session", "work", "--max-tokens", "3")
    assert (code, err) == (0, "(the answer was cut off; --max-tokens allows a longer one)\n")
    (info,) = store.infos()
    assert (info.turns, info.model) == (2, model)
    resumed = open_chat(model, ChatOptions(resume=True))
    settings = resumed.workspace.settings
    assert (settings.system, settings.sampling.repeat_penalty) == ("Be brief.", 1.5)
    assert settings.max_tokens == 3
    close(resumed)


def test_an_environment_variable_does_not_change_a_saved_session(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat("-m", model, *SHORT, "--session", "work", "--repeat-penalty", "1.5")
    monkeypatch.setenv("NAZX_REPEAT_PENALTY", "1.0")
    monkeypatch.setenv("NAZX_MODEL", "nothing-like-this")
    assert chat("--session", "work")[2] == 0
    resumed = open_chat(model, ChatOptions(session="work"))
    assert resumed.workspace.settings.sampling.repeat_penalty == 1.5
    close(resumed)


def test_there_has_to_be_a_session_to_resume(model: str) -> None:
    out, err, code = chat("-m", model, "--resume")
    assert (out, code) == ("", 2)
    assert err == "error: there is no session to resume; next: begin one with: nazx chat\n"
    assert chat("-m", model, "--resume", "--session", "work")[2] == 2


def test_files_are_added_to_a_session_once(model: str, store: Store, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n")
    for _ in range(2):
        assert chat("-m", model, *SHORT, "--session", "work", "-f", str(book))[2] == 0
    assert [(info.turns, info.documents) for info in store.infos()] == [(2, 1)]
    book.unlink()
    assert chat("--session", "work", *SHORT, stdin="What did the fox buy?\n")[2] == 0


def test_another_model_is_refused_unless_forced(model: str, store: Store, tmp_path: Path) -> None:
    other = str(tiny_checkpoint(tmp_path / "other", window=512))
    chat("-m", model, *SHORT, "--session", "work")
    out, err, code = chat("-m", other, *SHORT, "--session", "work")
    assert (out, code) == ("", 2)
    assert err.startswith("error: ") and "--force" in err and err.count("\n") == 1
    assert chat("-m", other, *SHORT, "--session", "work", "--force")[2] == 0
    assert [(info.turns, info.model) for info in store.infos()] == [(2, other)]


def test_a_chat_in_which_nothing_was_said_leaves_no_session(model: str, store: Store) -> None:
    close(open_chat(model))
    assert store.infos() == []


def test_every_turn_and_edit_is_saved_at_once(model: str, store: Store, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n")
    talk = open_chat(model)
    seen = []
    for line in ("Who?", f"/read {book}", "/drop 1", "/undo", "/clear"):
        handle(talk, line)
        seen += [(info.turns, info.documents) for info in store.infos()]
    assert seen == [(1, 0), (1, 1), (1, 0), (1, 1), (0, 1)]
    close(talk)


def test_what_is_read_into_the_index_is_saved_as_other_documents_are(
    model: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "INDEX_FROM", 0)
    for name in ("crane", "heron", "stork"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} stood in the reeds.\n" * 9)
    talk = open_chat(model)
    handle(talk, f"/read {tmp_path}/*.txt", "Who?", "/fork other", "/drop 1", "/undo", "/drop 2")
    assert [(info.turns, info.documents) for info in store.infos()] == [(1, 2)]
    close(talk)
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    talk = open_chat(model, ChatOptions(resume=True))
    for branch, names in (("other", ["crane", "stork"]), ("main", ["crane", "heron", "stork"])):
        handle(talk, f"/switch {branch}")
        documents = talk.workspace.documents
        assert [Path(each.name).stem for each in documents] == names and is_indexed(documents)
    handle(talk, "Why?")
    assert [(info.turns, info.documents) for info in store.infos()] == [(2, 3)]
    (tmp_path / "owl.txt").write_text("The owl sat in the oak.\n")
    handle(talk, f"/read {tmp_path}/owl.txt")
    assert len(talk.workspace.documents) == 4 and is_indexed(talk.workspace.documents[-1:])
    close(talk)


def test_no_save_saves_nothing_until_it_is_asked_to(model: str, store: Store) -> None:
    talk = open_chat(model, ChatOptions(no_save=True))
    handle(talk, "Who?")
    assert store.infos() == []
    assert store.running() == [("(not saved)", os.getpid())]
    handle(talk, "/save kept", "Who?")
    assert [(info.name, info.turns) for info in store.infos()] == [("kept", 2)]
    assert store.running() == [("kept", os.getpid())]
    close(talk)
    assert store.running() == []


def test_a_chat_that_is_not_saved_overwrites_no_session(
    model: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    chat("-m", model, *SHORT, "--session", "work")
    talk = open_chat(model, ChatOptions(no_save=True))
    handle(talk, "Why?", "What?", "/save work")
    assert "there is a session named work already" in capsys.readouterr().err
    handle(talk, "/load work", "Where?")
    assert "work stays as it is saved" in capsys.readouterr().err
    assert [(info.name, info.turns) for info in store.infos()] == [("work", 1)]
    assert store.running() == [("(not saved)", os.getpid())]
    handle(talk, "/save other", "When?")
    assert {info.name: info.turns for info in store.infos()} == {"work": 1, "other": 3}
    close(talk)


def test_a_resumed_session_is_not_changed_with_no_save(model: str, store: Store) -> None:
    chat("-m", model, *SHORT, "--session", "work")
    talk = open_chat(model, ChatOptions(resume=True, no_save=True))
    assert len(talk.workspace.turns) == 1
    handle(talk, "Who?")
    assert [info.turns for info in store.infos()] == [1]
    assert store.running() == [("(not saved)", os.getpid())]
    close(talk)


def test_sessions_are_saved_listed_and_loaded(
    model: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = open_chat(model)
    handle(talk, "Who?", "/save one", "Why?", "/fork idea", "/save two", "/clear", "/load one")
    assert len(talk.workspace.turns) == 2
    assert (talk.workspace.branch, list(talk.workspace.branches)) == ("idea", ["main", "idea"])
    handle(talk, "/load two")
    assert len(talk.workspace.turns) == 0
    capsys.readouterr()
    handle(talk, "/sessions", "/load two", "/load three")
    shown = capsys.readouterr().err
    assert "*  two" in shown and "one" in shown
    assert "error: two is the session you are in" in shown
    assert "error: there is no session named three" in shown
    handle(talk, "Who?")
    assert {info.name: info.turns for info in store.infos()}["two"] == 1
    close(talk)


def test_a_session_is_one_chat_s_at_a_time(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    chat("-m", model, *SHORT, "--session", "work")
    talk = open_chat(model, ChatOptions(session="work"))
    with pytest.raises(NazxError, match="session work is open"):
        open_chat(model, ChatOptions(session="work"))
    close(talk)
    close(open_chat(model, ChatOptions(session="work")))


def test_a_store_that_fails_is_told_once_and_the_chat_goes_on(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = open_chat(model)

    class FullDisk:
        name = "full"
        fails = True
        saved = 0

        def save(self, *_: object) -> None:
            if self.fails:
                raise NazxError("the disk is full", "free some space")
            self.saved += 1

    disk = FullDisk()
    keeper = Autosave(talk.autosave.store, disk, talk.screen.error)  # type: ignore[arg-type]
    close(talk)
    talk.autosave = keeper
    handle(talk, "Who?", "Why?")
    assert capsys.readouterr().err.count("the disk is full") == 1
    disk.fails = False
    handle(talk, "/show")  # nothing new, but what was not saved yet
    handle(talk, "/show")
    assert disk.saved == 1
    disk.fails = True
    handle(talk, "When?")
    assert capsys.readouterr().err.count("the disk is full") == 1


def test_another_model_takes_over_the_conversation(
    model: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tiny_checkpoint(tmp_path / "other", window=512))
    talk = open_chat(model)
    handle(talk, "Who?", f"/model {other}", "Why?")
    assert len(talk.workspace.turns) == 2
    assert talk.lm.window == 512
    assert f"now {other}, the conversation kept, in " in capsys.readouterr().err
    handle(talk, "/model nothing-like-this")
    assert "error: " in capsys.readouterr().err
    assert talk.lm.name == other
    assert [(info.turns, info.model) for info in store.infos()] == [(2, other)]
    close(talk)


def test_show_tells_model_settings_and_session(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = open_chat(model)
    handle(talk, "Who?", "/fork idea", "/set system Be brief.", "/set temperature 0.5", "/show")
    shown = " ".join(capsys.readouterr().err.split())
    for part in (
        f"model {model}",
        "windowed attention, window 1,024 tokens",
        "system Be brief.",
        "temperature 0.5",
        f"session {talk.autosave.name}",
        "branch idea (others: main)",
        "turns 1",
    ):
        assert part in shown
    close(talk)


def test_the_estimate_counts_this_model_and_this_context(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n" * 100)
    talk = open_chat(model, files=(str(book),))
    handle(talk, "/estimate")
    shown = capsys.readouterr().err
    assert "2,600 tokens" in shown
    for name in ("weights", "context", "workspace", "total", "in use", "free", "dense cache"):
        assert name in shown
    close(talk)
