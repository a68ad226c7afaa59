"""The chat's logic, driven through prompt-toolkit's pipe input; the model is a scripted one."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel, make_tokenizer
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.session.session import Session
from nazx_cli.ui import commands
from nazx_cli.ui.interrupt import InterruptGuard
from nazx_cli.ui.repl import Repl
from nazx_cli.ui.screen import Screen

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


class Chat:
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
        self.repl = Repl(
            self.session,
            Screen(self.out, self.err),
            history,
            keyboard=keyboard,
            display=DummyOutput(),
        )

    def type(self, keys: str) -> Chat:
        """Type, and run the chat until it ends."""
        self.keyboard.send_text(keys)
        self.repl.run()
        return self


def test_questions_are_answered_until_ctrl_d(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["One.", "Two."])).type(f"First?\rSecond?\r{CTRL_D}")
    assert chat.out.getvalue() == "One.\nTwo.\n"
    assert chat.err.getvalue() == ""
    assert "First?" in chat.lm.prompts[1] and "One." in chat.lm.prompts[1]


@pytest.mark.parametrize("name", ["/exit", "/bye"])
def test_a_command_leaves(keyboard: PipeInput, name: str) -> None:
    chat = Chat(keyboard, ScriptedModel([])).type(f"{name}\rnot asked\r")
    assert (chat.out.getvalue(), chat.lm.prompts) == ("", [])


@pytest.mark.parametrize("name", ["/help", "/?"])
def test_help_lists_every_command(keyboard: PipeInput, name: str) -> None:
    chat = Chat(keyboard, ScriptedModel([])).type(f"{name}\r/exit\r")
    for command in commands.COMMANDS:
        for each in command.names:
            assert each in chat.err.getvalue()
        assert command.help in chat.err.getvalue()
    assert chat.out.getvalue() == ""


@pytest.mark.parametrize(
    ("typed", "meant"), [("/exti", "/exit"), ("/CLEAR", "/clear"), ("/xyzzy", "/help")]
)
def test_an_unknown_command_suggests_the_nearest(
    keyboard: PipeInput, typed: str, meant: str
) -> None:
    chat = Chat(keyboard, ScriptedModel(["One."])).type(f"{typed} 1\rFirst?\r/exit\r")
    assert f"there is no {typed}; did you mean {meant}?" in chat.err.getvalue()
    assert chat.out.getvalue() == "One.\n"


def test_clear_starts_a_new_conversation(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["One.", "Two."]))
    chat.type("First?\r/clear\rSecond?\r/exit\r")
    assert "First?" not in chat.lm.prompts[1]


def test_sources_of_the_last_answer_can_be_asked_for(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["A lantern."]), "The fox bought a lantern.")
    chat.type("/sources\rWhat did the fox buy?\r/sources\r/exit\r")
    before, _, after = chat.err.getvalue().partition("sources:")
    assert "had no sources" in before
    assert "book.txt:1  “The fox bought a lantern." in after


def test_ctrl_c_clears_the_line(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["One."])).type(f"Wrong{CTRL_C}First?\r/exit\r")
    assert [turn.question for turn in chat.session.turns] == ["First?"]


def test_ctrl_c_twice_on_an_empty_line_leaves(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel([])).type(f"{CTRL_C}{CTRL_C}not asked\r")
    assert "Ctrl-C again" in chat.err.getvalue()
    assert chat.lm.prompts == []


def test_ctrl_c_once_on_an_empty_line_stays(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["One."]))
    chat.type(f"{CTRL_C}First?\r{CTRL_C}/exit\r")
    assert chat.out.getvalue() == "One.\n"


def test_an_interrupted_answer_is_kept_and_the_chat_goes_on(keyboard: PipeInput) -> None:
    lm = ScriptedModel(["abcdef", "Two."], cut=3)
    chat = Chat(keyboard, lm)
    chat.repl.handle("First?")
    lm.cut = None
    chat.type("Second?\r/exit\r")
    assert chat.out.getvalue() == "abc\nTwo.\n"
    assert "(stopped; what was said is kept)" in chat.err.getvalue()
    assert "abc<|im_end|>" in lm.prompts[1]


def test_a_question_too_long_is_an_error_line_and_the_chat_goes_on(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["One."], window=200))
    chat.type(f"{'why ' * 60}\rFirst?\r/exit\r")
    assert chat.err.getvalue().startswith("error: the question has 239 tokens")
    assert "; next: " in chat.err.getvalue()
    assert chat.out.getvalue() == "One.\n"


def test_what_was_typed_is_there_in_the_next_chat(keyboard: PipeInput, tmp_path: Path) -> None:
    history = tmp_path / "home" / "history"
    Chat(keyboard, ScriptedModel(["One."]), history=history).type("First?\r/exit\r")
    assert history.stat().st_mode & 0o077 == 0
    with create_pipe_input() as another:
        chat = Chat(another, ScriptedModel(["One."]), history=history)
        chat.type(f"{UP}{UP}\r/exit\r")
        assert [turn.question for turn in chat.session.turns] == ["First?"]


def test_control_sequences_of_the_model_are_not_shown(keyboard: PipeInput) -> None:
    chat = Chat(keyboard, ScriptedModel(["a\x1b[31mb\x1b]0;owned\x07c\u202ed"]))
    chat.type("First?\r/exit\r")
    assert chat.out.getvalue() == "abcd\n"


def test_no_name_stands_for_two_commands() -> None:
    names = [name for command in commands.COMMANDS for name in command.names]
    assert len(names) == len(set(names))
    assert all(commands.find(name) is not None for name in names)


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
    chat = Chat(keyboard, lm)
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
