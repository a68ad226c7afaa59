"""Brings the documents to a question: chooses passages, or reads all blocks one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from nazx_cli.errors import ContextOverflowError
from nazx_cli.reading.coverage import is_overview
from nazx_cli.reading.mapreduce import Partial, blocks, condense, map_reduce
from nazx_cli.reading.plan import groups
from nazx_cli.session.choice import Chooser
from nazx_cli.session.events import Event, Notice, Progress
from nazx_cli.session.parts import PARTS, PASSAGES, ROOM
from nazx_cli.session.prompt import (
    Prompt,
    Prompter,
    document_line,
    notes_message,
    part_message,
    passage_entry,
    user_message,
)
from nazx_cli.session.state import Message

if TYPE_CHECKING:
    from nazx_cli.reading.library import Library
    from nazx_cli.reading.passages import Passage

Say = Callable[[Message, int], str]
"""Answers a message outside of the conversation, in at most so many tokens."""
Prompting = Generator[Event, None, Prompt]
"""Yields what there is to tell, and returns the prompt."""

PART_TOKENS = 96
"""Most tokens of the answer that one block gives."""


class Reader:
    """Reads ``library`` (None: no documents) for the questions of a session.

    ``mode`` is one of ``mode_for``, ``none`` without documents.
    """

    def __init__(self, library: Library | None, prompter: Prompter, mode: str, say: Say) -> None:
        self._library = library
        self._names = [d.name for d in library.documents] if library is not None else []
        self._prompter = prompter
        self._mode = mode
        self._say = say
        self._chooser = Chooser(library, window=prompter.window, cost=self._cost)

    def read(
        self, question: str, history: Sequence[Message], earlier: Library | None = None
    ) -> Prompting:
        """The prompt for ``question``; yields progress and notices on the way.

        ``earlier`` are turns that ``history`` leaves out: what the question names is looked
        for there too, except where every block of the documents is read.
        """
        prompt = self._select(question, history, self._mode, earlier)
        if prompt.mode != "all" or self._library is None:
            return prompt
        return (yield from self._read_all(self._library, question, history))

    def parts(self, question: str, followed: Sequence[Message]) -> tuple[Prompt, ...]:
        """One prompt for each of a few small groups of passages, the best first; none where the
        question is about the whole of the documents, or they are not read by recall.

        ``followed`` is the turn that the question speaks of, if it does.
        """
        library = self._library
        if library is None or self._mode not in ("auto", "recall") or not self._prompter.is_chat:
            return ()
        if self._mode == "auto" and is_overview(library, question):
            return ()
        room = self._prompter.room(followed, user_message(question)) - self._overhead
        about = " ".join([*(message.content for message in followed), question])
        budget = min(ROOM, room)
        found = groups(library, about, count=PARTS, size=PASSAGES, budget=budget, cost=self._cost)
        return tuple(
            Prompt(question, user_message(question, passages), "recall", passages)
            for passages in found
        )

    def _select(
        self, question: str, history: Sequence[Message], mode: str, earlier: Library | None = None
    ) -> Prompt:
        """Choose passages that fit beside the history and the question."""
        plain = user_message(question)
        if self._library is None and earlier is None:
            return Prompt(question, plain)
        budget = self._prompter.room(history, plain) - self._overhead
        for _ in range(4):
            choice = self._chooser.choose(question, mode, max(1, budget), earlier)
            message = user_message(
                question,
                choice.passages,
                overview=choice.selection.overview,
                chat=self._prompter.is_chat,
                recollected=not choice.of_documents,
            )
            excess = -self._prompter.room(history, message)
            if excess <= 0 or not choice.passages:
                return Prompt(question, message, choice.selection.mode, choice.passages)
            budget = min(budget, sum(map(self._cost, choice.passages))) - excess
        if earlier is not None:
            return self._select(question, history, mode)
        raise ContextOverflowError(
            "no passage fits beside the question: the model's window takes "
            f"{self._prompter.window:,} tokens",
            "shorten the question, or use a smaller --max-tokens, in a chat "
            "/set parameter max_tokens",
        )

    def _read_all(self, library: Library, question: str, history: Sequence[Message]) -> Prompting:
        """Ask every block, then make a prompt of what they answered."""
        overview = is_overview(library, question)
        chat = self._prompter.is_chat
        empty = part_message(question, (), overview=overview, chat=chat)
        room = self._prompter.room([], empty) + self._prompter.answer_room - PART_TOKENS
        budget = room - self._overhead
        parts = blocks(library, budget, self._cost)
        if len(parts) == 1 and self._prompter.room(history, user_message(question, parts[0])) >= 0:
            message = user_message(question, parts[0], overview=overview, chat=chat)
            return Prompt(question, message, "all", parts[0])

        def ask(question: str, passages: tuple[Passage, ...]) -> str:
            message = part_message(question, passages, overview=overview, chat=chat)
            return self._say(message, PART_TOKENS)

        yield Progress(0, len(parts))
        partials: list[Partial] = []
        for partial in map_reduce(question, library, budget=budget, ask=ask, cost=self._cost):
            partials.append(partial)
            yield Progress(partial.index, partial.of)
        notes = self._condense(question, history, partials)
        if not notes:
            yield Notice("no part of the documents gave an answer; asking the likeliest passages")
            return self._select(question, history, "recall")
        message = notes_message(question, [note.text for note in notes], chat=chat)
        return Prompt(question, message, "all", _sources(library, partials))

    def _condense(
        self, question: str, history: Sequence[Message], partials: Sequence[Partial]
    ) -> tuple[Partial, ...]:
        def merge(question: str, group: tuple[Partial, ...]) -> str:
            texts = [partial.text for partial in group]
            return self._say(notes_message(question, texts, chat=self._prompter.is_chat), 160)

        empty = notes_message(question, (), chat=self._prompter.is_chat)
        return condense(
            question,
            partials,
            budget=max(1, self._prompter.room(history, empty)),
            count=lambda text: len(self._prompter.tokenizer.encode(f"[100] {text}\n\n")),
            merge=merge,
        )

    def _cost(self, passage: Passage) -> int:
        """Tokens of a passage in the prompt, with its number and, among several documents,
        its document's name."""
        text = passage_entry(100, passage) + "\n\n"
        if len(self._names) > 1 or passage.document not in self._names:
            text += document_line(passage.document) + "\n\n"
        return len(self._prompter.tokenizer.encode(text))

    @property
    def _overhead(self) -> int:
        """Tokens that wording and a document's name add around the passages, at most."""
        longest = max(self._names, key=len, default="")
        return 48 + len(self._prompter.tokenizer.encode(document_line(longest)))


def _sources(library: Library, partials: Sequence[Partial]) -> tuple[Passage, ...]:
    """The blocks that had something to say, each as one stretch of its document."""
    return tuple(
        library.span(partial.passages[0].start, partial.passages[-1].stop)
        for partial in partials
        if partial.found
    )
