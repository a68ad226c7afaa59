"""The `tokenizers` library behind a guard: a ``tokenizer.json`` holds expressions and tables that
can make it fail, or panic, on any text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers import Tokenizer as Library

from nazx_cli.foreign import FETCH_AGAIN, guarded

if TYPE_CHECKING:
    from tokenizers import Encoding

T = TypeVar("T")


class Backend:
    """A tokenizer of the library, without truncation and padding.

    Every method raises ``ModelUnavailableError`` where the library fails.
    """

    def __init__(self, library: Library) -> None:
        library.no_truncation()
        library.no_padding()
        self.library = library

    @classmethod
    def from_file(cls, path: Path, limit: int) -> Backend:
        """Read a ``tokenizer.json``, without special tokens of the id ``limit`` and more: some that
        came from models of text and pictures still name the picture's, which the model of text has
        no row for."""
        with guarded(f"{path} is no usable tokenizer", FETCH_AGAIN):
            found = cls(Library.from_file(str(path)))
            if max(found.special_ids().values(), default=0) < limit:
                return found
            spec = json.loads(path.read_bytes())
            spec["added_tokens"] = [
                token
                for token in spec["added_tokens"]
                if token["id"] < limit or not token["special"]
            ]
            return cls.from_spec(spec)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Backend:
        """The tokenizer that a ``tokenizer.json`` describes."""
        return _tried(lambda: cls(Library.from_str(json.dumps(spec))))

    def encode(self, text: str, *, markup: bool = False) -> Encoding:
        """Tokens of ``text``; with ``markup`` the text of special tokens becomes those."""

        def work() -> Encoding:
            self.library.encode_special_tokens = not markup
            return self.library.encode(text, add_special_tokens=False)

        return _tried(work)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokens of several plain texts."""

        def work() -> list[Encoding]:
            self.library.encode_special_tokens = True
            return self.library.encode_batch(list(texts), add_special_tokens=False)

        return _tried(work)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Text of ids."""
        return _tried(lambda: self.library.decode(list(ids), skip_special_tokens=skip_special))

    def id_of(self, token: str) -> int | None:
        """The id of a token, by its text."""
        return self.library.token_to_id(token)

    def ids(self) -> dict[str, int]:
        """Every token's id, by its text."""
        return self.library.get_vocab(with_added_tokens=True)

    def special_ids(self) -> dict[str, int]:
        """Text and id of every special token."""
        added = self.library.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    def size(self) -> int:
        """How many tokens there are."""
        return self.library.get_vocab_size(with_added_tokens=True)

    def to_json(self) -> str:
        """The ``tokenizer.json`` that says the same."""
        return _tried(self.library.to_str)


def _tried(work: Callable[[], T]) -> T:
    with guarded("the model's tokenizer failed", "use another model with --model, or --revision"):
        return work()
