"""From requests to answers, piece by piece; all of it on the worker's thread.

An answer is made as ``nazx ask`` and ``nazx chat`` make it: by a ``Session`` that is set to what
the request says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nazx_cli.errors import ContextOverflowError
from nazx_cli.names import MAIN_BRANCH
from nazx_cli.reading.library import Library
from nazx_cli.reading.passages import Passage, distinct
from nazx_cli.serving.errors import ApiError
from nazx_cli.serving.logprobs import TokenChances, chances
from nazx_cli.serving.requests import ChatRequest, CompletionRequest
from nazx_cli.session.events import Answer, Delta, Notice, Reading, Thought
from nazx_cli.session.saying import default_sampling
from nazx_cli.session.session import Session
from nazx_cli.session.state import State
from nazx_cli.session.templating.templates import StopFilter

if TYPE_CHECKING:
    from nazx_cli.engine.generator import Stats
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.serving.shelf import Held
    from nazx_cli.session.events import Usage
    from nazx_cli.session.saving.session_file import ModelTag, SessionFile
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.settings import SessionSettings

_KEPT = 8  # sets of documents whose posting lists are kept
_COMPLETION = 16  # tokens of a completion where nothing is said, as OpenAI has it


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
    asked about, None of what was said earlier, ``file`` the id by which a request can name it, and
    ``quote`` a sentence of it, where one is known."""

    passage: Passage
    document: int | None
    file: str | None
    quote: str


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
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Saved:
    """A session as it was saved under ``name``, and which save that was."""

    name: str
    version: str | None
    session: Session


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
    """Answers requests with ``lm``, which nobody else uses meanwhile.

    One context is held at a time: that of the set of documents that was asked about last.
    ``count`` is told the tokens of each prompt and of what was generated, however that ended.
    """

    def __init__(
        self,
        lm: LanguageModel,
        settings: SessionSettings,
        store: Store,
        tag: ModelTag,
        count: Callable[[int, int], None],
    ) -> None:
        self.lm = lm
        self.settings = settings
        self._count = count
        self._store, self._tag = store, tag
        self._sessions: OrderedDict[tuple[TokenizedDocument, ...], Session] = OrderedDict()
        self._latest: Session | None = None
        self._saved: _Saved | None = None
        self.usage: Usage | None = None
        """What the conversation took that was answered in last."""

    def forget(self, document: TokenizedDocument) -> Generator[None, None, None]:
        """Let go of all that was made of ``document``; yields nothing."""
        for documents in [each for each in self._sessions if document in each]:
            if self._sessions.pop(documents) is self._latest:
                self._latest = None
        yield from ()

    def chat(self, asked: ChatRequest, held: Sequence[Held]) -> Told:
        """Answer a question about the documents ``held``, in the session that it names if any."""
        if asked.session is not None:
            yield from self._go_on(asked.session, asked, held)
            return
        documents = tuple(dict.fromkeys(each.document for each in held))
        session = self._session(documents)
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
            library = Library(documents, self.lm.tokenizer) if documents else None
            session = self._sessions[documents] = Session(self.lm, library, self.settings)
        self._sessions.move_to_end(documents)
        if len(self._sessions) > _KEPT:
            self._sessions.popitem(last=False)
        self._hold(session)
        return session

    def _hold(self, session: Session | None) -> None:
        """Let go of the context that another session holds: memory is planned for one."""
        if self._latest is not None and self._latest is not session:
            self._latest.release()
        if self._saved is not None and self._saved.session is not session:
            self._saved = None
        self._latest = session

    def _go_on(self, name: str, asked: ChatRequest, held: Sequence[Held]) -> Told:
        """Answer in the saved session ``name``, which is nobody else's meanwhile."""
        with self._store.open(name, create=True) as file:
            session = self._kept(file)
            saved = session.snapshot() if session else file.load(self.lm.tokenizer, self._tag)
            session = session or Session(self.lm, settings=asked.over(self.settings))
            self._hold(session)
            self._saved = None
            if saved is not None:
                state = saved.branches[saved.branch]
                state = replace(state, settings=asked.over(state.settings))
                session.restore({**saved.branches, saved.branch: state}, *saved[1:])
            known = {each.key for each in session.documents}
            new = [each.document for each in held if each.document.key not in known]
            if new:
                documents = (*session.documents, *dict.fromkeys(new))
                session.set_documents(documents, f"read {len(new)} files")
            before = session.turns
            try:
                yield from self._answer(session, asked, held)
            finally:
                if session.turns != before:
                    file.save(*session.snapshot(), self._tag)
                    self._saved = _Saved(file.name, file.version, session)

    def _kept(self, file: SessionFile) -> Session | None:
        """The session of ``file``, where it was the last that answered and nobody changed it."""
        kept = self._saved
        if kept is None or kept.name != file.name or kept.version != file.version:
            return None
        return kept.session

    def _answer(self, session: Session, asked: ChatRequest, held: Sequence[Held]) -> Told:
        heard, stops = _Heard(), StopFilter(asked.manner.stops)
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
                    if stops.stopped:
                        heard.stopped = True
                        break
        finally:
            self._count(*heard.tokens)
        self.usage = session.usage()
        yield _end(heard, session, held)

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
                raise ContextOverflowError(
                    f"the prompt has {len(ids):,} tokens; the model's window takes "
                    f"{self.lm.window:,}, its answer included"
                )
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


def _end(heard: _Heard, session: Session, held: Sequence[Held]) -> End:
    answer = heard.answer
    quoted: Iterable[tuple[Passage, str]]
    if answer is not None and answer.cites:
        quoted = answer.quotations
    else:
        quoted = [(passage, "") for _, passage in distinct(heard.passages)]
    sources = tuple(_source(passage, quote, session, held) for passage, quote in quoted)
    prompt_tokens, generated = heard.tokens
    return End(
        "stop" if heard.stopped or answer is None else answer.finish,
        prompt_tokens,
        generated,
        mode=heard.mode,
        sources=sources,
        read=heard.passages,
        confidence=answer.confidence if answer is not None else None,
        notices=tuple(heard.notices),
    )


def _source(passage: Passage, quote: str, session: Session, held: Sequence[Held]) -> Source:
    number = file = None
    library = session.library
    if library is not None and 0 <= passage.start < library.num_tokens:
        at = library.document_of(passage.start)
        document = library.documents[at]
        if document.name == passage.document:
            number = at + 1
            file = next((each.id for each in held if each.document.key == document.key), None)
    return Source(passage, number, file, quote or passage.text.strip())
