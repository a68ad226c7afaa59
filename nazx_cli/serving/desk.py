"""From requests to answers, piece by piece; all of it on the worker's thread.

An answer is made as ``nazx ask`` and ``nazx chat`` make it: by a ``Session`` that is set to what
the request says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nazx_cli.index.shelf import is_indexed
from nazx_cli.names import MAIN_BRANCH
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage, distinct
from nazx_cli.serving.errors import ApiError, naming_a_session, no_document
from nazx_cli.serving.logprobs import TokenChances, chances
from nazx_cli.serving.requests import ChatRequest, CompletionRequest
from nazx_cli.session.events import Answer, Delta, Notice, Reading, Thought
from nazx_cli.session.saving.at_hand import Saving
from nazx_cli.session.saying import default_sampling
from nazx_cli.session.session import Session
from nazx_cli.session.state import State
from nazx_cli.session.templating.templates import StopFilter

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Stats
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.index.shelf import Index
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.serving.shelf import Held
    from nazx_cli.session.events import RunnerUp, Usage
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.settings import SessionSettings

_KEPT = 8  # sets of documents whose posting lists are kept, ...
_KEPT_TOKENS = 50_000_000  # ... fewer where they have more tokens than this
_COMPLETION = 16  # tokens of a completion where nothing is said, as OpenAI has it


@dataclass(frozen=True)
class Served:
    """What is served: a model, how it answers where a request does not say, the saved sessions and
    what these know the model by; documents that are there from the beginning, and the index that
    takes in what is sent, where it is much."""

    lm: LanguageModel
    settings: SessionSettings
    store: Store
    tag: ModelTag
    documents: tuple[TokenizedDocument, ...] = ()
    index: Index | None = None


@dataclass(frozen=True)
class Piece:
    """The next of an answer: text, what was thought, and how likely its token was. A piece without
    anything in it tells that work goes on. ``index`` is the prompt's among several."""

    text: str = ""
    thinking: str = ""
    token: TokenChances | None = None
    index: int = 0


@dataclass(frozen=True)
class Source:
    """A passage that an answer rests on; ``document`` is the number of its document among those
    asked about, None of what was said earlier and where the session does not keep it, ``file`` the
    id by which a request can name it, and ``quote`` a sentence of it, where one is known."""

    passage: Passage
    document: int | None
    file: str | None
    quote: str


@dataclass(frozen=True)
class Second:
    """The ``runner_up`` of an answer, and its source."""

    runner_up: RunnerUp
    source: Source | None


@dataclass(frozen=True)
class End:
    """The end of an answer; ``finish`` as of ``session.events.Answer``."""

    finish: str
    prompt_tokens: int
    generated: int
    index: int = 0
    mode: str = "none"
    sources: tuple[Source, ...] = ()
    read: tuple[Passage, ...] = ()
    confidence: float | None = None
    likely: bool = False
    second: Second | None = None
    notices: tuple[str, ...] = ()


@dataclass
class _Heard:
    """What a session has told of an answer so far."""

    stats: Stats | None = None
    thought: int = 0
    mode: str = "none"
    passages: tuple[Passage, ...] = ()
    answer: Answer | None = None
    stopped: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, int]:
        """Those of the prompt, and those generated, thinking included."""
        stats = self.stats
        if stats is None:
            return 0, self.thought
        return max(0, stats.prompt - self.thought), stats.generated + self.thought


Told = Generator[Piece | End, None, None]
"""An answer, or several, each with its end."""


