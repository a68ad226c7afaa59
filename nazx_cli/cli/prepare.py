"""From options to a session: documents first, then the model, then the two together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nazx_cli.cli.options import AnswerOptions, ModelOptions
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.session import Session

_NAMED = 3  # left-out files that are named; the others are counted


def read_documents(specs: Sequence[str], piped: str | None, screen: Screen) -> tuple[Document, ...]:
    """The documents of ``--file``; what a folder or glob left out is mentioned."""
    from nazx_cli.documents.gather import gather

    gathered = gather(specs, piped)
    for skipped in gathered.skipped[:_NAMED]:
        screen.note(f"note: {skipped.name} {skipped.reason}; left out")
    if (more := len(gathered.skipped) - _NAMED) > 0:
        screen.note(f"note: {more} more left out")
    return gathered.documents


def open_session(
    model: ModelOptions, answers: AnswerOptions, documents: Sequence[Document], screen: Screen
) -> Session:
    """Load the model, tokenize the documents."""
    settings = answers.settings()  # first: a wrong value should not wait for a download
    lm = _load(model, screen)
    from nazx_cli.reading.library import Library
    from nazx_cli.session.session import Session

    library = None
    if documents:
        with screen.bar("tokenizing") as bar:
            library = Library.build(documents, lm.tokenizer, on_progress=bar.update)
    return Session(lm, library, settings)


def _load(options: ModelOptions, screen: Screen) -> LanguageModel:
    from nazx_cli.engine.language_model import load_model

    with screen.bar(f"loading {options.model}") as bar:
        bar.start()
        return load_model(
            options.model,
            device=options.device,
            dtype=options.dtype,
            layout=options.layout,
            revision=options.revision,
            offline=options.offline,
            on_progress=bar.update,
        )
