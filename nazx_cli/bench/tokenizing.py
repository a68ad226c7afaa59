"""Workload ``tokenizing``: a document's tokens, beside one plain call of ``tokenizers``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer as Backend

from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.timing import alternate, clock
from nazx_cli.documents.gather import gather
from nazx_cli.tokenizer import Tokenizer, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "tokenizing"
PEER = "one call of tokenizers"
_CHARACTERS = 10_000_000  # of the documents, at most
_EDIT = "A sentence that was not there before. "


class _Case:
    """A text and its edited version. Every run begins with a new tokenizer, not timed: one that
    has seen the words before is faster."""

    def __init__(self, text: str, folder: Path) -> None:
        middle = len(text) // 2
        self.text = text
        self._edited = text[:middle] + _EDIT + text[middle:]
        self._folder = folder
        self.tokens = Tokens(np.zeros(0, np.int32), np.zeros(0, np.int32))
        self.after_edit = self.tokens

    def ours(self) -> float:
        """Seconds to the tokens and where they start."""
        tokenizer = Tokenizer.from_folder(self._folder)
        seconds, self.tokens = clock(lambda: tokenizer.encode_document(self.text))
        return seconds

    def edit(self) -> float:
        """Seconds to the tokens after an edit; those before it must be there."""
        tokenizer = Tokenizer.from_folder(self._folder)
        tokenizer.encode_document("")  # what it looks up once, it knows before an edit
        seconds, self.after_edit = clock(
            lambda: tokenizer.encode_edited(self.text, self.tokens, self._edited)
        )
        return seconds

    def plain(self) -> float:
        """Seconds of the plain call alone, without reading what it found."""
        backend = self._backend()
        return clock(lambda: backend.encode(self.text, add_special_tokens=False))[0]

    def differences(self) -> tuple[int, int]:
        """Tokens that differ from the plain call's: of the text, and of its edited version."""
        plain = self._backend().encode(self.text, add_special_tokens=False)
        first = _differences(self.tokens, plain.ids, [start for start, _ in plain.offsets])
        edited = Tokenizer.from_folder(self._folder).encode_document(self._edited)
        return first, _differences(self.after_edit, edited.ids, edited.starts)

    def _backend(self) -> Backend:
        backend = Backend.from_file(str(self._folder / "tokenizer.json"))
        backend.encode_special_tokens = True  # text is text: as ours takes it
        return backend


def run(setup: Setup) -> Iterator[Row]:
    """A row for the whole text and one for an edit in its middle."""
    documents = gather(setup.settings.files).documents
    text = "\n\n".join(document.text for document in documents)[:_CHARACTERS]
    case = _Case(text, setup.lm.folder)
    sides = [case.ours, case.edit, case.plain]
    ours, edit, plain = alternate(sides, setup.settings.repeat, on_round=setup.rounds(NAME))
    wrong = case.differences()
    for measure, seconds, different in zip(
        ("a text", "an edit in its middle"), (ours, edit), wrong, strict=True
    ):
        details = {"characters": len(text), "tokens_that_differ": different}
        yield Row(
            NAME,
            measure,
            len(case.tokens),
            "s",
            "",
            Spread(seconds),
            peer=PEER,
            theirs=Spread(plain),
            note=_cores(),
            details=details,
        )


def _cores() -> str:
    """What the backend's own threads, which ``--threads`` does not reach, may use."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "off", "no", "f"):
        return "one core: TOKENIZERS_PARALLELISM is off"
    return f"new words on {os.cpu_count()} cores, whatever the threads"


def _differences(
    tokens: Tokens, ids: list[int] | NDArray[np.int32], starts: list[int] | NDArray[np.int32]
) -> int:
    if len(tokens) != len(ids):
        return max(len(tokens), len(ids))
    return int(((tokens.ids != np.asarray(ids)) | (tokens.starts != np.asarray(starts))).sum())
