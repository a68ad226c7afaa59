"""The chat's logic, driven through prompt-toolkit's pipe input; the model is a scripted one."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_helpers import new_chat, new_repl
from cli_helpers import ScriptedModel, make_tokenizer
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document as Line
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import PipeInput, create_pipe_input

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.session.session import Session
from nazx_cli.ui import commands
from nazx_cli.ui.complete import ChatCompleter
from nazx_cli.ui.terminal.interrupts import InterruptGuard
from nazx_cli.ui.terminal.screen import Screen

CTRL_C, CTRL_D, CTRL_G, CTRL_R = "\x03", "\x04", "\x07", "\x12"
ESCAPE, UP, PASTE, PASTED = "\x1b", "\x1b[A", "\x1b[200~", "\x1b[201~"


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("TERM", "xterm")
    with create_pipe_input() as pipe:
        yield pipe


class Talk:
    """A chat and what it showed."""

    def __init__(
        self, keyboard: PipeInput, lm: ScriptedModel, book: str = "", history: Path | None = None
    ) -> None:
        library = None
        if book:
            library = Library.build([Document("book.txt", book, "text")], make_tokenizer())
        self.keyboard = keyboard
        self.lm = lm
        self.out, self.err = io.StringIO(), io.StringIO()
        self.session = Session(lm, library)
        self.chat = new_chat(self.session, Screen(self.out, self.err))
        self.repl = new_repl(self.chat, keyboard, history)

    @property
    def buffer(self) -> Buffer:
        return self.repl._prompt.default_buffer

    def type(self, keys: str) -> Talk:
        """Type, and run the chat until it ends."""
        self.keyboard.send_text(keys)
        self.repl.run()
        return self

    def type_slowly(self, *steps: str | Callable[[], bool]) -> None:
        """Type as a person does, who waits until conditions hold."""

        def send() -> None:
            for step in steps:
                if isinstance(step, str):
                    self.keyboard.send_text(step)
                    continue
                end = time.monotonic() + 20
                while not step() and time.monotonic() < end:
                    time.sleep(0.02)

        typist = threading.Thread(target=send)
        typist.start()
        self.repl.run()
        typist.join()


def test_questions_are_answered_until_ctrl_d(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One.", "Two."])).type(f"First?\rSecond?\r{CTRL_D}")
    assert chat.out.getvalue() == "One.\nTwo.\n"
    assert chat.err.getvalue() == ""
    assert "First?" in chat.lm.prompts[1] and "One." in chat.lm.prompts[1]


@pytest.mark.parametrize("name", ["/exit", "/bye"])
def test_a_command_leaves(keyboard: PipeInput, name: str) -> None:
    chat = Talk(keyboard, ScriptedModel([])).type(f"{name}\rnot asked\r")
    assert (chat.out.getvalue(), chat.lm.prompts) == ("", [])


@pytest.mark.parametrize("name", ["/help", "/?"])
def test_help_lists_every_command(keyboard: PipeInput, name: str) -> None:
    chat = Talk(keyboard, ScriptedModel([])).type(f"{name}\r/exit\r")
    for command in commands.COMMANDS:
        for each in command.names:
            assert each in chat.err.getvalue()
        assert command.help in chat.err.getvalue()
    assert chat.out.getvalue() == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("/exti", "/exit"), ("/", "/help"), ("/CLEAR", "/clear"), ("/xyzzy", "/help")],
)
def test_an_unknown_command_suggests_the_nearest(
    keyboard: PipeInput, typed: str, meant: str
) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."])).type(f"{typed} 1\rFirst?\r/exit\r")
    assert f"error: there is no {typed}; next: did you mean {meant}?" in chat.err.getvalue()
    assert chat.out.getvalue() == "One.\n"


def test_clear_starts_a_new_conversation(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One.", "Two."]))
    chat.type("First?\r/clear\rSecond?\r/exit\r")
    assert "First?" not in chat.lm.prompts[1]


def test_sources_of_the_last_answer_can_be_asked_for(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["A lantern."]), "The fox bought a lantern.")
    chat.type("/sources\rWhat did the fox buy?\r/sources\r/exit\r")
    before, _, after = chat.err.getvalue().partition("sources:")
    assert "had no sources" in before
    assert "book.txt:1  “The fox bought a lantern." in after


def test_ctrl_c_clears_the_line(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."])).type(f"Wrong{CTRL_C}First?\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["First?"]


def test_ctrl_c_twice_on_an_empty_line_leaves(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel([])).type(f"{CTRL_C}{CTRL_C}not asked\r")
    assert "Ctrl-C again" in chat.err.getvalue()
    assert chat.lm.prompts == []


def test_ctrl_c_once_on_an_empty_line_stays(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."]))
    chat.type(f"{CTRL_C}First?\r{CTRL_C}/exit\r")
    assert chat.out.getvalue() == "One.\n"


def test_ctrl_c_after_one_that_stopped_an_answer_leaves(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["abcdef"], cut=3)).type(f"First?\r{CTRL_C}not asked\r")
    assert [turn.question for turn in chat.session.turns] == ["First?"]
    assert "Ctrl-C again" not in chat.err.getvalue()


def test_an_interrupted_answer_is_kept_and_the_chat_goes_on(keyboard: PipeInput) -> None:
    lm = ScriptedModel(["abcdef", "Two."], cut=3)
    chat = Talk(keyboard, lm)
    chat.repl.handle("First?")
    lm.cut = None
    chat.type("Second?\r/exit\r")
    assert chat.out.getvalue() == "abc\nTwo.\n"
    assert "(stopped; what was said is kept)" in chat.err.getvalue()
    assert "abc<|im_end|>" in lm.prompts[1]


def test_a_question_too_long_is_an_error_line_and_the_chat_goes_on(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."], window=200))
    chat.type(f"{'why ' * 60}\rFirst?\r/exit\r")
    assert chat.err.getvalue().startswith("error: the question has 239 tokens")
    assert "; next: " in chat.err.getvalue()
    assert chat.out.getvalue() == "One.\n"


def test_what_was_typed_is_there_in_the_next_chat(keyboard: PipeInput, tmp_path: Path) -> None:
    history = tmp_path / "home" / "history"
    Talk(keyboard, ScriptedModel(["One."]), history=history).type("First?\r/exit\r")
    assert history.stat().st_mode & 0o077 == 0
    with create_pipe_input() as another:
        chat = Talk(another, ScriptedModel(["One."]), history=history)
        chat.type(f"{UP}{UP}\r/exit\r")
        assert [turn.question for turn in chat.session.turns] == ["First?"]


def test_a_full_disk_ends_no_chat(
    keyboard: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileHistory, "store_string", full)
    chat = Talk(keyboard, ScriptedModel(["One.", "Two."]), history=tmp_path / "history")
    chat.type("First?\rSecond?\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["First?", "Second?"]


def test_control_sequences_of_the_model_are_not_shown(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["a\x1b[31mb\x1b]0;owned\x07c\u202ed"]))
    chat.type("First?\r/exit\r")
    assert chat.out.getvalue() == "abcd\n"


def test_a_multi_line_question_stands_between_fences(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."]))
    chat.type('"""First\rline,\r\r/exit """\r/exit\r')
    assert [turn.question for turn in chat.session.turns] == ["First\nline,\n\n/exit"]


def test_alt_enter_begins_a_new_line(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."])).type(f"First{ESCAPE}\rline\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["First\nline"]


def test_what_is_pasted_is_one_question_however_many_lines_it_has(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."]))
    chat.type(f"What is\x20{PASTE}def f():\r\n\treturn 1\r\n/exit{PASTED}\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["What is def f():\n\treturn 1\n/exit"]


@pytest.mark.parametrize("text", ["/usr/bin/env: what is it?", "//comment"])
def test_a_path_is_no_command(keyboard: PipeInput, text: str) -> None:
    chat = Talk(keyboard, ScriptedModel(["One."])).type(f"{text}\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == [text]


def test_ctrl_g_opens_the_editor_on_what_is_typed(
    keyboard: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[1], 'a').write(' it?')\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("EDITOR", "false")
    chat = Talk(keyboard, ScriptedModel(["One."]))
    chat.type_slowly(f"What is{CTRL_G}", lambda: chat.buffer.text == "What is it?", "\r", "/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["What is it?"]


def test_ctrl_r_searches_what_was_typed(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One.", "Two.", "Three."]))

    def knows_history() -> bool:
        return len(chat.session.turns) == 2 and len(chat.buffer._working_lines) == 3

    chat.type_slowly("The fox?\rThe hen?\r", knows_history, f"{CTRL_R}fox\r\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["The fox?", "The hen?", "The fox?"]


def test_an_edited_question_starts_the_next_prompt(keyboard: PipeInput) -> None:
    chat = Talk(keyboard, ScriptedModel(["One.", "Two."])).type("Who\r/edit\r else?\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["Who else?"]


def test_tab_completes_a_command_and_its_path(
    keyboard: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my book.txt").write_text("The fox bought a lantern.\n")
    chat = Talk(keyboard, ScriptedModel([]))
    chat.type("/rea\tmy\t\r/exit\r")
    assert [part.name for part in chat.chat.workspace.documents] == ["my book.txt"]


def completions(chat: Talk, line: str) -> list[str]:
    """The lines that Tab offers."""
    offered = ChatCompleter(chat.chat).get_completions(Line(line), CompleteEvent())
    return [line[: len(line) + each.start_position] + each.text for each in offered]


def test_each_argument_is_completed_by_what_it_is(
    keyboard: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / ".hidden").write_text("a")
    chat = Talk(keyboard, ScriptedModel([]), "The fox bought a lantern.")
    chat.repl.handle("/fork idea")
    for line, offered in {
        "/re": ["/read ", "/reload ", "/regen", "/redo"],
        "/read n": ["/read notes/"],
        "/read notes/": ["/read notes/a.txt"],
        "/read .h": ["/read .hidden"],
        "/read 'not": ["/read 'notes/"],
        "/read a b notes/": ["/read a b notes/a.txt"],
        "/swap ": ["/swap 1"],
        "/swap 1 notes/": ["/swap 1 notes/a.txt"],
        "/reload 1 ": ["/reload 1 --watch"],
        "/switch ": ["/switch main", "/switch idea"],
        "/set p": ["/set parameter"],
        "/set parameter te": ["/set parameter temperature"],
        "/set parameter read r": ["/set parameter read recall", "/set parameter read resident"],
        "/model nazx-smol-13": ["/model nazx-smol-135m"],
        "/help se": ["/help sessions", "/help set", "/help serve"],
        "/clear ": [],
        "/nothing ": [],
        "/drop 1 ": ["/drop 1 1"],
        "/move 1 1 ": [],
        "/read nowhere/": [],
        "read": [],
    }.items():
        assert completions(chat, line) == offered, line


def interrupt() -> None:
    """What Ctrl-C does to a process, delivered before the next line runs."""
    signal.raise_signal(signal.SIGINT)


def test_the_first_interrupt_of_a_deferring_guard_waits_the_second_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with InterruptGuard() as guard:
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        guard.defer = True
        interrupt()
        assert guard.pending
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupt_between_two_tokens_keeps_the_context(keyboard: PipeInput) -> None:
    lm = ScriptedModel(["abcdef", "Two."])
    chat = Talk(keyboard, lm)
    write = chat.out.write

    def write_and_interrupt(text: str) -> int:
        if text == "c":
            interrupt()
        return write(text)

    chat.out.write = write_and_interrupt  # type: ignore[method-assign]
    chat.repl.handle("First?")
    chat.repl.handle("Second?")
    assert chat.out.getvalue() == "abc\nTwo.\n"
    assert [(turn.answer, turn.interrupted) for turn in chat.session.turns] == [
        ("abc", True),
        ("Two.", False),
    ]
    assert len(lm.contexts) == 1
