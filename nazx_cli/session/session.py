"""A conversation: brings question, documents and history to the model and tells what happens.

The context holds the prompt's token ids. Each turn renders the whole prompt again and keeps the
longest beginning that the context already holds, so an unchanged beginning is never recomputed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from nazx_cli.errors import ContextOverflowError, NazxError, UsageError
from nazx_cli.reading.library import Library
from nazx_cli.session.arrange import Arranged
from nazx_cli.session.earlier import EarlierTurns
from nazx_cli.session.events import Answer, Delta, Event, Notice, Reading
from nazx_cli.session.history import History, Turn
from nazx_cli.session.messages import Message
from nazx_cli.session.prompt import Prompt
from nazx_cli.session.prompter import LEAST_ANSWER, Prompter
from nazx_cli.session.reader import Reader
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import State
from nazx_cli.session.stops import StopFilter
from nazx_cli.session.templates import stop_strings

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.engine.generator import Step
    from nazx_cli.engine.language_model import LanguageModel


class Session:
    """A conversation with ``lm`` about the documents of ``library``.

    Raises ``UsageError`` for a read mode that the model cannot do, and ``ContextOverflowError``
    where ``settings.ctx`` is less than documents that the model attends to.
    """

    def __init__(
        self,
        lm: LanguageModel,
        library: Library | None = None,
        settings: SessionSettings | None = None,
    ) -> None:
        self.lm = lm
        self.answering = False
        """True while ``ask`` is at work: what the context holds is then ahead of the state."""
        self.lock = Lock()
        """Held while ``answering`` turns true, and by who uses the tokenizer beside ``ask``."""
        self._held: Arranged | None = None
        self._scratch: Arranged | None = None
        self._earlier = EarlierTurns(lm.tokenizer)
        self._library = library
        parts = library.parts if library is not None else ()
        self.use_model(lm, State(parts, History(), settings or SessionSettings()))

    def use_model(self, lm: LanguageModel, state: State) -> None:
        """Go on as ``state`` with ``lm``, whose tokenizer made the parts of ``state``.

        Errors as for a new session; nothing has changed then.
        """
        library = self._library
        if not state.parts:
            library = None
        elif not library or library.parts != state.parts or library.tokenizer != lm.tokenizer:
            library = Library(state.parts, lm.tokenizer)
        prompter = Prompter(lm.tokenizer, state.settings, prompt_limit(lm, state))
        self._reader = Reader(lm, library, prompter, state.settings.read, self._say)
        self._prompter, self._library, self._state = prompter, library, state
        if lm is not self.lm:
            self.lm = lm
            self._earlier = EarlierTurns(lm.tokenizer)
            self._held = self._scratch = None

    @property
    def state(self) -> State:
        """All that can be undone, forked and saved. Setting it costs the number of parts and
        the copying of their ids; errors as for a new session, with nothing changed."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        before = self._state
        self.use_model(self.lm, state)
        if self._held is not None:
            try:
                self._arrange(self._held)
            except BaseException:  # Ctrl-C, or out of memory
                self.use_model(self.lm, before)
                raise

    @property
    def settings(self) -> SessionSettings:
        """What the person chose."""
        return self._state.settings

    @property
    def library(self) -> Library | None:
        """The documents; None where there are none."""
        return self._library

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, oldest turn first."""
        return self._state.history.turns

    @property
    def context(self) -> Context | None:
        """What the model holds now; None before the first answer."""
        return None if self._held is None else self._held.context

    @property
    def window(self) -> int | None:
        """Live tokens that a prompt and its answer may take; None: no limit."""
        return self._prompter.window

    @property
    def attends_documents(self) -> bool:
        """True where the documents are part of the context itself."""
        return attends_documents(self.lm, self._state)

    def conversation_ids(self) -> list[int]:
        """What a prompt holds of the conversation before a question, system message included."""
        return self._prompter.conversation(self._state.history.messages())

    def clear(self) -> None:
        """Forget the conversation; the documents stay."""
        self.state = replace(self._state, history=History())

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer ``question``; events tell what happens, the last one is the ``Answer``.

        Stopping early (closing the iterator, or KeyboardInterrupt) keeps what was said: it is
        the turn's answer, marked as interrupted. Errors leave the conversation as it was.
        """
        question = question.strip()
        if not question:
            raise UsageError("the question is empty", 'ask something, as in: nazx ask "Who?"')
        yield from self._ctx_notice()
        with self.lock:
            self.answering = True
        try:
            yield from self._take_turn(question)
        except KeyboardInterrupt:
            # It can have come in the middle of a change to a context: those are not kept.
            self._held = self._scratch = None
            raise
        finally:
            self.answering = False

    def _take_turn(self, question: str) -> Generator[Event, None, None]:
        self._prompter.check(question)
        history = self._fitted(question)
        if history.left_out > self._state.history.left_out:
            yield Notice(_left_out_notice(history.left_out, self.settings.read))
        earlier = self._earlier.library(history)
        prompt = yield from self._reader.read(question, history.messages(), earlier)
        if prompt.mode != "none":
            yield Reading(prompt.mode, prompt.passages)
        yield from self._answer(prompt, history)

    def _ctx_notice(self) -> Iterator[Notice]:
        wanted, window = self.settings.ctx, self.lm.window
        if wanted is not None and window is not None and wanted > window and not self.turns:
            yield Notice(
                f"a context of {wanted:,} tokens is more than the model's window takes; "
                f"using {window:,}"
            )

    def _fitted(self, question: str) -> History:
        """The conversation, old turns given up where the prompt would not fit."""
        history, window = self._state.history, self._prompter.window
        if window is None:
            return history
        message = Message("user", question)
        passages = 0
        if self._reader.needs_room:
            passages = window // 2
        elif history.left_out:
            passages = window // 4  # for what recall brings back of the turns left out
        return history.fitted(
            lambda messages: self._prompter.size(messages, message),
            window - self._prompter.answer_room - passages,
        )

    def _answer(self, prompt: Prompt, history: History) -> Iterator[Event]:
        context = self._bring(self._prompter.ids(history.messages(), prompt.message))
        stops = StopFilter(stop_strings(self.lm.tokenizer))
        step = None
        said = shown = ""
        interrupted = True
        try:
            for step in self._generate(context):
                piece = stops.push(step.delta)
                if step.finish is not None and not stops.stopped:
                    piece += stops.flush()
                said += piece
                # A leading space belongs to the template's form, not to the answer.
                if visible := piece if shown else piece.lstrip():
                    shown += visible
                    yield Delta(visible, step.stats)
                if stops.stopped:
                    break
            interrupted = False
        finally:
            if said:
                turn = Turn(prompt.question, prompt.message, prompt.passages, said, interrupted)
                self._state = replace(self._state, history=history.with_turn(turn))
        if step is None:
            raise NazxError("the model gave no answer", "ask again, or use another model")
        finish = "stop" if stops.stopped else (step.finish or "stop")
        yield Answer(shown.rstrip(), prompt.passages, finish, step.stats, prompt.mode)

    def _generate(self, context: Context) -> Iterator[Step]:
        limit, window = self.settings.max_tokens, self._prompter.window
        if window is not None and self.lm.config.attention.kind == "full":
            limit = max(1, min(limit, window - len(context)))
        return self.lm.generate(context, max_tokens=limit, sampling=self.settings.sampling)

    def _say(self, message: Message, max_tokens: int) -> str:
        """Answer a message outside of the conversation, on a context of its own."""
        if self._scratch is None:
            self._scratch = Arranged(self.lm.new_context())
        self._scratch.bring_live(self._prompter.ids([], message))
        stops = StopFilter(stop_strings(self.lm.tokenizer))
        text = ""
        for step in self.lm.generate(
            self._scratch.context, max_tokens=max_tokens, sampling=self.settings.sampling
        ):
            text += stops.push(step.delta)
            if stops.stopped:
                break
        return (text + stops.flush()).strip()

    def _bring(self, ids: list[int]) -> Context:
        """The conversation's context, with ``ids`` as its live tokens."""
        held = self._held or Arranged(self.lm.new_context())
        self._arrange(held)
        held.bring_live(ids)
        self._held = held
        return held.context

    def _arrange(self, held: Arranged) -> None:
        """Make the documents resident that the model attends to."""
        try:
            held.bring_parts(self._state.parts if self.attends_documents else ())
        except BaseException:  # cut short by Ctrl-C or out of memory: half done
            self._held = None
            raise


def attends_documents(lm: LanguageModel, state: State) -> bool:
    """Whether the documents of ``state`` are part of the context itself."""
    return bool(state.parts) and lm.reads_resident and state.settings.read in ("auto", "resident")


def prompt_limit(lm: LanguageModel, state: State) -> int | None:
    """Live tokens that a prompt and its answer may take; None: no limit."""
    limit, window = state.settings.ctx, lm.window
    if limit is not None and attends_documents(lm, state):
        tokens = sum(map(len, state.parts))
        limit -= tokens
        if limit <= LEAST_ANSWER:
            raise ContextOverflowError(
                f"the documents have {tokens:,} tokens; --ctx allows {state.settings.ctx:,}",
                f"use --ctx {tokens + 2048} or --read recall, in a chat "
                f"/set parameter ctx {tokens + 2048} or /set parameter read recall",
            )
    limits = [n for n in (limit, window) if n is not None]
    return min(limits) if limits else None


def _left_out_notice(count: int, mode: str) -> str:
    which = "first turn is" if count == 1 else f"first {count} turns are"
    now = "left out from now on"
    if mode != "all":
        now += ", and searched for what a question names"
    return f"the conversation outgrew the window: its {which} {now}"
