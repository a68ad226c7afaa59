"""The chat's slash commands: their table, their arguments, what each of them does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chat_helpers import Talk, scripted
from cli_helpers import ScriptedModel

import nazx_cli
from nazx_cli.errors import UsageError
from nazx_cli.ui import commands
from nazx_cli.ui.commands.command import last_word, split_words


def test_no_name_stands_for_two_commands() -> None:
    names = [name for command in commands.COMMANDS for name in command.names]
    assert len(names) == len(set(names))
    assert all(commands.find(name) is not None for name in names)


def test_every_example_is_one_that_its_command_takes() -> None:
    for command in commands.COMMANDS:
        if command.example:
            name, _, rest = command.example.partition(" ")
            assert name in command.names
            assert command.parse(rest).text == rest


def test_the_commands_of_the_chat_are_all_there() -> None:
    wanted = (
        "/help /? /exit /quit /bye /clear /read /docs /drop /swap /move /reload /context /sources "
        "/undo /redo /regen /thinking /edit /fork /switch /save /load /sessions /set /show /model "
        "/estimate /copy /export"
    )
    assert {name for c in commands.COMMANDS for name in c.names} == set(wanted.split())


def test_the_list_of_commands_fits_a_terminal_of_80_columns(talk: Talk) -> None:
    table, _, topics = talk("/help").partition("\n\ntopics: ")
    assert max(map(len, table.splitlines())) <= 80 and "reading" in topics


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a b", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        ("'a b'", ["a b"]),
        (r"a\ b", ["a b"]),
        ("a#b $HOME *.txt", ["a#b", "$HOME", "*.txt"]),
        ("", []),
    ],
)
def test_arguments_are_taken_apart_as_a_shell_does(typed: str, words: list[str]) -> None:
    assert split_words(typed, windows=False) == words


def test_a_backslash_is_part_of_a_path_on_windows() -> None:
    assert split_words(r"C:\My\book.txt", windows=True) == [r"C:\My\book.txt"]
    assert split_words(r'1 "C:\My books\a.txt"', windows=True) == ["1", r"C:\My books\a.txt"]


def test_an_open_quotation_mark_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not closed"):
        split_words("it's.txt")


@pytest.mark.parametrize(
    ("line", "raw", "text", "before"),
    [
        ("", "", "", ()),
        ("al", "al", "al", ()),
        ("1 al", "al", "al", ("1",)),
        ("1 ", "", "", ("1",)),
        ('"my fi', '"my fi', "my fi", ()),
        (r"my\ fi", r"my\ fi", "my fi", ()),
        ('"a b" c', "c", "c", ("a b",)),
    ],
)
def test_the_word_that_is_being_typed(
    line: str, raw: str, text: str, before: tuple[str, ...]
) -> None:
    word = last_word(line, windows=False)
    assert (word.raw, word.text, word.before) == (raw, text, before)


@pytest.mark.parametrize("name", ["a.txt", "my file.txt", "it's.txt", 'a"b.txt', "a\\b.txt"])
@pytest.mark.parametrize("typed", ["", '"', "'"])
def test_a_completed_word_means_what_was_completed(typed: str, name: str) -> None:
    written = last_word(typed, windows=False).written(name, windows=False)
    assert split_words(written, windows=False) == [name]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fox.txt").write_text("The fox bought a lantern.\n")
    (tmp_path / "hen.txt").write_text("The hen sold a ladder.\n" * 3)
    (tmp_path / "my owl.txt").write_text("The owl kept a ledger.\n")
    return scripted("A lantern.", "A ladder.", "A ledger.")


def test_documents_are_read_listed_and_dropped(talk: Talk) -> None:
    talk("/read fox.txt 'my owl.txt'")
    assert "read fox.txt (26 tokens)\nread my owl.txt (23 tokens)\n" in talk.shown
    assert "2 documents, 49 tokens, in " in talk.shown
    table = talk("/docs").splitlines()
    assert table[1].split() == ["1", "fox.txt", "26", "53", "%", "text"]
    assert table[2].split()[:3] == ["2", "my", "owl.txt"]
    assert talk("/drop 1").startswith("dropped fox.txt (26 tokens) in ")
    assert [part.name for part in talk.workspace.documents] == ["my owl.txt"]


def test_of_many_documents_the_first_and_the_last_are_listed(talk: Talk) -> None:
    Path("deep/er/notes").mkdir(parents=True)
    for n in range(1, 31):
        Path(f"deep/er/notes/about-the-foxes-of-the-forest-{n:02}.txt").write_text(f"Fox {n}.\n")
    talk("/read deep")
    lines = talk("/docs").splitlines()
    assert len(lines) == 1 + 12 + 12 + 1
    assert lines[12].split()[0] == "12" and lines[13].split()[0] == "19"
    assert lines[-1] == "and 6 more between 12 and 19; /docs all lists them"
    assert lines[1].split()[1].startswith("deep/") and lines[1].split()[1].endswith("forest-01.txt")
    assert [line.split()[0] for line in talk("/docs all").splitlines()[1:]] == [
        str(n) for n in range(1, 31)
    ]
    shares = talk("/context")
    assert "10 …he-foxes-of-the-forest-10.txt " in shares and "/docs all" in shares
    for n in range(30, 25, -1):
        talk(f"/drop {n}")
    assert len(talk("/docs").splitlines()) == 1 + 25  # a mention would be no shorter


def test_reading_what_is_there_says_so(talk: Talk) -> None:
    talk("/read fox.txt")
    assert talk("/read fox.txt") == "fox.txt is here already\n"


def test_a_glob_reads_what_it_matches(talk: Talk) -> None:
    talk("/read *.txt")
    assert [part.name for part in talk.workspace.documents] == ["fox.txt", "hen.txt", "my owl.txt"]


def test_a_home_that_is_nobodys_is_a_path_that_is_not_there(talk: Talk) -> None:
    assert "error: " in talk("/export ~no-such-user/talk.md")
    assert "error: " in talk("/model ~no-such-user/m")
    assert "error: there is no file" in talk("/read ~no-such-user/a.txt")


def test_documents_are_swapped_and_moved(talk: Talk) -> None:
    talk("/read fox.txt hen.txt")
    assert talk('/swap 1 "my owl.txt"').startswith("swapped fox.txt for my owl.txt (23 tokens) in ")
    assert talk("/move 2 1").startswith("moved hen.txt to place 1 in ")
    assert [part.name for part in talk.workspace.documents] == ["hen.txt", "my owl.txt"]


def test_a_document_is_reloaded_where_its_file_has_changed(talk: Talk) -> None:
    talk("/read fox.txt")
    assert talk("/reload 1") == "fox.txt has not changed\n"
    Path("fox.txt").write_text("The fox lost it.\n")
    assert "changed on disk" in talk("/docs")
    assert talk("/reload 1").startswith("read fox.txt (17 tokens) again in ")
    Path("fox.txt").unlink()
    assert "gone from disk" in talk("/docs")
    Path("fox.txt").mkdir()
    Path("fox.txt/a.txt").write_text("Another fox.\n")
    assert "fox.txt is gone from" in talk("/reload 1")


def test_a_watched_document_is_taken_in_again_before_the_next_answer(talk: Talk) -> None:
    talk("/read fox.txt")
    talk("/reload 1 --watch")
    assert "watched" in talk("/docs")
    Path("fox.txt").write_text("The fox bought a kettle.\n")
    assert "note: fox.txt has changed: read it again (25 tokens) in " in talk("What did it buy?")
    assert "kettle" in talk.lm.prompts[-1] and "lantern" not in talk.lm.prompts[-1]
    assert talk("/reload 1 --watch") == "fox.txt is watched no more\n"
    Path("fox.txt").write_text("The fox bought a lantern.\n")
    assert "has changed" not in talk("What did it buy?")


def test_a_watched_file_that_vanishes_is_told_once_and_its_text_stays(talk: Talk) -> None:
    talk("/read fox.txt")
    talk("/reload 1 --watch")
    Path("fox.txt").unlink()
    assert "fox.txt is gone from disk" in talk("What did the fox buy?")
    assert "gone" not in talk("What did the fox buy?")
    assert "lantern" in talk.lm.prompts[-1]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("/drop", "/drop needs N ..."),
        ("/swap 1", "/swap needs PATH"),
        ("/docs 1", "/docs does not take '1'"),
        ("/read", "/read needs PATH|GLOB ..."),
        ("/set", "/set needs parameter K V | system TEXT"),
        ("/set parameter", "/set needs a parameter and its value"),
        ("/set temperature", "/set needs a value"),
    ],
)
def test_a_wrong_number_of_arguments_shows_the_right_one(talk: Talk, line: str, wrong: str) -> None:
    shown = talk(line)
    assert shown.startswith(f"error: {wrong}; next: type /")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("line", ["/drop one", "/drop 2", "/drop 0", "/reload 1 --often"])
def test_a_document_that_is_not_there_is_one_line(talk: Talk, line: str) -> None:
    talk("/read fox.txt")
    shown = talk(line)
    assert shown.startswith("error: ") and shown.count("\n") == 1
    assert len(talk.workspace.documents) == 1


def test_undo_and_redo_say_what_they_did(talk: Talk) -> None:
    talk("/read fox.txt")
    talk("/drop 1")
    assert talk("/undo").startswith("undone: dropped fox.txt (")
    assert len(talk.workspace.documents) == 1
    assert talk("/redo").startswith("done again: dropped fox.txt (")
    assert not talk.workspace.documents
    assert talk("/redo").startswith("error: there is nothing to redo")


def test_edit_puts_the_question_back_on_the_line(talk: Talk) -> None:
    talk("Who?")
    talk("/edit")
    assert talk.chat.draft == "Who?"
    assert talk.workspace.turns == ()
    talk("/undo")
    assert [turn.question for turn in talk.workspace.turns] == ["Who?"]


def test_regen_asks_the_last_question_again(talk: Talk) -> None:
    talk("Who?")
    talk("/regen")
    assert [(t.question, t.answer) for t in talk.workspace.turns] == [("Who?", "A ladder.")]


def test_forks_go_their_own_way(talk: Talk) -> None:
    talk("Who?")
    assert talk("/fork idea").startswith("now in idea, a fork of main, in ")
    talk("/clear")
    assert talk("/switch main").startswith("now in main (1 turn, 0 documents) in ")
    assert "* main" in talk("/switch") and "  idea  0 turns" in talk("/switch")


def test_parameters_and_the_system_message_are_set(talk: Talk) -> None:
    assert talk("/set parameter temperature 0.7") == "temperature is 0.7\n"
    talk("/set top-k 5")
    talk('/set system It\'s short, "very" short.')
    settings = talk.workspace.settings
    assert settings.system == 'It\'s short, "very" short.'
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.7, 5)
    talk("/set system")
    assert talk.workspace.settings.system is None
    assert "did you mean temperature?" in talk("/set parameter temprature 1")
    assert talk("/set temperature").startswith("error: ")


def test_the_context_is_shown_with_a_bar_for_each_document(talk: Talk) -> None:
    talk("/read fox.txt hen.txt")
    shown = talk("/context").splitlines()
    assert "█" in shown[0] and shown[0].startswith("1 fox.txt")
    assert shown[0].count("█") < shown[1].count("█")
    assert shown[2].startswith("conversation")
    assert "the window holds" in shown[-1]


def test_a_conversation_is_exported_with_its_sources(talk: Talk) -> None:
    assert "nothing has been said" in talk("/export talk.md")
    talk("/read fox.txt")
    talk("What did the fox buy?")
    assert talk("/export talk.md") == "wrote 1 turn to talk.md\n"
    text = Path("talk.md").read_text()
    assert "> What did the fox buy?" in text and "A lantern." in text
    assert "1. fox.txt:1" in text
    talk("What did it sell?")
    shown = talk("/export talk.md")
    assert shown.startswith("error: talk.md is there already; next: ")
    assert Path("talk.md").read_text() == text
    assert talk("/export talk.md !") == "wrote 2 turns to talk.md\n"
    assert talk("/export nowhere/talk.md").startswith("error: nowhere/talk.md cannot be written")


def test_copying_without_a_clipboard_says_what_else_there_is(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    talk("Who?")
    assert "there is no clipboard that can be reached; next: use /export" in talk("/copy")


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the clipboard's tool")
def test_copying_uses_the_tool_of_the_system(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "wl-copy"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat > {tmp_path}/clipboard\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    talk("Who?")
    assert talk("/copy") == "copied the last answer (10 characters) with wl-copy\n"
    assert (tmp_path / "clipboard").read_text() == "A lantern."


def test_help_about_one_command_shows_how_it_is_typed(talk: Talk) -> None:
    shown = talk("/help swap")
    assert "/swap N PATH" in shown and "as in: /swap 1 notes.txt" in shown
    assert "did you mean /swap?" in talk("/help swpa")


def test_help_about_a_topic_shows_its_file_and_help_names_all_topics(talk: Talk) -> None:
    folder = Path(nazx_cli.__file__).parent / "help"
    text = (folder / "layouts.md").read_text(encoding="utf-8")
    assert talk("/help layouts") == text
    listed = talk("/help")
    assert all(path.stem in listed for path in folder.glob("*.md"))
    assert "list the saved sessions" in talk("/help /sessions")


def test_a_command_that_is_interrupted_changes_nothing(talk: Talk) -> None:
    lm = ScriptedModel(["x"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    lm.tokenizer.encode_document = interrupted  # type: ignore[assignment,method-assign]
    talk = scripted(lm=lm)
    assert talk("/read fox.txt") == "(stopped)\n"
    assert talk.workspace.documents == ()


def test_the_topic_chat_lists_every_command() -> None:
    topic = (Path(nazx_cli.__file__).parent / "help" / "chat.md").read_text(encoding="utf-8")
    rows = [commands.row(command) for command in commands.COMMANDS]
    assert "\n".join(rows) in topic, "put these rows into help/chat.md:\n" + "\n".join(rows)


def test_several_documents_are_dropped_in_one_step(talk: Talk) -> None:
    for number in range(1, 5):
        Path(f"more{number}.txt").write_text(f"Number {number} is here.")
        talk(f"/read more{number}.txt")
    count = len(talk.workspace.documents)
    assert "more4.txt" in talk(f"/drop more4.txt {count - 3}-{count - 2}")
    assert [part.name for part in talk.workspace.documents][-1] == "more3.txt"
    talk("/undo")
    assert len(talk.workspace.documents) == count
    assert "no document is called" in talk("/drop nothing.txt")
    assert "no documents that there are" in talk("/drop 1-99999999")


def test_a_source_s_text_can_be_read(talk: Talk) -> None:
    talk("/read fox.txt")
    talk("What did the fox buy?")
    assert "The fox bought a lantern." in talk("/sources 1")
    assert "choose 1 to 1" in talk("/sources 2")


@pytest.mark.parametrize("word", ["exit", "quit", "/quit", "/bye"])
def test_a_word_that_leaves(talk: Talk, word: str) -> None:
    talk(word)
    assert talk.chat.leaving
