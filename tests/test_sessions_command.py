"""``nazx sessions``, ``nazx ask`` in a session, and the exit code where a save fails."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint
from saved_sessions import save
from store_helpers import full_state, part_of, turn_of

from nazx_cli.cli.shared import options
from nazx_cli.session.saving import records
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import History, State

SHORT = ("--max-tokens", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def store(isolated_home: Path) -> Store:
    return Store(isolated_home / "sessions")


@pytest.fixture
def work(store: Store) -> Store:
    """Two sessions, one of which tells of an umbrella, and one that is damaged."""
    turns = tuple(
        turn_of(n, "The heron bought\na RED umbrella. " * (n == 2), n / 4) for n in range(3)
    )
    save(store, "work", State((part_of("a.txt", "some text"),), History(turns)))
    save(store, "other", full_state())
    save(store, "bad", full_state())
    with closing(sqlite3.connect(store.folder / "bad.nazx")) as file, file:
        file.execute("DELETE FROM turns")
    return store


def told(*arguments: str) -> object:
    out, err, code = nazx("sessions", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


# nazx sessions


def test_sessions_are_listed_with_what_they_hold(work: Store) -> None:
    for command in (("sessions",), ("sessions", "list")):
        out, err, code = nazx(*command)  # its times need not be those of the one before
        assert (code, err) == (0, "")
        assert {line.split()[0] for line in out.splitlines()[1:]} == {"work", "other", "bad"}
    listed = {each["name"]: each for each in told("list")}  # type: ignore[attr-defined]
    assert (listed["work"]["turns"], listed["work"]["documents"]) == (3, 1)
    assert listed["work"]["bytes"] == (work.folder / "work.nazx").stat().st_size
    assert told() == told("list")


def test_no_session_is_an_empty_list(store: Store) -> None:
    assert told() == []
    assert "nazx chat" in nazx("sessions")[1]


def test_a_session_is_shown_and_exported_as_markdown_and_json(
    work: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, err, code = nazx("sessions", "show", "work")
    assert (code, err) == (0, "")
    assert "> question 2 The heron bought\n> a RED umbrella." in shown
    data = told("show", "work")
    assert isinstance(data, dict)
    assert [turn["interrupted"] for turn in data["turns"]] == [False, True, False]
    assert [turn["confidence"] for turn in data["turns"]] == [0.0, 0.25, 0.5]
    assert (shown.count("*(a guess)*"), shown.count("*(unsure)*")) == (1, 1)
    assert data["documents"] == [{"name": "a.txt", "tokens": len(part_of("a.txt", "some text"))}]
    assert nazx("sessions", "export", "work")[2] == 0
    assert Path("work.md").read_text().rstrip() == shown.rstrip()
    out, err, code = nazx("sessions", "export", "work", "--format", "json")
    assert (code, out) == (0, "wrote 3 turns of work to work.json\n")
    assert json.loads(Path("work.json").read_text()) == data
    out, err, code = nazx("sessions", "export", "work")
    assert code == 2 and "work.md is there already; next: add --overwrite" in err
    assert nazx("sessions", "export", "work", "work.md", "--overwrite")[2] == 0
    assert nazx("sessions", "export", "work", str(tmp_path / "no" / "x"))[2] == 1


def test_a_search_finds_turns_that_have_all_the_words(work: Store) -> None:
    found = told("search", "UMBRELLA", "red")
    assert [(each["name"], each["turn"]) for each in found] == [("work", 3)]  # type: ignore[attr-defined]
    out, err, code = nazx("sessions", "search", "red umbrella")
    assert code == 0 and out.startswith("work:3  ") and "umbrella" in out
    assert "session bad is damaged" in err
    assert told("search", "umbrella", "nowhere") == []
    assert nazx("sessions", "search", " ")[2] == 2


def test_removing_asks_first(work: Store) -> None:
    _, err, code = nazx("sessions", "rm", "work", "bad")
    assert code == 2 and "removing work, bad needs a yes" in err
    _, err, code = nazx("sessions", "rm", "work", "none", "--yes")
    assert code == 2 and "no session named none" in err
    assert len(work.names()) == 3
    with work.open("other", create=False):
        _, err, code = nazx("sessions", "rm", "work", "other", "--yes")
    assert code != 0 and "session other is open" in err and len(work.names()) == 3
    assert told("rm", "work", "bad", "work", "--yes") == {"removed": ["work", "bad"]}
    assert work.names() == ["other"]


def test_a_damaged_session_is_refused_repaired_and_goes_on(work: Store) -> None:
    out, err, code = nazx("sessions", "show", "bad")
    assert code == 1 and "nazx sessions repair bad" in err and err.count("\n") == 1
    done = told("repair", "bad")
    assert isinstance(done, dict)
    assert done["repaired"] and done["turns"] == 0 and done["documents"] == 5
    assert Path(done["kept"]).is_file() and done["lost"]
    out, err, code = nazx("sessions", "repair", "bad")
    assert (out, err, code) == ("bad is whole: 0 turns and 5 documents\n", "", 0)
    assert nazx("sessions", "show", "bad")[2] == 0


def test_names_are_completed(work: Store) -> None:
    assert sorted(options.session_names()) == ["bad", "other", "work"]


# nazx ask in a session


def test_a_question_begins_a_session_and_goes_on_with_it(
    model: str, store: Store, tmp_path: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The fox bought a lantern.\n")
    ask = ("ask", "What did the fox buy?")
    assert nazx(*ask, "-m", model, *SHORT, "-f", str(book), "--session", "work")[2] == 0
    book.unlink()
    assert nazx(*ask, "--session", "work")[2] == 0
    assert nazx(*ask, "--continue", stdin="The heron bought an umbrella.")[2] == 0
    (info,) = store.infos()
    assert (info.name, info.turns, info.documents, info.model) == ("work", 3, 2, model)
    assert nazx("chat", "--session", "work", stdin="Who?\n")[2] == 0
    assert store.infos()[0].turns == 4


def test_a_question_alone_leaves_no_session(model: str, store: Store) -> None:
    assert nazx("ask", "Who?", "-m", model, *SHORT)[2] == 0
    assert store.infos() == [] and not store.folder.exists()


def test_a_session_to_go_on_with_has_to_be_there_and_free(model: str, store: Store) -> None:
    _, err, code = nazx("ask", "Who?", "-m", model, "--continue")
    assert code == 2 and "no session to resume" in err
    assert nazx("ask", "Who?", "-m", model, "--continue", "--session", "a")[2] == 2
    with store.open("held", create=True):
        _, err, code = nazx("ask", "Who?", "-m", model, "--session", "held")
    assert code != 0 and "held is open" in err


def test_a_damaged_session_is_not_begun_anew(model: str, store: Store) -> None:
    nazx("ask", "Who?", "-m", model, *SHORT, "--session", "work")
    with closing(sqlite3.connect(store.folder / "work.nazx")) as file, file:
        file.execute("DELETE FROM meta WHERE key = 'model'")
    before = (store.folder / "work.nazx").read_bytes()
    for command in (("ask", "Who?"), ("chat",)):
        out, err, code = nazx(*command, "-m", model, "--session", "work", stdin="")
        assert (out, code) == ("", 1) and "session work is damaged" in err
    assert (store.folder / "work.nazx").read_bytes() == before


# A save that fails


@pytest.mark.parametrize("command", [("ask", "Who?"), ("chat",)])
def test_a_save_that_fails_is_told_and_no_success(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    arguments = (*command, "-m", model, *SHORT, "--session", "work")
    stdin = "" if command[0] == "ask" else "Who?\nWhy?\n"
    assert nazx(*arguments, stdin=stdin)[2] == 0
    answers = nazx(*command, "-m", model, *SHORT, stdin=stdin)[0]

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(records, "save", fail)
        out, err, code = nazx(*arguments, stdin=stdin)
    assert code == 1
    assert out and out.count("\n") >= answers.count("\n")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: the disk is full: session work could not be saved; next: ")
    again = "error: this chat is not saved: the disk is full: session work could not be saved"
    assert errors[1:] == ([again] if command == ("chat",) else [])
    assert nazx(*arguments, stdin=stdin)[2] == 0


def test_a_save_that_succeeds_in_the_end_is_a_success(
    model: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = records.save, list[int]()

    def fail_twice(*given: object) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise sqlite3.OperationalError("database is locked")
        original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(records, "save", fail_twice)
    _, err, code = nazx("chat", "-m", model, *SHORT, "--session", "work", stdin="Who?\nWhy?\n")
    assert code == 0 and err.count("in use by another program") == 1
    assert store.infos()[0].turns == 2


def test_a_folder_that_cannot_be_used_is_told_before_the_answer(
    model: str, isolated_home: Path
) -> None:
    (isolated_home / "sessions").write_text("in the way")
    out, err, code = nazx("ask", "Who?", "-m", model, "--session", "work")
    assert (out, code) == ("", 1) and "cannot use" in err