class Desk:
    """Answers requests with the model of ``served``, which nobody else uses meanwhile.

    One context is held at a time: that of the set of documents that was asked about last.
    ``count`` is told the tokens of each prompt and of what was generated, however that ended.
    """

    def __init__(self, served: Served, count: Callable[[int, int], None]) -> None:
        self.lm, self.settings = served.lm, served.settings
        self._store = served.store
        self._count = count
        self._sessions: OrderedDict[tuple[TokenizedDocument, ...], Session] = OrderedDict()
        self._latest: Session | None = None
        shared = {each.key for each in served.documents if is_indexed((each,))}
        self._saving = Saving(self.lm, self.settings, served.tag, shared)
        self.usage: Usage | None = None
        """What the conversation took that was answered in last."""

    def forget(self, document: TokenizedDocument) -> Generator[None, None, None]:
        """Let go of all that was made of ``document``; yields nothing."""
        for documents in [each for each in self._sessions if document in each]:
            if self._sessions.pop(documents) is self._latest:
                self._latest = None
        yield from ()

    def remove(self, name: str) -> Generator[None, None, None]:
        """Delete the saved session ``name``; yields nothing."""
        with naming_a_session():
            self._store.remove(name)
        if self._saving.last_name == name:
            self._hold(None)
        yield from ()

    def drop(self, name: str, number: int) -> Generator[str, None, None]:
        """Take the document of that number out of the saved session ``name``; yields what it is
        called."""
        with naming_a_session():
            file = self._store.open(name, create=False)
        with file:
            session, saved, keys = self._saving.open(file)
            listed = file.listed
            if not 1 <= number <= len(listed):
                raise no_document(name)
            if session is None:
                session = Session(self.lm)
                session.restore(*saved)
            self._hold(session)
            key = listed[number - 1]
            if (called := file.gone.get(key)) is None:
                at = [each.content_key for each in session.documents].index(key)
                (dropped,) = session.drop(at + 1)
                called = dropped.name
            self._saving.save(file, session, keys)  # without what is gone
        yield called

    def chat(self, asked: ChatRequest, held: Sequence[Held]) -> Told:
        """Answer a question about the documents ``held``, in the session that it names if any."""
        if asked.session is not None:
            yield from self._go_on(asked.session, asked, held)
            return
        documents = tuple(dict.fromkeys(each.document for each in held))
        session = self._session(documents)
        self._hold(session)
        state = State(documents, asked.history, asked.over(self.settings))
        session.restore({MAIN_BRANCH: state}, MAIN_BRANCH)
        yield from self._answer(session, asked, held)

    def complete(self, asked: CompletionRequest) -> Told:
        """Go on with each prompt, one after the other."""
        self._hold(None)
        self.lm.about_documents(False)
        for index, prompt in enumerate(asked.prompts):
            yield from self._complete(asked, self._ids(prompt), index)

    def _session(self, documents: tuple[TokenizedDocument, ...]) -> Session:
        """The one that holds what was made of ``documents``."""
        if (session := self._sessions.get(documents)) is None:
            library = Library.of(documents, self.lm.tokenizer) if documents else None
            session = self._sessions[documents] = Session(self.lm, library, self.settings)
        self._sessions.move_to_end(documents)
        while len(self._sessions) > 1 and self._keeps_much():
            self._sessions.popitem(last=False)
        return session

    def _keeps_much(self) -> bool:
        libraries = [each.library for each in self._sessions.values()]
        tokens = sum(library.num_tokens for library in libraries if library)
        return len(libraries) > _KEPT or tokens > _KEPT_TOKENS

    def _hold(self, session: Session | None) -> None:
        """Let go of the context that another session holds: memory is planned for one."""
        if self._latest is not None and self._latest is not session:
            self._latest.release()
        self._saving.hold(session)
        self._latest = session

    def _go_on(self, name: str, asked: ChatRequest, held: Sequence[Held]) -> Told:
        """Answer in the saved session ``name``, which is nobody else's meanwhile."""
        with self._store.open(name, create=True) as file:
            session, saved, keys = self._saving.open(file)
            state = saved.branches[saved.branch]
            own = self._saving.kept(state.documents, keys)
            known = {each.key for each in own}
            new = (each.document for each in held if each.document.key not in known)
            documents = (*own, *dict.fromkeys(new))
            if session is None:
                library = None if own else self._session(documents).library
                session = Session(self.lm, library, self.settings)
            self._hold(session)
            self._saving.hold(None)
            gone = {each.name for each in state.documents} - {each.name for each in documents}
            history = state.history.without_quotes(gone)
            state = State(documents, history, asked.over(state.settings))
            session.restore({**saved.branches, saved.branch: state}, *saved[1:])
            before = session.turns
            try:
                passing = self._saving.shared - keys
                yield from self._answer(session, asked, held, passing, file.gone_note)
            finally:
                if session.turns != before:
                    self._saving.save(file, session, keys)

    def _answer(
        self,
        session: Session,
        asked: ChatRequest,
        held: Sequence[Held],
        passing: Set[str] = frozenset(),
        notice: str = "",
    ) -> Told:
        """``passing``: the keys of documents that the session does not keep; ``notice``: what is to
        be told besides, if anything."""
        heard, stops = _Heard(), StopFilter(asked.manner.stops)
        heard.notices.extend(filter(None, [notice]))
        tail = ""  # white space that ends the answer so far: at its end it is none of it
        try:
            with closing(session.ask(asked.question)) as events:
                for event in events:
                    piece = self._take(event, heard, asked)
                    text = tail + stops.push(piece.text)
                    if isinstance(event, Answer):
                        text = tail + stops.flush()
                    shown = text.rstrip()
                    tail = text[len(shown) :]
                    yield replace(piece, text=shown)
                    heard.stopped = stops.stopped
                    if heard.stopped and isinstance(event, Delta) and event.step is not None:
                        break  # else all is said already, and what it rests on comes next
        finally:
            self._count(*heard.tokens)
        self.usage = session.usage()
        yield _end(heard, session, held, passing)

    def _take(self, event: object, heard: _Heard, asked: ChatRequest) -> Piece:
        """Keep what ``event`` tells for the end; what of it is to be sent now."""
        if isinstance(event, Thought):
            heard.thought = event.tokens
            shows = self.settings.think == "on"
            return Piece(thinking=event.text if shows else "")
        if isinstance(event, Delta):
            heard.stats = event.stats or heard.stats
            wanted = asked.manner.logprobs
            token = None
            if event.step is not None and wanted is not None:
                token = chances(event.step, self.lm.tokenizer, wanted)
            return Piece(event.text, token=token)
        if isinstance(event, Answer):
            heard.answer, heard.stats = event, event.stats
            heard.mode, heard.passages = event.mode, event.sources or heard.passages
        elif isinstance(event, Reading):
            heard.mode, heard.passages = event.mode, event.passages
        elif isinstance(event, Notice):
            heard.notices.append(event.text)
        return Piece()

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        """A prompt's tokens: of raw text, so that marks of the template are what they mean."""
        tokenizer = self.lm.tokenizer
        if not isinstance(prompt, str):
            if not all(0 <= each < self.lm.config.vocab_size for each in prompt):
                raise ApiError(400, "prompt has ids that are no tokens", "prompt", "invalid_value")
            return list(prompt)
        ids = tokenizer.encode_markup(prompt)
        if tokenizer.add_bos:
            ids = tokenizer.encode_markup(tokenizer.special["bos_token"]) + ids
        if not ids:
            raise ApiError(400, "prompt is empty", "prompt", "invalid_value")
        return ids

    def _complete(self, asked: CompletionRequest, ids: list[int], index: int) -> Told:
        most, manner = asked.manner.max_tokens or _COMPLETION, asked.manner
        if self.lm.window is not None:
            room = self.lm.window - len(ids)
            if room < 1:
                message = (
                    f"the prompt has {len(ids):,} tokens; the model's window takes "
                    f"{self.lm.window:,}, its answer included"
                )
                raise ApiError(400, message, "prompt", "context_length_exceeded")
            most = min(most, room)
        context = self.lm.new_context()
        context.append(ids)
        sampling = manner.over(self.settings).sampling.over(
            default_sampling(self.lm, has_documents=False)
        )
        stops, finish, generated = StopFilter(manner.stops), "length", 0
        try:
            for step in self.lm.generate(context, max_tokens=most, sampling=sampling):
                generated = step.stats.generated
                text = stops.push(step.delta)
                if step.finish is not None:
                    text, finish = text + stops.flush(), step.finish
                token = None
                if manner.logprobs is not None:
                    token = chances(step, self.lm.tokenizer, manner.logprobs)
                yield Piece(text, token=token, index=index)
                if stops.stopped:
                    finish = "stop"
                    break
        finally:
            self._count(len(ids), generated)
        yield End(finish, len(ids), generated, index)


