"""Workload ``read``: from a file to being ready for a question, and to ranked passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nazx_cli.bench.results import Row, Spread
from nazx_cli.bench.setup import Setup
from nazx_cli.bench.timing import alternate, clock
from nazx_cli.documents.gather import gather
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import rank
from nazx_cli.tokenizer import Tokenizer

NAME = "read"


class _Case:
    """The documents, read anew in every run; stages are timed one after another."""

    def __init__(self, files: Sequence[str], folder: Path, question: str) -> None:
        self._files = files
        self._folder = folder
        self._question = question
        self.first: list[float] = []
        self.later: list[float] = []
        self.tokens = 0
        self.characters = 0

    def ready(self) -> float:
        """Seconds from the files to a library."""
        # A new tokenizer, not timed: one that has seen the words before is faster.
        tokenizer = Tokenizer.from_folder(self._folder)
        seconds, library = clock(lambda: self._library(tokenizer))
        self.tokens = library.num_tokens
        self.characters = sum(len(document.text) for document in library.documents)
        # The first question also pays for what a library derives when it is first asked.
        self.first.append(clock(lambda: rank(library, self._question))[0])
        self.later.append(clock(lambda: rank(library, self._question))[0])
        return seconds

    def _library(self, tokenizer: Tokenizer) -> Library:
        return Library.build(gather(self._files).documents, tokenizer)


def run(setup: Setup) -> Iterator[Row]:
    """Rows of one size: the documents that were named."""
    settings, lm = setup.settings, setup.lm
    case = _Case(settings.files, lm.folder, settings.question)
    (ready,) = alternate([case.ready], settings.repeat, on_round=setup.rounds(NAME))
    details = {"characters": case.characters}
    stages = {
        "ready for the question": ready,
        "first question ranked": tuple(case.first[1:]),  # without the round that warms up
        "later question ranked": tuple(case.later[1:]),
    }
    for measure, seconds in stages.items():
        yield Row(NAME, measure, case.tokens, "s", lm.dtype, Spread(seconds), details=details)
