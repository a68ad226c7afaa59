"""Workloads ``read``, ``folders`` and ``tokenizing``: documents on their way to a question."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import ArrayLike
from tokenizers import Tokenizer as Backend

from nazx_cli.bench.results import Row, Spread, clock, timed
from nazx_cli.bench.setup import Setup
from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.documents.gather import gather, listed
from nazx_cli.index import room
from nazx_cli.index.intake import Taken, take_in
from nazx_cli.memory.probe import peak_resident_bytes
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import rank
from nazx_cli.tokenizer import Tokenizer, Tokens

READ, FOLDERS, TOKENIZING = "read", "folders", "tokenizing"
PEER = "one call of tokenizers"
_CHARACTERS = 10_000_000  # of the documents that are tokenized, at most
_QUESTIONS = (
    "Who is on trial, and what for?",
    "What did the king give to the servant?",
    "Where did Anna meet her brother in the garden?",
    "Why was the captain afraid of the storm?",
)
_BEST = 64  # passages: as many as are tried against the room in a prompt
_EDIT = "A sentence that was not there before. "


def read(setup: Setup) -> Iterator[Row]:
    """From the files that were named to being ready for a question, and to ranked passages;
    stages are timed one after another."""
    settings, lm = setup.settings, setup.lm
    stages: dict[str, list[float]] = {"first question ranked": [], "later question ranked": []}
    size = {"tokens": 0, "characters": 0}

    def ready() -> float:
        # A new tokenizer, not timed: one that has seen the words before is faster.
        tokenizer = Tokenizer.from_folder(lm.folder)
        seconds, library = clock(lambda: Library.build(gather(settings.files).documents, tokenizer))
        # The first question also pays for what a library derives when it is first asked.
        for found in stages.values():
            found.append(clock(lambda: rank(library, settings.question))[0])
        size["tokens"] = library.num_tokens
        size["characters"] = sum(len(document.text) for document in library.documents)
        return seconds

    (runs,) = setup.alternate(READ, [ready])
    details = {"characters": size["characters"]}
    later = {name: tuple(found[1:]) for name, found in stages.items()}  # the first one warms up
    for measure, seconds in {"ready for the question": runs, **later}.items():
        spread = Spread(seconds)
        yield Row(READ, measure, size["tokens"], "s", lm.dtype, spread, details=details)


def folders(setup: Setup) -> Iterator[Row]:
    """Files taken in by an index on disk, which is new and removed at the end: at first, again,
    with one more file; and passages ranked on it, which only the best are asked of."""
    settings = setup.settings
    tokenizer = Tokenizer.from_folder(ModelRef.parse(settings.model).fetch())
    with TemporaryDirectory() as folder:
        more = Path(folder, "one more.txt")
        more.write_text(f"One more file. {_EDIT * 2000}", encoding="utf-8")

        def start(*files: str) -> Taken:
            listing = listed([*settings.files, *files])
            sizes["file bytes"] = listing.nbytes
            return take_in(listing, tokenizer, Path(folder, "index"), sys.maxsize)

        def row(measure: str, *seconds: float) -> Row:
            spread, details = Spread(seconds), {**sizes, "peak_bytes": peak_resident_bytes()}
            return Row(FOLDERS, measure, library.num_tokens, "s", "", spread, details=details)

        sizes: dict[str, int] = {}
        setup.note(f"{FOLDERS}: the first start")
        first, taken = clock(start)
        library = Library.of(taken.documents, tokenizer)
        sizes |= {"documents": len(taken.documents), "copies": taken.copies}
        sizes["index_bytes"] = room.nbytes(Path(folder, "index"))
        yield row("first start", first)
        yield row("later start", *(clock(start)[0] for _ in range(settings.repeat)))
        yield row("start with one more file", clock(lambda: start(str(more)))[0])
        questions = (settings.question, *_QUESTIONS)
        for measure in ("question ranked, words new to it", "question ranked again"):
            seconds = (timed(rank, library, question, _BEST)() for question in questions)
            yield row(measure, *seconds)


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


def tokenizing(setup: Setup) -> Iterator[Row]:
    """Beside one plain call of ``tokenizers``: a row for the whole text and one for an edit in
    its middle."""
    documents = gather(setup.settings.files).documents
    text = "\n\n".join(document.text for document in documents)[:_CHARACTERS]
    case = _Case(text, setup.lm.folder)
    *sides, plain = setup.alternate(TOKENIZING, [case.ours, case.edit, case.plain])
    measures = ("a text", "an edit in its middle")
    for measure, seconds, different in zip(measures, sides, case.differences(), strict=True):
        yield Row(
            TOKENIZING,
            measure,
            len(case.tokens),
            "s",
            "",
            Spread(seconds),
            peer=PEER,
            theirs=Spread(plain),
            note=_cores(),
            details={"characters": len(text), "tokens_that_differ": different},
        )


def _cores() -> str:
    """What the backend's own threads, which ``--threads`` does not reach, may use."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "off", "no", "f"):
        return "one core: TOKENIZERS_PARALLELISM is off"
    return f"new words on {os.cpu_count()} cores, whatever the threads"


def _differences(tokens: Tokens, ids: ArrayLike, starts: ArrayLike) -> int:
    theirs = np.asarray(ids), np.asarray(starts)
    if len(tokens) != len(theirs[0]):
        return max(len(tokens), len(theirs[0]))
    return int(((tokens.ids != theirs[0]) | (tokens.starts != theirs[1])).sum())
