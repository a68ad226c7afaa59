"""From options to a session: documents first, then the model, then the two together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nazx_cli.cli.options import AnswerOptions, ModelOptions
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

    from nazx_cli.context.cost import Size
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.library import Library
    from nazx_cli.session.session import Session

_TALK = 4_096  # tokens of conversation to make room for where --ctx does not say
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
    """Find the model, tokenize the documents, and then load what fits beside them."""
    settings = answers.settings()  # first: a wrong value should not wait for a download
    limit = None
    if model.vram_limit is not None:
        from nazx_cli.memory.units import parse_bytes

        limit = parse_bytes(model.vram_limit)
    folder = _find(model, screen)
    from nazx_cli.reading.library import Library
    from nazx_cli.session.session import Session
    from nazx_cli.tokenizer import Tokenizer

    library = None
    tokenizer = Tokenizer.from_folder(folder)
    if documents:
        with screen.bar("tokenizing") as bar:
            library = Library.build(documents, tokenizer, on_progress=bar.update)
    lm = _load(model, folder, limit, _room(library, answers), screen)
    lm.tokenizer = tokenizer  # read once
    return Session(lm, library, settings)


def _find(options: ModelOptions, screen: Screen) -> Path:
    from nazx_cli.weights.resolve import resolve_model

    with screen.bar(f"finding {options.model}") as bar:
        bar.start()
        return resolve_model(
            options.model,
            revision=options.revision,
            offline=options.offline,
            on_progress=bar.update,
        )


def _room(library: Library | None, answers: AnswerOptions) -> Size:
    """The context to make room for: the documents and a conversation about them."""
    from nazx_cli.context.cost import Size

    talk = answers.ctx or _TALK
    if library is None:
        return Size(talk, talk // 2)
    distinct = len(library.posting_lists.distinct)
    return Size(library.num_tokens + talk, distinct + talk // 4)


def _load(
    options: ModelOptions, folder: Path, limit: int | None, room: Size, screen: Screen
) -> LanguageModel:
    from nazx_cli.engine.fitting import Wish
    from nazx_cli.engine.language_model import load_fitting
    from nazx_cli.memory.budget import describe

    quantize = options.quantize.value if options.quantize else None
    wish = Wish(options.device, options.dtype.value, quantize, options.layout, limit, room)
    with screen.bar(f"loading {options.model}") as bar:
        bar.start()
        lm, fitting = load_fitting(options.model, folder, wish)
    if limit is not None or not fitting.plan.is_first_choice:
        screen.note(f"note: {describe(fitting.plan, fitting.limit)}")
    return lm
