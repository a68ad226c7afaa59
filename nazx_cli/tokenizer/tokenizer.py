"""Text to token ids and back, on the `tokenizers` library.

Text of a person or a document never turns into a control token: ``encode`` treats
``<|im_end|>`` as ten characters like any others. Only ``encode_markup``, which is for
rendered chat templates, recognises special tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Library

from nazx_cli.config import MAX_VOCABULARY
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import FETCH_AGAIN, Fields, read_object, read_text
from nazx_cli.names import OnProgress
from nazx_cli.tokenizer.backend import Backend
from nazx_cli.tokenizer.cutting import Cutting, cutting_of
from nazx_cli.tokenizer.encode import Chunks, Tokens, encode_edited, encode_in_chunks, encode_whole
from nazx_cli.tokenizer.sentencepiece import Spaced, spaced_of
from nazx_cli.tokenizer.sources import END, TEMPLATE, takes_sources

_HALVES = re.compile("[\ud800-\udfff]")
_SPACE = ("\u0120", "\u2581")  # how byte-level and SentencePiece vocabularies write a space


class Tokenizer:
    """A checkpoint's tokenizer with what a chat needs beside it.

    ``chat_template`` is the Jinja source or None; ``special`` maps ``bos_token``, ``eos_token``
    and so on to their text; ``stop_ids`` are the tokens that end an answer. ``takes_sources``:
    prompts have the form of ``tokenizer.sources``, whatever the checkpoint's template is.
    """

    def __init__(
        self,
        library: Library | Backend,
        chat_template: str | None = None,
        special: dict[str, str] | None = None,
        stop_ids: frozenset[int] = frozenset(),
        add_bos: bool = False,
    ) -> None:
        self._backend = library if isinstance(library, Backend) else Backend(library)
        self.takes_sources = takes_sources(self._backend.id_of)
        self.chat_template = TEMPLATE if self.takes_sources else chat_template
        self.special = dict(special or {})
        self.stop_ids = stop_ids
        if self.takes_sources:
            self.stop_ids |= {i for i in [self._backend.id_of(END)] if i is not None}
        self.add_bos = add_bos
        self._chunks: Chunks | None = None  # while documents remember those before them

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read ``tokenizer.json`` and what stands beside it; errors name the broken file."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelUnavailableError(
                f"{folder} has no tokenizer.json", "fetch the model again or name another folder"
            )
        limit = _vocabulary(folder)
        backend = Backend.from_file(path, limit)
        largest = max(backend.ids().values(), default=0)
        if largest >= limit:
            raise ModelUnavailableError(
                f"{path} has tokens up to the id {largest:,}, the model's vocabulary has {limit:,}",
                f"the two files do not belong together; {FETCH_AGAIN}",
            )
        settings = _settings(folder / "tokenizer_config.json")
        special: dict[str, str] = {}
        for key, value in settings.items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                special[key] = text
        return cls(
            backend,
            _template(folder, settings),
            special,
            _stop_ids(folder, backend, special, limit),
            bool(settings.get("add_bos_token")) and "bos_token" in special,
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._backend.size()

    @cached_property
    def key(self) -> str:
        """Names the tokenizer by all that it makes of a text: the same for the same ids."""
        return blake2b(self._backend.to_json().encode(), digest_size=8).hexdigest()

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Text and id of every special token."""
        return self._backend.special_ids()

    @cached_property
    def whole_words(self) -> dict[str, int]:
        """Words in the letters a to z, in either case, that are one token together with the space
        before them, and its id; empty for a tokenizer that does not mark the space."""
        return {
            token[1:]: i
            for token, i in self._backend.ids().items()
            if token[:1] in _SPACE and token[1:].isascii() and token[1:].isalpha()
        }

    @cached_property
    def pieces(self) -> dict[int, str]:
        """Every token as its vocabulary writes it, but a space that it begins with as a space:
        what decoding a single token may not tell."""
        return {
            i: f" {token[1:]}" if token[:1] in _SPACE else token
            for token, i in self._backend.ids().items()
            if token
        }

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing in it is taken for a special token."""
        return list(self._backend.encode(_whole(text)).ids)

    def encode_markup(self, text: str) -> list[int]:
        """Ids of a rendered template: special tokens in it become their ids."""
        return list(self._backend.encode(_whole(text), markup=True).ids)

    def encode_document(
        self, text: str, on_progress: OnProgress | None = None, *, continued: bool = False
    ) -> Tokens:
        """Tokenize a whole document, remembering where in the text each token starts.

        The result equals that of ``encode``, in memory that grows with the tokens alone. A token
        may differ in runs of tens of thousands of characters without a break, and, of tokenizers
        that are not of the usual kinds (see ``cutting`` and ``sentencepiece``), at the end of one
        line in a million characters. Those of the usual kinds are many times faster here than in
        one call. ``on_progress`` is told characters done and in all. A ``continued`` text goes on
        after another that ended at a cut.
        """
        text = _whole(text)
        front = "" if continued or self._spaced is None else self._spaced.front(text)

        def report(done: int, _: int) -> None:
            if on_progress:
                on_progress(done - len(front), len(text))

        if self._cutting is not None:
            chunks = self._chunks or Chunks(self._plain, self._cutting)
            tokens = encode_in_chunks(chunks, front + text, report)
        else:
            tokens = encode_whole(self._plain, front + text, report)
        if front:
            np.maximum(tokens.starts - np.int32(1), np.int32(0), out=tokens.starts)
        return tokens

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within, the words of one document are known in the next, at up to some 50 MB: many
        documents take half the time."""
        self._chunks = Chunks(self._plain, self._cutting) if self._cutting is not None else None
        try:
            yield
        finally:
            self._chunks = None

    def encode_edited(
        self, old: str, tokens: Tokens, new: str, on_progress: OnProgress | None = None
    ) -> Tokens:
        """``encode_document(new)``, from the ``tokens`` that this tokenizer gave for ``old``: where
        the two texts begin or end alike those are taken over.
        """
        if self._cutting is None:
            return self.encode_document(new, on_progress)
        return encode_edited(self.encode_document, self._cutting, old, tokens, new, on_progress)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids; special tokens are left out unless ``skip_special`` is off."""
        return self._backend.decode(ids, skip_special=skip_special)

    def stream(self) -> TextStream:
        """A decoder for ids that arrive one at a time."""
        return TextStream(self)

    @cached_property
    def _cutting(self) -> Cutting | None:
        if self._spaced is not None:
            return self._spaced.cutting
        return cutting_of(self._spec)

    @cached_property
    def _spaced(self) -> Spaced | None:
        return spaced_of(self._spec)

    @cached_property
    def _plain(self) -> Backend:
        """The backend for documents, which puts nothing in front of them."""
        return self._backend if self._spaced is None else Backend.from_spec(self._spaced.plain)

    @property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self._backend.to_json())
        return spec


def _whole(text: str) -> str:
    """``text`` with halves of characters, which no encoding knows, shown as what they are. They
    come from bytes of a command line or a file name that are no text."""
    return text if text.isascii() else _HALVES.sub("�", text)


def _vocabulary(folder: Path) -> int:
    """How many ids the model has, as config.json says."""
    fields = _fields(folder / "config.json")
    return fields.count("vocab_size", MAX_VOCABULARY, 1, MAX_VOCABULARY)


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    try:
        return read_text(folder / "chat_template.jinja")
    except FileNotFoundError:
        template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates; the default one is for chat
        named = (t for t in template if isinstance(t, dict) and t.get("name") == "default")
        template = next(named, {}).get("template")
    return template if isinstance(template, str) else None


def _stop_ids(
    folder: Path, backend: Backend, special: dict[str, str], limit: int
) -> frozenset[int]:
    found = set()
    if (eos := special.get("eos_token")) is not None and (known := backend.id_of(eos)) is not None:
        found.add(known)
    for name in ("generation_config.json", "config.json"):
        fields = _fields(folder / name)
        if isinstance(fields.data.get("eos_token_id"), list):
            found.update(fields.items("eos_token_id", int))
        elif fields.data.get("eos_token_id") is not None:
            found.add(fields.count("eos_token_id", minimum=0))
        if wrong := [number for number in found if not 0 <= number < limit]:
            raise fields.complain(
                f"eos_token_id names the token {wrong[0]}, the vocabulary has {limit:,}"
            )
    return frozenset(found)


def _fields(path: Path) -> Fields:
    def complain(what: str) -> ModelUnavailableError:
        return ModelUnavailableError(f"{path}: {what}", f"correct it or {FETCH_AGAIN}")

    return Fields(_settings(path), complain)


def _settings(path: Path) -> dict[str, Any]:
    """What a file says that need not be there."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


