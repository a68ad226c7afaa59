"""Answering: from a state of the conversation and a question to the next state.

The context holds the prompt's token ids. Each turn renders the whole prompt again and keeps the
longest beginning that the context already holds, so an unchanged beginning is never recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

from nazx_cli.engine.generator import Stats
from nazx_cli.engine.pace import Pace
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.model.libraries import give_back
from nazx_cli.reading.grounding import DocumentGrounding, Ordinary
from nazx_cli.reading.library import Library
from nazx_cli.reading.spelling import mended
from nazx_cli.session.calibration import Calibration
from nazx_cli.session.citation import mark_tokens, quoted_first
from nazx_cli.session.earlier import EarlierTurns, followed_turn
from nazx_cli.session.events import (
    Answer,
    Delta,
    Event,
    Notice,
    Progress,
    Reading,
    RunnerUp,
    Running,
    Thought,
    Usage,
)
from nazx_cli.session.parts import (
    ANSWER_TOKENS,
    Asking,
    choose,
    has_none_of,
    part_answer,
    passages_of,
    speak_of_nobody,
    taken_for,
)
from nazx_cli.session.prompt import (
    Prompt,
    Prompter,
    Setup,
    left_out_notice,
    prompt_limit,
    read_mode,
)
from nazx_cli.session.reader import Kept, Reader, quote
from nazx_cli.session.saying import THINKS_ALL_THE_SAME, Limits, Speaker, default_sampling
from nazx_cli.session.state import History, Message, State, Turn
from nazx_cli.session.synced import SyncedContext

if TYPE_CHECKING:
    from nazx_cli.context.context import Context
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.settings import SessionSettings


class Answerer:
    """Answers questions with ``lm``, each as from a state that it is given.

    It owns no conversation. What it keeps (contexts, and what follows from a state's documents
    and settings) only spares the next answer the work. ``library`` is used for states that have
    its documents.
    """

    def __init__(self, lm: LanguageModel, library: Library | None = None) -> None:
        self.lm = lm
        self._speaker = Speaker(lm)
        self._told_of_thinking = False
        self.answering = False
        """True while ``answer`` is at work: what the context holds is then ahead of the state."""
        # Held while ``answering`` turns true, and by who uses the tokenizer beside ``answer``.
        self._lock = Lock()
        self._counted: tuple[State, int] | None = None  # and the tokens of its conversation
        self._earlier = EarlierTurns(lm.tokenizer)
        self._synced: SyncedContext | None = None
        self._scratch: SyncedContext | None = None
        self._setup = self._set_up(State(library.documents if library else ()), library)

    @property
    def context(self) -> Context | None:
        """What the model holds of the conversation now; None before the first answer."""
        return None if self._synced is None else self._synced.context

    def release(self) -> None:
        """Let go of the contexts: the next answer begins them anew."""
        self._synced = self._scratch = None

    def setup(self, state: State) -> Setup:
        """What answers from ``state`` rest on; errors as for ``prepare``."""
        if self._setup.serves(state):
            return self._setup
        return self._set_up(state, self._setup.library)

    def prepare(self, state: State) -> None:
        """Have the context hold the documents of ``state`` that the model attends to.

        Costs the number of documents and the copying of their ids. Raises ``UsageError`` for a
        read mode that the model cannot do, and ``ContextOverflowError`` where its ``ctx`` is less
        than documents that the model attends to.
        """
        setup = self.setup(state)
        if self._synced is not None:
            self._make_resident(self._synced, setup)
        self._setup = setup

    def usage(self, state: State) -> Usage:
        """What ``state`` takes, the present one of the conversation; may be asked from another
        thread during ``answer``."""
        setup, tokens = self.setup(state), state.num_tokens
        talk = self._conversation_tokens(state)
        return Usage(
            tuple((document.name, len(document)) for document in state.documents),
            tokens,
            talk,
            state.settings.ctx if setup.attends else setup.prompter.window,
            talk + tokens if setup.attends else talk,
            0 if self.context is None else self.context.nbytes,
            state.history.left_out,
            self.lm.ranks,
        )

    def carried(self, state: State) -> list[int]:
        """Token ids that the next prompt holds before its question, system message included; where
        it is asked in parts those of the last turn, for no other can go on."""
        setup, messages = self.setup(state), state.history.messages()
        in_parts = self.lm.can_cite and setup.reader.makes_parts
        return setup.prompter.conversation(messages[-2:] if in_parts else messages)

    def _conversation_tokens(self, state: State) -> int:
        """During an answer those in the context: the tokenizer is then in use, and it serves one
        thread."""
        with self._lock:
            if not self.answering:
                if self._counted is None or self._counted[0] is not state:
                    self._counted = (state, len(self.carried(state)))
                return self._counted[1]
        if self.context is None:
            return self._counted[1] if self._counted else 0
        return self.context.tokens.live_count

    def answer(
        self, state: State, question: str, keep: Callable[[State], None]
    ) -> Generator[Event, None, None]:
        """Answer ``question`` as from ``state``; the last event is the ``Answer``.

        ``keep`` is given the state that comes of it as soon as the model has said all. Stopping
        early (closing the iterator, or KeyboardInterrupt) keeps what was said: it is the turn's
        answer, marked as interrupted. Where nothing was said, ``keep`` is not called.
        """
        question = question.strip()
        if not question:
            raise UsageError("the question is empty", 'ask something, as in: nazx ask "Who?"')
        self._setup = setup = self.setup(state)
        yield from self._ctx_notice(state)
        with self._lock:
            self.answering = True
        try:
            yield from self._take_turn(setup, state, question, keep)
        except KeyboardInterrupt:
            # It can have come in the middle of a change to a context: those are not kept.
            self.release()
            raise
        finally:
            self.answering = False
            # Each turn keeps a little of what was taken and freed around it, a megabyte in all.
            give_back()

    def _set_up(self, state: State, library: Library | None) -> Setup:
        """As ``setup``, with ``library`` where it is that of the documents."""
        documents, settings, tokenizer = state.documents, state.settings, self.lm.tokenizer
        mode = read_mode(settings, self.lm, documents) if documents else "none"
        if not documents:
            library = None
        elif not library or library.documents != documents or library.tokenizer != tokenizer:
            library = Library.of(documents, tokenizer)
        prompter = Prompter(tokenizer, settings, prompt_limit(state, mode, self.lm.window))
        extracts = settings.extracts(self.lm.writes_summaries)
        reader = Reader(library, prompter, mode, self._say, extracts)
        return Setup(documents, settings, mode, library, prompter, reader)

    def check_ctx(self, state: State) -> None:
        """Raise ``UsageError`` where the ``ctx`` of ``state`` is more than can be used."""
        if beyond := self._beyond_window(state):
            told, most = beyond
            raise UsageError(told, f"use at most {most:,}, or none for all of it")

    def _ctx_notice(self, state: State) -> Iterator[Notice]:
        if not state.history.turns and (beyond := self._beyond_window(state)):
            told, most = beyond
            yield Notice(f"{told}; using {most:,}")

    def _beyond_window(self, state: State) -> tuple[str, int] | None:
        """What is wrong with the ``ctx`` of ``state``, and the most that can be used; None where
        all of it can."""
        wanted, window = state.settings.ctx, self.lm.window
        if wanted is None or window is None:
            return None
        most = window + (state.num_tokens if self.setup(state).attends else 0)
        told = f"a context of {wanted:,} tokens is more than the model's window takes"
        return (told, most) if wanted > most else None

    def _take_turn(
        self, setup: Setup, state: State, question: str, keep: Callable[[State], None]
    ) -> Generator[Event, None, None]:
        def keep_turn(turn: Turn) -> None:
            keep(replace(state, history=state.history.with_turn(turn)))

        setup.prompter.check(question)
        if slips := setup.slips(question, state.history, self._ordinary):
            yield Notice(taken_for(slips))
            question = mended(question, slips)
            setup.prompter.check(question)
        followed = followed_turn(question, state.history)
        self.lm.attend_far(setup.attends)
        if (found := setup.reader.extract(question)) is not None:
            yield from quote(found, question, keep_turn)
            return
        if names := setup.strange_names(question):
            yield Notice(has_none_of(names))
            if self.lm.can_cite:
                yield from speak_of_nobody(question, keep_turn)
                return
        if self.lm.can_cite:
            asking = Asking.of(self.lm.reader_notes)
            prompts = setup.reader.parts(question, followed, asking)
            # Whatever is not answered in parts is the model's own to answer, without its reader.
            if self.lm.about_documents(bool(prompts)):
                self.release()
            if prompts:
                yield from self._answer_in_parts(setup, state, prompts, asking, followed, keep)
                return
        history = setup.fitted(state.history, question)
        if history.left_out > state.history.left_out:
            yield Notice(left_out_notice(history.left_out, state.settings.read))
        earlier = self._earlier.library(history)
        standing = setup.reader.stands(history)
        read = setup.reader.read(question, history.messages(), earlier, standing, followed)
        prompt = yield from Kept(read, question).events(keep_turn)
        if prompt.mode != "none":
            yield Reading(prompt.mode, prompt.passages)
        yield from self._answer(
            setup, prompt, history, lambda said: keep(replace(state, history=said))
        )

    def _answer_in_parts(
        self,
        setup: Setup,
        state: State,
        prompts: Sequence[Prompt],
        asking: Asking,
        followed: Sequence[Message],
        keep: Callable[[State], None],
    ) -> Iterator[Event]:
        """Put ``prompts``, as many as it takes, and take the surest answer."""
        question, tokenizer = prompts[0].question, self.lm.tokenizer
        begin = perf_counter()
        yield Reading("recall", passages_of(prompts))
        ids = [setup.prompter.ids(followed, prompt.message) for prompt in prompts]
        sampling = setup.settings.sampling.over(default_sampling(self.lm, has_documents=True))
        yield Running(Pace.of_prompts(self.lm.decoder, ids, asking.first))
        candidates = self.lm.answer_each(
            ids,
            max_tokens=min(mark_tokens(tokenizer) + setup.settings.max_tokens, ANSWER_TOKENS),
            sampling=replace(sampling, repeat_penalty=1.0),
            stop_ids=self._speaker.stop_ids,
            opening=asking.opening(tokenizer),
            grounding=self._grounding(setup, question, followed),
        )
        answers = [part_answer(prompts, each, tokenizer.decode) for each in candidates]
        chosen = choose(answers, Calibration.of(self.lm.reader_notes))
        part = chosen.part
        tokens = candidates[answers.index(part)].tokens
        context = self._begun(setup, [*ids[part.rank], *tokens])
        quote = None if chosen.says_not else part.quotation
        quotes = () if quote is None else (quote,)
        second = None
        if chosen.second is not None:
            other, chance = chosen.second
            second = RunnerUp(other.text, chance, other.quotation)
        put = candidates[0].put
        sources = quoted_first(quotes, passages_of(prompts[:put]))
        sure = chosen.confidence
        said = Turn(
            question, part.prompt.message, sources, chosen.text, interrupted=False, confidence=sure
        )
        keep(replace(state, history=state.history.with_turn(said)))
        seconds = perf_counter() - begin
        count = sum(len(candidate.tokens) for candidate in candidates)
        asked = sum(map(len, ids[:put]))
        stats = Stats(len(context), context.nbytes, count, seconds, count / seconds, prompt=asked)
        yield Delta(chosen.text, stats)
        yield Answer(chosen.text, sources, part.finish, stats, "recall", quotes, sure, second)

    def _answer(
        self, setup: Setup, prompt: Prompt, history: History, keep: Callable[[History], None]
    ) -> Iterator[Event]:
        context = self._begun(setup, setup.prompter.ids(history.messages(), prompt.message))
        for done, total in self.lm.read(context):
            yield Progress(done, total, "tokens")
        yield Running(Pace.of_context(self.lm.decoder, context))
        settings = setup.settings
        limits = Limits(settings.max_tokens, settings.max_thinking, setup.prompter.window)
        step = None
        said = shown = ""
        interrupted = True
        try:
            told = [*history.messages(), *self._speaker.numbered(prompt.passages)]
            grounding = self._grounding(setup, prompt.question, told)
            wishes, has_documents = settings.sampling, setup.library is not None
            for piece in self._speaker.say(
                context, limits, wishes, grounding, has_documents=has_documents
            ):
                if isinstance(piece, Thought):
                    yield from self._thinking_notice(settings)
                    yield piece
                    continue
                step = piece
                said += step.delta
                visible = self._speaker.shown(said, ended=step.finish is not None)[len(shown) :]
                shown += visible
                if shown:  # with nothing new too: whoever shows it may want to stop
                    yield Delta(visible, step.stats, step)
            interrupted = False
        finally:
            quotes = self._speaker.quotations(said, prompt.passages)
            if not interrupted and not self._speaker.quotes:
                quotes = setup.reader.evidence(prompt, shown)
            sources = self._speaker.ordered(quotes, prompt.passages)
            if said:
                text = self._speaker.kept(said)
                turn = Turn(prompt.question, prompt.message, sources, text, interrupted)
                keep(history.with_turn(turn))
        if step is None:
            raise NazxError("the model gave no answer", "ask again, or use another model")
        finish = step.finish or "stop"
        likely = bool(quotes) and not self._speaker.quotes
        yield Answer(
            shown.rstrip(), sources, finish, step.stats, prompt.mode, quotes, likely=likely
        )

    def _say(self, message: Message, max_tokens: int) -> str:
        """Answer a message outside of the conversation, on a context of its own."""
        if self._scratch is None:
            self._scratch = SyncedContext(self.lm.new_context())
        prompter, settings = self._setup.prompter, self._setup.settings
        self._scratch.set_live(prompter.ids([], message, thinks=False))
        grounding = self._grounding(self._setup, message.content, ())
        limits = Limits(max_tokens, settings.max_thinking, prompter.window)
        said = self._speaker.say(
            self._scratch.context, limits, settings.sampling, grounding, has_documents=True
        )
        text = "".join(step.delta for step in said if not isinstance(step, Thought))
        return self._speaker.kept(text).strip()

    def _thinking_notice(self, settings: SessionSettings) -> Iterator[Notice]:
        """Told once of a model that thinks although it is not to."""
        if settings.think == "off" and not self._told_of_thinking:
            self._told_of_thinking = True
            yield Notice(THINKS_ALL_THE_SAME)

    @cached_property
    def _ordinary(self) -> Ordinary:
        return Ordinary(self.lm.tokenizer)

    def _grounding(
        self, setup: Setup, question: str, told: Sequence[Message]
    ) -> DocumentGrounding | None:
        """What holds an answer to the documents, and to what else the model is told."""
        if setup.library is None or not setup.settings.grounding:
            return None
        said = [question, setup.settings.system or "", *(message.content for message in told)]
        said += [document.name for document in setup.documents]
        return DocumentGrounding(setup.library, self._ordinary, said)

    def _begun(self, setup: Setup, ids: list[int]) -> Context:
        """The conversation's context, with ``ids`` as its live tokens."""
        synced = self._synced or SyncedContext(self.lm.new_context())
        self._make_resident(synced, setup)
        synced.set_live(ids)
        self._synced = synced
        return synced.context

    def _make_resident(self, synced: SyncedContext, setup: Setup) -> None:
        """Bring in the documents that the model attends to."""
        try:
            synced.set_documents(setup.documents if setup.attends else ())
        except BaseException:  # cut short by Ctrl-C or out of memory: half done
            self._synced = None
            raise
