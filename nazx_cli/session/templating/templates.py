"""From messages to token ids, by the checkpoint's chat template or in a plain form without one;
and where an answer in that form ends.

A chat template is code from the Hub, so it runs in a sandbox. What people and documents
say must not steer the model's markup: a special token's text inside a message is encoded as
ordinary characters, never as that token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.session.state import Message
from nazx_cli.session.templating.form import CORRECT, FAILED, form_of
from nazx_cli.session.templating.sandbox import is_plain
from nazx_cli.session.templating.thinking import marks_of
from nazx_cli.tokenizer.sources import TOKENS

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

_BETWEEN = "\x1e"  # ASCII's record separator, between the sources of a question
PLAIN_STOPS = ("\nQuestion:",)
"""Where an answer in the plain form ends: the model begins to ask itself the next question."""


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    think: bool | None = None,
) -> list[int]:
    """Token ids of a conversation; ``think`` as for ``Form.text``.

    Without special-token text in the messages they equal the ids that transformers'
    ``apply_chat_template`` gives. A template that fails raises ``ModelUnavailableError``.
    """
    if tokenizer.chat_template is None:
        return _render_plain(tokenizer, messages, add_generation_prompt)
    if tokenizer.takes_sources:
        messages = _with_sources(messages)
    shield = _Shield(tokenizer, messages)
    turns = [{"role": m.role, "content": shield.cover(m.text)} for m in messages]
    text = form_of(tokenizer).text(turns, opens=add_generation_prompt, think=think)
    ids = shield.encode(text)
    if not ids and add_generation_prompt:
        raise ModelUnavailableError(f"{FAILED}: it makes an empty prompt", CORRECT)
    return ids


def source_block(texts: Iterable[str]) -> str:
    """Texts as a message's ``context`` holds them where prompts have a place for sources."""
    return _BETWEEN.join(text.replace(_BETWEEN, " ").strip() for text in texts)


def _with_sources(messages: Sequence[Message]) -> list[Message]:
    """Each question bare, and behind the last one its sources, numbered: such a model reads those
    of one question."""
    bare = [replace(message, context="") for message in messages]
    if not messages or not (context := messages[-1].context):
        return bare
    texts = enumerate(context.split(_BETWEEN), 1)
    return [*bare, *(Message("source", f"{number} {text}") for number, text in texts)]


def prepare(tokenizer: Tokenizer) -> None:
    """Have started by now what the first ``render`` would wait for."""
    if tokenizer.chat_template is not None and not is_plain(tokenizer.chat_template):
        from nazx_cli.session.templating.process import start

        start()


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end an answer: those that the checkpoint names, and the one that its template
    puts behind one."""
    if tokenizer.chat_template is None:
        return tokenizer.stop_ids
    special = frozenset(tokenizer.special_ids.values())
    found = set(tokenizer.stop_ids)
    for ending in form_of(tokenizer).endings:
        for token in tokenizer.encode_markup(ending):
            if token in special:
                found.add(token)
            if token in special or tokenizer.decode([token]).strip():
                break
    return frozenset(found)


def stop_strings(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Texts that end an answer although no stop token does."""
    return PLAIN_STOPS if tokenizer.chat_template is None else ()


class StopFilter:
    """Ends an answer at a stop string, without ever showing the first half of one.

    Lets text through until one of ``stops`` comes up; what could begin one is held back. ``rest``
    is what came behind the stop in the same piece.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        self.rest = ""

    def push(self, text: str) -> str:
        """The part of the text so far that is certain to belong to the answer."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        whole = self._held + text
        found = [at for stop in self._stops if (at := whole.find(stop)) >= 0]
        if found:
            at = min(found)
            stop = next(stop for stop in self._stops if whole.startswith(stop, at))
            self.stopped, self._held, self.rest = True, "", whole[at + len(stop) :]
            return whole[:at]
        keep = max(_overlap(whole, stop) for stop in self._stops)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


def _render_plain(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool
) -> list[int]:
    """Questions and answers for a model that never learnt a chat format."""
    text = ""
    for message in messages:
        if message.role == "assistant":
            answer = message.content
            text += answer if answer[:1].isspace() else f" {answer}"
            continue
        text += "\n\n" if text else ""
        if message.role == "system":
            text += message.text
        else:
            context = f"{message.context}\n\n" if message.context else ""
            text += f"{context}Question: {message.content}\nAnswer:"
    if not add_generation_prompt and text.endswith("\nAnswer:"):
        text = text.removesuffix("\nAnswer:")
    ids = tokenizer.encode(text)
    if tokenizer.add_bos:
        ids = tokenizer.encode_markup(tokenizer.special["bos_token"]) + ids
    return ids


class _Shield:
    """Keeps special-token text in messages from becoming special tokens, and marks around thinking
    and sources from being taken for such.

    Such text is replaced by a placeholder before the template runs, and encoded as plain
    characters where the placeholder comes out.
    """

    def __init__(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> None:
        self._tokenizer = tokenizer
        self._covered: list[str] = []
        texts = [m.text for m in messages]
        marks = marks_of(tokenizer)
        self._marks: tuple[str, ...] = (marks.opening, marks.closing) if marks else ()
        if tokenizer.takes_sources:
            self._marks = TOKENS
        names = {s for s in (*tokenizer.special_ids, *self._marks) if s}
        specials = sorted(names, key=len, reverse=True)
        present = [s for s in specials if any(s in text for text in texts)]
        self._special = re.compile("|".join(map(re.escape, present))) if present else None
        self._mark = "nazxtext"
        while any(self._mark in text for text in texts):
            self._mark += "q"

    def cover(self, text: str) -> str:
        """``text`` with placeholders in the place of special-token text."""
        covered = (
            self._special.sub(lambda m: self._hide(m.group()), text) if self._special else text
        )
        # A normalizer can make a special token of text that does not look like one.
        special_ids = set(self._tokenizer.special_ids.values())
        if special_ids.intersection(self._tokenizer.encode_markup(covered)):
            return self._hide(text)
        return covered

    def encode(self, rendered: str) -> list[int]:
        """Ids of the rendered template, placeholders resolved."""
        if not self._covered:
            return self._tokenizer.encode_markup(rendered)
        ids: list[int] = []
        parts = re.split(f"{self._mark}(\\d+)x", rendered)
        for at, part in enumerate(parts):
            if at % 2:
                ids += self._plain(self._covered[int(part)])
            elif part:
                ids += self._tokenizer.encode_markup(part)
        return ids

    def _plain(self, text: str) -> list[int]:
        """Ids of a covered text. Marks around thinking or sources are tokens also where they are no
        special ones: in two halves they are not."""
        halves = (text[:1], text[1:]) if text in self._marks else (text,)
        return [i for half in halves for i in self._tokenizer.encode(half)]

    def _hide(self, text: str) -> str:
        self._covered.append(text)
        return f"{self._mark}{len(self._covered) - 1}x"
