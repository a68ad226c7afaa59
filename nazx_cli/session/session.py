"""A conversation: brings question, documents and history to the model and tells what happens.

The context holds the prompt's token ids. Each turn renders the whole prompt again and keeps the
longest beginning that the context already holds, so an unchanged beginning is never recomputed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import torch

from nazx_cli.errors import ContextOverflowError, NazxError, UsageError
from nazx_cli.session.events import Answer, Delta, Event, Notice, Reading
from nazx_cli.session.history import History, Turn
from nazx_cli.session.messages import Message
from nazx_cli.session.prompt import Prompt
from nazx_cli.session.prompter import LEAST_ANSWER, Prompter
from nazx_cli.session.reader import Reader
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.stops import StopFilter
from nazx_cli.session.templates import stop_strings

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.engine.generator import Step
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.library import Library


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
        self.library = library
        self.settings = settings or SessionSettings()
        self._history = History()
        self._context: Context | None = None
        self._scratch: Context | None = None
        self._prompter = Prompter(lm.tokenizer, self.settings, self._prompt_limit())
        self._reader: Reader | None = None
        if library is not None:
            self._reader = Reader(lm, library, self._prompter, self.settings.read, self._say)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, oldest turn first."""
        return tuple(self._history.turns)

    @property
    def context(self) -> Context | None:
        """What the model holds now; None before the first answer."""
        return self._context

    def clear(self) -> None:
        """Forget the conversation; the documents stay."""
        self._history = History()

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer ``question``; events tell what happens, the last one is the ``Answer``.

        Stopping early (closing the iterator, or KeyboardInterrupt) keeps what was said: it is
        the turn's answer, marked as interrupted. Errors leave the conversation as it was.
        """
        question = question.strip()
        if not question:
            raise UsageError("the question is empty", 'ask something, as in: nazx ask "Who?"')
        yield from self._ctx_notice()
        self._prompter.check(question)
        yield from self._make_room(question)
        try:
            prompt = Prompt(question, Message("user", question))
            if self._reader is not None:
                prompt = yield from self._reader.read(question, self._history.messages())
                yield Reading(prompt.mode, prompt.passages)
            yield from self._answer(prompt)
        except KeyboardInterrupt:
            # It can have come in the middle of a change to a context: those are not kept.
            self._context = self._scratch = None
            raise

    def _prompt_limit(self) -> int | None:
        """Live tokens that a prompt and its answer may take; None: no limit."""
        limit, window = self.settings.ctx, self.lm.window
        if limit is not None and self._attends_documents and self.library is not None:
            limit -= self.library.num_tokens
            if limit <= LEAST_ANSWER:
                raise ContextOverflowError(
                    f"the documents have {self.library.num_tokens:,} tokens; "
                    f"--ctx allows {self.settings.ctx:,}",
                    f"use --ctx {self.library.num_tokens + 2048} or --read recall",
                )
        limits = [n for n in (limit, window) if n is not None]
        return min(limits) if limits else None

    @property
    def _attends_documents(self) -> bool:
        """True where the documents are part of the context itself."""
        return (
            self.library is not None
            and self.lm.reads_resident
            and self.settings.read in ("auto", "resident")
        )

    def _ctx_notice(self) -> Iterator[Notice]:
        wanted, window = self.settings.ctx, self.lm.window
        if wanted is not None and window is not None and wanted > window and not self.turns:
            yield Notice(
                f"--ctx {wanted:,} is more than the model's window takes; using {window:,} tokens"
            )

    def _make_room(self, question: str) -> Iterator[Notice]:
        """Take old turns out of the prompt where it would not fit; say so."""
        window = self._prompter.window
        if window is None:
            return
        message = Message("user", question)
        passages = window // 2 if self._reader is not None and self._reader.needs_room else 0
        if self._history.fit(
            lambda messages: self._prompter.size(messages, message),
            window - self._prompter.answer_room - passages,
        ):
            count = self._history.left_out
            which = "first turn is" if count == 1 else f"first {count} turns are"
            yield Notice(f"the conversation outgrew the window: its {which} left out from now on")

    def _answer(self, prompt: Prompt) -> Iterator[Event]:
        ids = self._prompter.ids(self._history.messages(), prompt.message)
        context = self._bring(ids)
        turn = Turn(prompt.question, prompt.message, prompt.passages)
        stops = StopFilter(stop_strings(self.lm.tokenizer))
        step = None
        shown = ""
        for step in self._generate(context):
            piece = stops.push(step.delta)
            if step.finish is not None and not stops.stopped:
                piece += stops.flush()
            if piece:
                self._record(turn, piece)
                # A leading space belongs to the template's form, not to the answer.
                if visible := piece if shown else piece.lstrip():
                    shown += visible
                    yield Delta(visible)
            if stops.stopped:
                break
        if step is None:
            raise NazxError("the model gave no answer", "ask again, or use another model")
        turn.interrupted = False
        finish = "stop" if stops.stopped else (step.finish or "stop")
        yield Answer(shown.rstrip(), prompt.passages, finish, step.stats, prompt.mode)

    def _record(self, turn: Turn, piece: str) -> None:
        """Add to the turn's answer; a turn joins the conversation with its first words."""
        if not turn.answer:
            self._history.turns.append(turn)
        turn.answer += piece

    def _generate(self, context: Context) -> Iterator[Step]:
        limit, window = self.settings.max_tokens, self._prompter.window
        if window is not None and self.lm.config.attention.kind == "full":
            limit = max(1, min(limit, window - len(context)))
        return self.lm.generate(context, max_tokens=limit, sampling=self.settings.sampling)

    def _say(self, message: Message, max_tokens: int) -> str:
        """Answer a message outside of the conversation, on a context of its own."""
        if self._scratch is None:
            self._scratch = self.lm.new_context()
        _bring_to(self._scratch, self._prompter.ids([], message))
        stops = StopFilter(stop_strings(self.lm.tokenizer))
        text = ""
        for step in self.lm.generate(
            self._scratch, max_tokens=max_tokens, sampling=self.settings.sampling
        ):
            text += stops.push(step.delta)
            if stops.stopped:
                break
        return (text + stops.flush()).strip()

    def _bring(self, ids: list[int]) -> Context:
        """The conversation's context, with ``ids`` as its live tokens."""
        if self._context is None:
            self._context = self.lm.new_context()
            if self.library is not None and self._attends_documents:
                self._context.append(torch.from_numpy(self.library.ids), resident=True)
        _bring_to(self._context, ids)
        return self._context


def _bring_to(context: Context, ids: list[int]) -> None:
    """Make ``ids`` the live tokens of ``context``, keeping what agrees from the beginning."""
    kept = 0
    for old, new in zip(context.live_ids, ids, strict=False):
        if old != new:
            break
        kept += 1
    context.truncate_live(kept)
    context.append(ids[kept:])
