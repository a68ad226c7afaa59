"""From options to a session: documents first, then the model, then the two together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.cli.options import AnswerOptions, ModelOptions
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.ui.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.context.cost import Size
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.library import Library
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.session.session import Session
    from nazx_cli.session.settings import SessionSettings
    from nazx_cli.ui.models import Found

_TALK = 4_096  # tokens of conversation to make room for where --ctx does not say
_NAMED = 3  # left-out files that are named; the others are counted


def read_documents(specs: Sequence[str], piped: str | None, screen: Screen) -> tuple[Document, ...]:
    """The documents of ``--file``; what a folder or glob left out is mentioned."""
    from nazx_cli.documents.gather import gather

    with screen.bar("reading") as bar:
        gathered = gather(specs, piped, bar.update)
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
    models = ChosenModels(model, answers.ctx, screen)
    found = models.find(model.model)
    from nazx_cli.reading.library import Library
    from nazx_cli.session.session import Session

    library = None
    if documents:
        with screen.bar("tokenizing") as bar:
            library = Library.build(documents, found.tokenizer, on_progress=bar.update)
    return Session(models.load(found, _size(library)), library, settings)


def changes(
    answers: AnswerOptions, named: frozenset[str]
) -> Callable[[SessionSettings], SessionSettings]:
    """What the command line changes in a saved session's settings: the options it ``named``."""
    given = answers.settings()

    def change(saved: SessionSettings) -> SessionSettings:
        own = {key: value for key, value in vars(given).items() if key in named}
        drawn = {key: value for key, value in vars(given.sampling).items() if key in named}
        return replace(saved, **own, sampling=replace(saved.sampling, **drawn))

    return change


class ChosenModels:
    """Finds models and loads them the way the options ask for; ``ui.models.Models``."""

    def __init__(self, options: ModelOptions, ctx: int | None, screen: Screen) -> None:
        self._options = options
        self._talk = ctx or _TALK
        self._screen = screen
        self._limit: int | None = None
        if options.vram_limit is not None:
            from nazx_cli.memory.units import parse_bytes

            self._limit = parse_bytes(options.vram_limit)

    def find(self, name: str) -> Found:
        """The model, fetched if it is not here; ``ModelUnavailableError`` where that fails."""
        from nazx_cli.catalog.model_ref import ModelRef
        from nazx_cli.tokenizer import Tokenizer
        from nazx_cli.ui.models import Found

        with self._screen.bar(f"finding {name}") as bar:
            bar.start()
            folder = ModelRef.parse(name, self._revision(name)).fetch(
                offline=self._options.offline, on_progress=bar.update
            )
        return Found(name, folder, Tokenizer.from_folder(folder))

    def load(self, found: Found, room: Size) -> LanguageModel:
        """Its weights, with room for the documents (``room``) and a conversation about them."""
        from nazx_cli.context.cost import Size
        from nazx_cli.engine.fitting import Wish
        from nazx_cli.engine.language_model import load_fitting
        from nazx_cli.memory.budget import describe

        options, limit = self._options, self._limit
        distinct = room.distinct + self._talk // (4 if room.positions else 2)
        size = Size(room.positions + self._talk, distinct)
        wish = Wish(options.device, options.dtype, options.quantize, options.layout, limit, size)
        with self._screen.bar(f"loading {found.name}") as bar:
            bar.start()
            lm, fitting = load_fitting(found.name, found.folder, wish)
        if limit is not None or not fitting.plan.is_first_choice:
            self._screen.note(f"note: {describe(fitting.plan, fitting.limit)}")
        lm.tokenizer = found.tokenizer  # read once
        return lm

    def tag(self, name: str, folder: Path) -> ModelTag:
        """What a saved session knows the model by: a name that means the same everywhere."""
        from nazx_cli.session.saving.session_file import ModelTag

        revision = self._revision(name)
        if Path(name).expanduser().is_dir():
            name = str(Path(name).expanduser().absolute())
        elif revision and "@" not in name:
            name = f"{name}@{revision}"
        try:
            return ModelTag.of(folder, name)
        except OSError as error:
            raise ModelUnavailableError(
                f"{name} has lost its files: {error.strerror or error}", f"nazx verify {name}"
            ) from None

    def _revision(self, name: str) -> str | None:
        return self._options.revision if name == self._options.model else None


def _size(library: Library | None) -> Size:
    from nazx_cli.context.cost import Size

    if library is None:
        return Size(0, 0)
    return Size(library.num_tokens, len(library.posting_lists.distinct))