class TextStream:
    """Turns ids into text as they arrive, never letting out half a character.

    ``push`` returns the text that is now certain; ``flush`` what remains at the end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # first id whose text is still needed as context
        self._sent = 0  # ids before this one have been let out

    def push(self, token_id: int) -> str:
        """Text that ``token_id`` completes; empty while a character is incomplete."""
        whole = self._with(token_id)
        self._ids.append(token_id)
        return "" if whole is None else self._release(whole)

    def peek(self, token_id: int) -> str:
        """What ``push`` would return."""
        whole = self._with(token_id)
        return "" if whole is None else whole[len(self._before()) :]

    def flush(self) -> str:
        """Whatever is left, an incomplete character shown as the replacement character."""
        if self._sent == len(self._ids):
            return ""
        return self._release(self._tokenizer.decode(self._ids[self._start :]))

    def _with(self, token_id: int) -> str | None:
        """The text from ``_start`` on, ``token_id`` at its end; None: hold it back."""
        whole = self._tokenizer.decode([*self._ids[self._start :], token_id])
        held = len(self._ids) - self._sent
        return None if whole.endswith("\ufffd") and held < 7 else whole

    def _before(self) -> str:
        return self._tokenizer.decode(self._ids[self._start : self._sent])

    def _release(self, whole: str) -> str:
        before = self._before()
        self._start, self._sent = self._sent, len(self._ids)
        return whole[len(before) :]
