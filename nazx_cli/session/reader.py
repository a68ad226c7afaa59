"""Brings the documents to a question: chooses passages, or reads all blocks one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from nazx_cli.engine.generator import Stats
from nazx_cli.errors import ContextOverflowError, NazxError
from nazx_cli.names import EXTRACT
from nazx_cli.reading.attribution import attributed
from nazx_cli.reading.library import Library
from nazx_cli.reading.mapreduce import Partial, blocks, condense, map_reduce
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.plan import Selection, fitting, groups, select
from nazx_cli.reading.recall import rank
from nazx_cli.reading.summaries.digest import Digest, digest
from nazx_cli.reading.summaries.overview import is_overview, wants_account
from nazx_cli.session.citation import Quotation
from nazx_cli.session.earlier import named_in
from nazx_cli.session.events import Answer, Delta, Event, Finding, Notice, Progress
from nazx_cli.session.parts import PASSAGE_ROOM, Asking
from nazx_cli.session.prompt import (
    Prompt,
    Prompter,
    document_line,
    notes_message,
    part_message,
    passage_entry,
    user_message,
)
from nazx_cli.session.state import Message, Turn

if TYPE_CHECKING:
    from nazx_cli.session.state import History

Say = Callable[[Message, int], str]
"""Answers a message outside of the conversation, in at most so many tokens."""
Prompting = Generator[Event, None, Prompt]
"""Yields what there is to tell, and returns the prompt."""
PART_TOKENS = 96
"""Most tokens of the answer that one block gives."""
_LOOKED_AT = 16  # passages, for where an answer stands that was made from all of the documents ...
_LOOKED_FOR = 160  # ... and characters of the answer, by which they are found


class Reader:
    """Reads ``library`` (None: no documents) for the questions of a session.

    ``mode`` is one of ``mode_for``, ``none`` without documents; ``extracts``: questions about
    the whole are answered in the documents' own sentences.
    """

    def __init__(
        self,
        library: Library | None,
        prompter: Prompter,
        mode: str,
        say: Say,
        extracts: bool = False,
    ) -> None:
        self._library = library
        self._names = [d.name for d in library.documents] if library is not None else []
        self.prompter = prompter
        self._mode = mode
        self._say = say
        self._extracts = extracts
        self._joint: Library | None = None

    @cached_property
    def _whole(self) -> tuple[Passage, ...]:
        """All of the documents, where they fit a prompt."""
        library, window = self._library, self.prompter.window
        if library is None or window is None or library.num_tokens > window:
            return ()
        return tuple(library.merged(library.passages))

    def stands(self, history: History) -> bool:
        """Whether a turn before has the documents whole in its message, and the next prompt
        carries that: a question then needs no passages, and what was computed of them stays."""
        return self.makes_parts and bool(self._whole) and self._whole in history.carried()

    def read(
        self,
        question: str,
        history: Sequence[Message],
        earlier: Library | None = None,
        standing: bool = False,
        followed: Sequence[Message] = (),
    ) -> Prompting:
        """The prompt for ``question``; yields progress and notices on the way. ``standing``: see
        ``stands``; ``followed`` is the turn that the question speaks of, if it does: passages
        are looked for by both.

        ``earlier`` are turns that ``history`` leaves out: what the question names is looked
        for there too, except where every block of the documents is read.
        """
        if standing and earlier is None and self._library is not None:
            overview = is_overview(self._library, question)
            message = user_message(question, overview=overview, standing=True)
            return Prompt(question, message, "recall", self._whole, overview)
        prompt = self._select(question, history, self._mode, earlier, followed)
        if prompt.mode != "all" or self._library is None:
            return prompt
        return (yield from self._read_all(self._library, question, history))

    def extract(self, question: str) -> Digest | None:
        """The answer in the documents' own sentences; None where the question is to be answered
        by the model."""
        library = self._library
        if library is None or not self._extracts or self._mode not in ("auto", "recall", "all"):
            return None
        if not wants_account(library, question):
            return None
        return digest(library, question, self.prompter.most_tokens)

    def evidence(self, prompt: Prompt, answer: str) -> tuple[Quotation, ...]:
        """What of the documents an ``answer`` to ``prompt`` stands on by its words, for a model
        that does not tell; none where it is about the whole of them.

        That is looked for in the passages that it was given. Where the model attended to the
        documents, or was given their blocks, it is in those that rank best for the question and the
        answer's beginning.
        """
        if self._library is None or prompt.overview or not answer.strip():
            return ()
        passages = prompt.passages
        if prompt.mode in ("resident", "all"):
            both = f"{prompt.question} {answer[:_LOOKED_FOR]}"  # each word takes its time
            best = rank(self._library, both, _LOOKED_AT).order.tolist()
            passages = tuple(self._library.passages[i] for i in best)
        return tuple(Quotation(*each) for each in attributed(answer, prompt.question, passages))

    @property
    def makes_parts(self) -> bool:
        """Whether ``parts`` finds any for a question that is not about the whole."""
        may = self._mode in ("auto", "recall") and self.prompter.form == "chat"
        return may and self._library is not None

    def parts(
        self, question: str, followed: Sequence[Message], asking: Asking
    ) -> tuple[Prompt, ...]:
        """A prompt with the best few passages, and one for each of the best, as ``asking`` has it;
        none where the question is about the whole of the documents, or they are not read by recall.

        ``followed`` is the turn that the question speaks of, if it does.
        """
        library = self._library
        if library is None or not self.makes_parts:
            return ()
        about, overview = _about(library, question, followed)
        if self._mode == "auto" and overview:
            return ()
        room = self.prompter.room(followed, user_message(question)) - self._overhead
        budget, cost = min(PASSAGE_ROOM * asking.together, room), self._cost
        found = groups(
            library, about, together=asking.together, apart=asking.apart, budget=budget, cost=cost
        )
        return tuple(
            Prompt(question, user_message(question, passages), "recall", passages)
            for passages in found
        )

    def _select(
        self,
        question: str,
        history: Sequence[Message],
        mode: str,
        earlier: Library | None = None,
        followed: Sequence[Message] = (),
    ) -> Prompt:
        """Choose passages that fit beside the history and the question."""
        plain, about = user_message(question), question
        if self._library is None and earlier is None:
            return Prompt(question, plain)
        if self._library is not None:
            about, _ = _about(self._library, question, followed)
        budget = self.prompter.room(history, plain) - self._overhead
        for _ in range(4):
            chosen = self._choose(about, mode, max(1, budget), earlier)
            passages = chosen.passages
            message = user_message(
                question,
                passages,
                overview=chosen.overview,
                form=self.prompter.form,
                recollected=all(passage.document not in self._names for passage in passages),
            )
            excess = -self.prompter.room(history, message)
            if excess <= 0 or not passages:
                return Prompt(question, message, chosen.mode, passages, chosen.overview)
            budget = min(budget, sum(map(self._cost, passages))) - excess
        if earlier is not None:
            return self._select(question, history, mode, followed=followed)
        raise ContextOverflowError(
            "no passage fits beside the question: the model's window takes "
            f"{self.prompter.window:,} tokens",
            "shorten the question, or use a smaller --max-tokens, in a chat "
            "/set parameter max_tokens",
        )

    def _choose(self, question: str, mode: str, budget: int, earlier: Library | None) -> Selection:
        """Passages for ``question`` that cost at most ``budget`` tokens together.

        Of ``earlier`` turns come only passages that hold a word of the question. A question about
        the documents as a whole draws on them alone.
        """
        documents = self._library
        if documents is None:
            found = self._of_turns(earlier, question, budget)
            return Selection("recall" if found else "none", found)
        alone = partial(self._among, documents, question, mode, budget)
        if earlier is None or mode == "all":
            return alone()
        if mode in ("tail", "resident"):
            return self._beside(alone(), question, budget, earlier)
        at = named_in(earlier, question)
        if not len(at):
            return alone()
        joint = self._with(documents, earlier)
        if is_overview(documents, question) and is_overview(joint, question):
            return alone()
        if documents.num_tokens <= budget:
            recalled = self._among(documents, question, "recall", budget)
            chosen = self._beside(recalled, question, budget, earlier)
            if sum(map(len, chosen.passages)) >= documents.num_tokens:
                return chosen
        chosen = self._among(joint, question, "recall", budget)
        ends = documents.num_tokens
        passages = tuple(
            p
            for p in chosen.passages
            if p.start < ends or np.any((at >= p.start - ends) & (at < p.stop - ends))
        )
        return Selection(chosen.mode, passages)

    def _beside(self, chosen: Selection, question: str, budget: int, earlier: Library) -> Selection:
        """What was chosen of the documents, and what then fits of the turns."""
        left = budget - sum(map(self._cost, chosen.passages))
        found = self._of_turns(earlier, question, left)
        return replace(chosen, passages=(*chosen.passages, *found))

    def _among(self, library: Library, question: str, mode: str, budget: int) -> Selection:
        window = self.prompter.window
        return select(library, question, mode=mode, budget=budget, window=window, cost=self._cost)

    def _of_turns(self, turns: Library | None, question: str, budget: int) -> tuple[Passage, ...]:
        """Passages of ``turns`` that hold a word of content of ``question``, in their order: the
        best ones that cost at most ``budget`` tokens together; none where nothing matches."""
        if turns is None or not len(at := named_in(turns, question)):
            return ()
        if self.prompter.window is not None:
            budget = min(budget, self.prompter.window // 4)
        holding = set((np.searchsorted(turns.cuts, at, side="right") - 1).tolist())
        best = (i for i in rank(turns, question).order.tolist() if i in holding)
        chosen, _ = fitting((turns.passages[i] for i in best), budget, self._cost)
        return tuple(turns.merged(chosen))

    def _with(self, documents: Library, earlier: Library) -> Library:
        """Documents and turns as one library."""
        both = (*documents.documents, *earlier.documents)
        if self._joint is None or self._joint.documents != both:
            self._joint = Library.of(both, documents.tokenizer, documents.passage_tokens)
        return self._joint

    def _read_all(self, library: Library, question: str, history: Sequence[Message]) -> Prompting:
        """Ask every block, then make a prompt of what they answered."""
        overview = is_overview(library, question)
        form = self.prompter.form
        empty = part_message(question, (), overview=overview, form=form)
        room = self.prompter.room([], empty) + self.prompter.answer_room - PART_TOKENS
        budget = room - self._overhead
        parts = blocks(library, budget, self._cost)
        if len(parts) == 1 and self.prompter.room(history, user_message(question, parts[0])) >= 0:
            message = user_message(question, parts[0], overview=overview, form=form)
            return Prompt(question, message, "all", parts[0], overview)

        def ask(question: str, passages: tuple[Passage, ...]) -> str:
            message = part_message(question, passages, overview=overview, form=form)
            return self._say(message, PART_TOKENS)

        yield Progress(0, len(parts))
        partials: list[Partial] = []
        for part in map_reduce(question, parts, ask):
            partials.append(part)
            yield Progress(part.index, part.of)
            if part.found:
                yield Finding(part.text, _sources(library, [part]))
        notes = self._condense(question, history, partials)
        if not notes:
            yield Notice("no part of the documents gave an answer; asking the likeliest passages")
            return self._select(question, history, "recall")
        message = notes_message(question, [note.text for note in notes], form=form)
        return Prompt(question, message, "all", _sources(library, partials), overview)

    def _condense(
        self, question: str, history: Sequence[Message], partials: Sequence[Partial]
    ) -> tuple[Partial, ...]:
        def merge(question: str, group: tuple[Partial, ...]) -> str:
            texts = [each.text for each in group]
            return self._say(notes_message(question, texts, form=self.prompter.form), 160)

        empty = notes_message(question, (), form=self.prompter.form)
        return condense(
            question,
            partials,
            budget=max(1, self.prompter.room(history, empty)),
            count=lambda text: len(self.prompter.tokenizer.encode(f"[100] {text}\n\n")),
            merge=merge,
        )

    def _cost(self, passage: Passage) -> int:
        """Tokens of a passage in the prompt, with its number and, among several documents,
        its document's name."""
        text = passage_entry(100, passage) + "\n\n"
        if len(self._names) > 1 or passage.document not in self._names:
            text += document_line(passage.document) + "\n\n"
        return len(self.prompter.tokenizer.encode(text))

    @property
    def _overhead(self) -> int:
        """Tokens that wording and a document's name add around the passages, at most."""
        longest = max(self._names, key=len, default="")
        return 48 + len(self.prompter.tokenizer.encode(document_line(longest)))


