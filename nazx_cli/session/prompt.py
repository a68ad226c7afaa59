"""How passages and a question become a message, and messages a prompt that fits the window.

The wording is short because the default model is small. Five wordings, and passages in order of
rank, were tried on it with ten questions about tests/data/alice.txt: each got 2 or 3 right, so
nothing here is known to be better than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from nazx_cli.context.ranks.sharing import FAR_IS_ALONE
from nazx_cli.errors import ContextOverflowError, ModelUnavailableError, UsageError
from nazx_cli.index.shelf import is_indexed
from nazx_cli.reading.grounding import Ordinary, strange_names
from nazx_cli.reading.mapreduce import NOTHING_FOUND
from nazx_cli.reading.plan import mode_for
from nazx_cli.reading.spelling import slips
from nazx_cli.reading.words import words
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import History, Message, State
from nazx_cli.session.templating.templates import render, source_block
from nazx_cli.session.templating.thinking import marks_of

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.library import Library
    from nazx_cli.reading.passages import Passage
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.session.reader import Reader
    from nazx_cli.tokenizer import Tokenizer

PromptForm = Literal["chat", "plain", "sources"]
"""How a model is asked: by a chat template, without one, or by one with a place for sources."""
LEAST_ANSWER = 32
"""Tokens: a prompt that leaves less than this for an answer is refused."""
_CONVERSATION = 2048  # tokens that are reckoned with for one where nothing else sets a limit
_LEAD = 16  # tokens before a question about documents which a turn before holds whole
_AS_FILE = "put the long text in a file and name it with --file, or /read in a chat"


@dataclass(frozen=True)
class Prompt:
    """A question ready to be answered: the message to send, the read mode it came from, the
    passages that it holds, and whether it is about the whole of the documents."""

    question: str
    message: Message
    mode: str = "none"
    passages: tuple[Passage, ...] = ()
    overview: bool = False


def user_message(
    question: str,
    passages: Sequence[Passage] = (),
    *,
    overview: bool = False,
    form: PromptForm = "chat",
    recollected: bool = False,
    standing: bool = False,
) -> Message:
    """The user's turn; ``recollected`` is on where all passages come from earlier in the
    conversation, ``standing`` where a message before holds the documents whole."""
    if standing:
        lead = "About the whole of the text above" if overview else "Using only the text above"
        return Message("user", f"{lead}, answer: {question}")
    if not passages:
        return Message("user", question)
    if form == "sources":
        return Message("user", question, source_block(passage.text for passage in passages))
    if recollected:
        entries = [passage_entry(number, passage) for number, passage in enumerate(passages, 1)]
        return Message("user", question, "\n\n".join(["Earlier in this conversation:", *entries]))
    if form == "plain":
        return Message("user", question, passage_block(passages))
    if overview:
        lead = "These passages are drawn from the whole text, in order. Answer about the whole text"
    else:
        lead = "Using only these passages, answer"
    return Message("user", f"{lead}: {question}", passage_block(passages))


def part_message(
    question: str, passages: Sequence[Passage], *, overview: bool, form: PromptForm
) -> Message:
    """The question, asked of one block of a document that is read block by block."""
    if form != "chat":
        return user_message(question, passages, form=form)
    if overview:
        content = f"This is one part of a longer text. In two sentences, for this part: {question}"
    else:
        content = (
            f"Using only these passages, answer in one or two sentences: {question}\n"
            f'If they do not tell, say "{NOTHING_FOUND}"'
        )
    return Message("user", content, passage_block(passages))


def notes_message(question: str, notes: Sequence[str], *, form: PromptForm) -> Message:
    """The question, asked of the answers that the blocks gave."""
    if form == "sources":
        return Message("user", question, source_block(notes))
    block = "\n\n".join(
        ["Notes from the parts of the text, in order:"]
        + [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    )
    lead = "Using only these notes, answer: " if form == "chat" else ""
    return Message("user", f"{lead}{question}", block)


def passage_block(passages: Sequence[Passage]) -> str:
    """The passages, numbered through, under the name of their document."""
    parts: list[str] = []
    number = 0
    for name, group in groupby(passages, key=lambda passage: passage.document):
        parts.append(document_line(name))
        for passage in group:
            number += 1
            parts.append(passage_entry(number, passage))
    return "\n\n".join(parts)


def document_line(name: str) -> str:
    """What stands above a document's passages; folders tell the model nothing."""
    return f"Passages from {PurePath(name).name}:"