def _end(heard: _Heard, session: Session, held: Sequence[Held], passing: Set[str]) -> End:
    answer = heard.answer
    quoted: Iterable[tuple[Passage, str]] = answer.quotations if answer is not None else ()
    if answer is None or not answer.cites:
        quoted = [(passage, "") for _, passage in distinct(heard.passages)]
    ids = {each.document.key: each.id for each in reversed(held)}
    documents = session.library.documents if session.library is not None else ()
    kept = (document for document in documents if document.key not in passing)
    numbers = {document: number for number, document in enumerate(kept, 1)}
    sources = tuple(_source(*each, session, ids, numbers) for each in quoted)
    second = None
    if answer is not None and (other := answer.runner_up) is not None:
        quote = other.quotation
        second = Second(other, quote and _source(*quote, session, ids, numbers))
    prompt_tokens, generated = heard.tokens
    return End(
        "stop" if heard.stopped or answer is None else answer.finish,
        prompt_tokens,
        generated,
        mode=heard.mode,
        sources=sources,
        read=heard.passages,
        confidence=answer.confidence if answer is not None else None,
        likely=answer is not None and answer.likely,
        second=second,
        notices=tuple(heard.notices),
    )


def _source(
    passage: Passage,
    quote: str,
    session: Session,
    ids: Mapping[str, str],
    numbers: Mapping[TokenizedDocument, int],
) -> Source:
    number = file = None
    library = session.library
    if library is not None and 0 <= passage.start < library.num_tokens:
        at = library.document_of(passage.start)
        document = library.documents[at]
        if document.name == passage.document:
            number = numbers.get(document)
            file = ids.get(document.key)
    return Source(passage, number, file, quote or passage.text.strip())