def _about(library: Library, question: str, followed: Sequence[Message]) -> tuple[str, bool]:
    """What passages for ``question`` are looked for by, the turn that it speaks of included, and
    whether it is about the whole of the documents."""
    before = " ".join(message.content for message in followed)
    overview = is_overview(library, question, before)
    return (question if overview else f"{before} {question}".strip()), overview


class Kept:
    """Reading whose partial answers are kept where it is stopped."""

    def __init__(self, events: Prompting, question: str) -> None:
        self._events = events
        self._question = question

    def events(self, keep: Callable[[Turn], None]) -> Prompting:
        """The events; ``keep`` is given the partial answers as a turn where they are cut short."""
        found: list[Finding] = []
        try:
            while True:
                event = next(self._events)
                if isinstance(event, Finding):
                    found.append(event)
                yield event
        except StopIteration as stopped:
            prompt: Prompt = stopped.value
            return prompt
        except (KeyboardInterrupt, GeneratorExit):
            if found:
                said = "\n\n".join(each.text for each in found)
                sources = tuple(p for each in found for p in each.passages)
                keep(Turn(self._question, user_message(self._question), sources, said))
            raise


def quote(found: Digest, question: str, keep: Callable[[Turn], None]) -> Iterator[Event]:
    """Answer in the documents' own sentences, document by document; ``keep`` is given the turn,
    also where it is stopped."""
    begin = perf_counter()
    said, sources = "", tuple[Passage, ...]()
    interrupted, stats = True, Stats(0, 0, 0, 0.0, 0.0)
    if found.left_out:
        yield Notice(
            f"there is no room for {found.left_out:,} of the documents; "
            "a larger --max-tokens makes some"
        )
    try:
        for excerpt in found.excerpts():
            piece = ("\n\n" if said else "") + excerpt.text
            said, sources = said + piece, (*sources, *excerpt.passages)
            stats = Stats(0, 0, 0, stats.first_token_seconds or perf_counter() - begin, 0.0)
            yield Delta(piece, stats)
        interrupted = False
    finally:
        if said:
            keep(Turn(question, user_message(question), sources, said, interrupted))
    if not said:
        raise NazxError("the documents hold no text to summarize", "name others by --file")
    yield Answer(said, sources, "length" if found.cut else "stop", stats, EXTRACT)


def _sources(library: Library, partials: Sequence[Partial]) -> tuple[Passage, ...]:
    """The blocks that had something to say, each as one stretch of its document."""
    return tuple(
        library.span(each.passages[0].start, each.passages[-1].stop)
        for each in partials
        if each.found
    )