def passage_entry(number: int, passage: Passage) -> str:
    """One numbered passage."""
    return f"[{number}] {passage.text.strip()}"


def form_of(tokenizer: Tokenizer) -> PromptForm:
    """The form of the prompts that the tokenizer's model is trained on."""
    if tokenizer.takes_sources:
        return "sources"
    return "plain" if tokenizer.chat_template is None else "chat"


class Prompter:
    """Renders and measures prompts; ``window`` is in tokens, answer included (None: no limit),
    ``most_tokens`` what an answer may have."""

    def __init__(self, tokenizer: Tokenizer, settings: SessionSettings, window: int | None) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.form = form_of(tokenizer)
        self._system = [Message("system", settings.system)] if settings.system else []
        self.most_tokens = settings.max_tokens
        self._think = settings.asks_to_think
        thinks = self._think is not False and marks_of(tokenizer) is not None
        self._said = self.most_tokens + settings.max_thinking * thinks

    def ids(
        self, history: Sequence[Message], message: Message, *, thinks: bool = True
    ) -> list[int]:
        """Token ids of the conversation up to where the answer begins; without ``thinks`` the
        model is not to think, where its template has a switch for that."""
        think = self._think if thinks else False
        return render(self.tokenizer, [*self._system, *history, message], think=think)

    def conversation(self, history: Sequence[Message]) -> list[int]:
        """Token ids of system message and ``history`` alone."""
        messages = [*self._system, *history]
        if not messages:
            return []
        try:
            return render(self.tokenizer, messages, add_generation_prompt=False)
        except ModelUnavailableError:  # a template that takes no conversation without a question
            return [i for message in messages for i in self.tokenizer.encode(message.text)]

    def size(self, history: Sequence[Message], message: Message) -> int:
        """Tokens of that prompt."""
        return len(self.ids(history, message))

    def check(self, question: str) -> None:
        """Raise ``ContextOverflowError`` for a question that leaves no room for an answer, and
        where there is none for any."""
        if self.window is None:
            return
        least = min(LEAST_ANSWER, self.most_tokens)
        over = self.size([], Message("user", question)) + least - self.window
        if over <= 0:
            return
        texts = [("question", question), *(("system message", m.content) for m in self._system)]
        counts = {name: len(self.tokenizer.encode(text)) for name, text in texts}
        longest = max(counts, key=lambda name: counts[name])
        if over >= counts[longest]:
            raise ContextOverflowError(
                f"a context of {self.window:,} tokens has no room for the question and an answer",
                f"they take {self.window + over:,}: use a larger --ctx, in a chat "
                "/set parameter ctx, or a model with a longer context",
            )
        raise ContextOverflowError(
            f"the {longest} has {counts[longest]:,} tokens; the model's window takes "
            f"{self.window:,}, its answer included",
            f"shorten it by {over:,} tokens, or {_AS_FILE}",
        )

    @property
    def answer_room(self) -> int:
        """Tokens kept free for an answer, and for thinking about it; a windowed model's window
        slides beyond that."""
        return min(self._said, (self.window or 4 * self._said) // 4)

    def fitted(self, history: History, question: str, passages: int) -> History:
        """``history``, old turns given up where the prompt would not leave the answer its room, and
        so many tokens for passages."""
        if self.window is None:
            return history
        message = Message("user", question)
        room = self.window - self.answer_room - passages
        return history.fitted(lambda messages: self.size(messages, message), room)

    def room(self, history: Sequence[Message], message: Message) -> int:
        """Tokens that can be added to the prompt and leave the answer its room."""
        if self.window is None:
            return _CONVERSATION
        return self.window - self.answer_room - self.size(history, message)


def read_mode(
    settings: SessionSettings, lm: LanguageModel, documents: Sequence[TokenizedDocument] = ()
) -> str:
    """How ``documents`` reach ``lm``; ``UsageError`` for a mode that it, or they, cannot do."""
    if settings.read == "resident" and lm.far is not None and not lm.can_read_resident:
        raise UsageError(FAR_IS_ALONE, "use one process, or --read recall")
    mode = mode_for(settings.read, lm.can_read_resident, lm.prefers_resident)
    if mode == "resident" and is_indexed(documents):
        raise UsageError(
            "documents in the index are not attended to as a whole",
            "use --read recall, or begin again with --index never",
        )
    return mode


def prompt_limit(state: State, mode: str, window: int | None) -> int | None:
    """Live tokens that a prompt and its answer may take; None: no limit."""
    limit = state.settings.ctx
    if limit is not None and mode == "resident":
        tokens = state.num_tokens
        limit -= tokens
        if limit <= LEAST_ANSWER:
            enough = tokens + _CONVERSATION
            raise ContextOverflowError(
                f"the documents have {tokens:,} tokens; --ctx allows {state.settings.ctx:,}",
                f"use --ctx {enough} or --read recall, in a chat "
                f"/set parameter ctx {enough} or /set parameter read recall",
            )
    limits = [n for n in (limit, window) if n is not None]
    return min(limits) if limits else None


@dataclass(frozen=True)
class Setup:
    """What follows from a state's documents and settings, good while these stay the same.

    ``mode`` is how the documents reach the model: one of ``mode_for``, ``none`` without any.
    """

    documents: tuple[TokenizedDocument, ...]
    settings: SessionSettings
    mode: str
    library: Library | None
    prompter: Prompter
    reader: Reader

    @property
    def attends(self) -> bool:
        """True where the documents are part of the context itself."""
        return self.mode == "resident"

    def serves(self, state: State) -> bool:
        """Whether all of this follows from ``state`` too."""
        return self.documents == state.documents and self.settings == state.settings

    @property
    def _recalled(self) -> Library | None:
        """The documents, where they are read by recall."""
        return self.library if self.reader.makes_parts else None

    def strange_names(self, question: str) -> tuple[str, ...]:
        """See ``reading.grounding``; () where documents are not read by recall."""
        return () if self._recalled is None else strange_names(self._recalled, question)

    def slips(self, question: str, history: History, ordinary: Ordinary) -> dict[str, str]:
        """See ``reading.spelling``; {} where documents are not read by recall. What was answered
        before is not taken for a slip; what was asked may have been one."""
        if self._recalled is None:
            return {}
        if found := slips(self._recalled, ordinary, question):
            said = {word for turn in history.turns for word in words(turn.answer)}
            found = {typed: meant for typed, meant in found.items() if typed.casefold() not in said}
        return found

    def fitted(self, history: History, question: str) -> History:
        """``history``, old turns given up where the prompt would not fit."""
        window = self.prompter.window or 0
        if self.reader.stands(history):
            kept = self.prompter.fitted(history, question, _LEAD)
            if self.reader.stands(kept):
                return kept
        passages = 0
        if self.documents and not self.attends:
            passages = window // 2
        elif history.left_out:
            passages = window // 4  # for what recall brings back of the turns left out
        return self.prompter.fitted(history, question, passages)


def left_out_notice(count: int, mode: str) -> str:
    """What is told where the first ``count`` turns are in no prompt any more."""
    which = "first turn is" if count == 1 else f"first {count} turns are"
    also = "" if mode == "all" else ", and searched for what a question names"
    return f"the conversation outgrew the window: its {which} left out from now on{also}"
