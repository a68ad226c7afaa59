"""What people would otherwise run: a library of its own, given the prompt as text.

``PASSAGES`` gives it the passages that NazX reads, so that what differs is the library alone;
``FIRST`` gives it the first document's first tokens, as tools do that cut off what their window
does not take. Both get the room that NazX has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from nazx_cli.errors import ContextOverflowError
from nazx_cli.evaluation.contestants.base import Reply
from nazx_cli.evaluation.contestants.nazx import Found, NazxContestant
from nazx_cli.evaluation.data.stories import ANSWER, SUMMARY
from nazx_cli.reading.summaries.overview import is_overview
from nazx_cli.session.prompt import form_of, user_message
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render, stop_ids

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document

PASSAGES, FIRST = "passages", "first"
WAYS = {PASSAGES: "with the same passages", FIRST: "with the document's first tokens"}


class Engine(Protocol):
    """A model of another library; the adapters of ``bench`` are of this kind."""

    @property
    def name(self) -> str:
        """The library and its version."""

    def prefill(self, ids: Tensor) -> tuple[Any, Tensor]:
        """Run ids (T,); the cache that they leave, and (V,) logits after the last."""

    def decode(self, cache: Any, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in ``cache``."""


class PeerContestant:
    """Another library on the same weights, greedy and without a repeat penalty.

    ``reader`` finds the passages and has tokenizer, window and chat template; ``make`` loads the
    engine when it is first asked. In a chat, the turns before go into the prompt as far as they
    fit.
    """

    kinds = frozenset({ANSWER, SUMMARY})

    def __init__(
        self,
        name: str,
        way: str,
        reader: NazxContestant,
        make: Callable[[], Engine],
        max_tokens: int,
    ) -> None:
        self.label = f"{name} {WAYS[way]}"
        self._name = name
        self._way = way
        self._reader = reader
        self._make = make
        self._max_tokens = max_tokens

    @property
    def identity(self) -> Mapping[str, Any]:
        """Library, what it is given, and who finds that, on the same weights."""
        return {
            "peer": self._name,
            "way": self._way,
            "max_tokens": self._max_tokens,
            "reader": self._reader.identity,
        }

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        """See ``Contestant``."""
        engine: Engine = self._reader.shelf.beside(self._name, self._make)  # before time counts
        history: list[Message] = []
        for question in questions:
            begin = time.perf_counter()
            try:
                found = self._found(documents, question)
            except ContextOverflowError as error:
                yield Reply("", error=str(error))
                continue
            ids = self._fitted(history, self._message(found, question))
            text, count, finish = self._generate(engine, ids)
            history += [Message("user", question), Message("assistant", text)]
            seconds = time.perf_counter() - begin
            yield Reply(text, found.reads, self._way, finish, seconds, count)

    def _found(self, documents: Sequence[Document], question: str) -> Found:
        if self._way == PASSAGES:
            return self._reader.find(documents, question)
        library = self._reader.shelf.library(documents)
        empty = self._render([Message("user", question, "\n")])
        room = max(1, self._limit - len(empty))
        first = library.span(0, min(room, int(library.bounds[1])))
        return Found(library, (first,), FIRST)

    def _message(self, found: Found, question: str) -> Message:
        if self._way == FIRST:
            return Message("user", question, found.passages[0].text.strip())
        form = form_of(self._reader.shelf.lm.tokenizer)
        overview = is_overview(found.library, question)
        return user_message(question, found.passages, overview=overview, form=form)

    @property
    def _limit(self) -> int:
        """Tokens of a prompt that leave room for an answer in NazX's own window."""
        window = self._reader.shelf.lm.window or 4 * self._max_tokens
        return max(1, window - min(self._max_tokens, window // 4))

    def _fitted(self, history: Sequence[Message], message: Message) -> list[int]:
        for skipped in range(0, len(history) + 1, 2):
            ids = self._render([*history[skipped:], message])
            if len(ids) <= self._limit:
                return ids
        return ids

    def _render(self, messages: Sequence[Message]) -> list[int]:
        return render(self._reader.shelf.lm.tokenizer, messages)

    def _generate(self, engine: Engine, ids: Sequence[int]) -> tuple[str, int, str]:
        """Text, tokens and how it ended."""
        tokenizer = self._reader.shelf.lm.tokenizer
        cache, logits = engine.prefill(torch.tensor(ids))
        token, said, stops = int(logits.argmax()), list[int](), stop_ids(tokenizer)
        while token not in stops and len(said) < self._max_tokens:
            said.append(token)
            if len(said) < self._max_tokens:
                token = engine.decode(cache, token, 1)[0]
        finish = "stop" if token in stops else "length"
        return tokenizer.decode(said).strip(), len(said), finish
