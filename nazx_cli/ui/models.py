"""Models as the person wants them held: found, loaded, and set to go on with a saved session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import expanded
from nazx_cli.ui.terminal.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.catalog.registry import AdapterChoice
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.index.shelf import Index
    from nazx_cli.memory.plan import LoadOptions
    from nazx_cli.ranks import Group
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.session.files import ReadResult
    from nazx_cli.session.saving.session_file import ModelTag, SessionFile
    from nazx_cli.session.session import Session
    from nazx_cli.session.state import Snapshot
    from nazx_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Found:
    """A model that is on this machine: its tokenizer is read, its weights are not."""

    name: str
    folder: Path
    tokenizer: Tokenizer
    adapters: AdapterChoice

    @property
    def prefers_resident(self) -> bool:
        """Whether documents are best attended to as a whole."""
        from nazx_cli.config import ModelConfig

        return ModelConfig.from_folder(self.folder).prefers_resident


class Models:
    """Finds and loads models, all held as ``options`` say.

    ``revision`` is of the model that is called ``name``; ``group`` are the processes that hold
    contexts together; what saved sessions read later goes into ``index`` where it is much.
    """

    def __init__(
        self,
        options: LoadOptions,
        screen: Screen,
        *,
        name: str | None = None,
        revision: str | None = None,
        offline: bool = False,
        adapter: str | None = None,
        group: Group | None = None,
        index: Index | None = None,
    ) -> None:
        self._options = options
        self.screen = screen
        self._revisions = {name: revision}
        self._offline = offline
        self._adapter = adapter
        self._group = group
        self._index = index

    def find(self, name: str) -> Found:
        """The model, fetched if it is not here; ``ModelUnavailableError`` where that fails."""
        from nazx_cli.catalog.model_ref import ModelRef
        from nazx_cli.session.templating.templates import prepare
        from nazx_cli.tokenizer import Tokenizer

        with self.screen.bar(f"finding {name}") as bar:
            bar.start()
            model = ModelRef.parse(name, self._revisions.get(name))
            adapters = model.adapters(self._adapter)
            folder = model.fetch(offline=self._offline, on_progress=bar.update)
            tokenizer = Tokenizer.from_folder(folder)
        prepare(tokenizer)
        return Found(name, folder, tokenizer, adapters)

    def load(
        self, found: Found, documents: Sequence[TokenizedDocument], ctx: int | None
    ) -> LanguageModel:
        """Its weights, with room for ``documents``, which are tokenized for it, and for a
        conversation of ``ctx`` tokens (None: a usual one)."""
        from nazx_cli.config import ModelConfig
        from nazx_cli.engine.language_model import load_planned
        from nazx_cli.index.shelf import size_of
        from nazx_cli.kernels.native.compiler import unkept

        size = size_of(documents, ModelConfig.from_folder(found.folder))
        with self.screen.bar(f"loading {found.name}") as bar:
            bar.start()
            options = replace(self._options, ctx=ctx, adapters=found.adapters)
            lm = load_planned(found.name, found.folder, size, options, self._group)
        if lm.plan and (self._options.limit is not None or not lm.plan.is_first_choice):
            self.screen.note(f"note: {lm.plan.describe()}")
        if str(lm.device) == "cpu" and (reason := unkept()):
            self.screen.note(f"note: {reason}")
        lm.tokenizer = found.tokenizer  # read once
        return lm

    def tag(self, name: str, folder: Path) -> ModelTag:
        """What a saved session knows the model by: a name that means the same everywhere."""
        from nazx_cli.session.saving.session_file import ModelTag

        revision = self._revisions.get(name)
        if expanded(name).is_dir():
            name = str(expanded(name).absolute())
        elif revision and "@" not in name:
            name = f"{name}@{revision}"
        try:
            return ModelTag.of(folder, name)
        except OSError as error:
            raise ModelUnavailableError(
                f"{name} has lost its files: {error.strerror or error}", f"nazx verify {name}"
            ) from None

    def find_saved(
        self, file: SessionFile, model: str | None = None, *, force: bool = False
    ) -> tuple[Found, Snapshot]:
        """The session that ``file`` holds, and ``model`` (None: the one it was made with).

        ``force`` takes a model that differs from the session's; without it that is a
        ``UsageError``.
        """
        found = self.find(model or file.model)
        saved = file.load(found.tokenizer, self.tag(found.name, found.folder), force=force)
        assert saved is not None, "a session that was never saved"
        if file.gone:
            self.screen.note(f"note: {file.gone_note}")
        return found, saved

    def restore(
        self,
        found: Found,
        saved: Snapshot,
        file: SessionFile,
        *,
        loaded: LanguageModel | None = None,
        more: ReadResult | None = None,
    ) -> Session:
        """The session saved in ``file``, going on with the model ``found``, or ``loaded`` where it
        is that one; ``more`` is added to its documents."""
        from nazx_cli.session.session import Session

        state = saved.branches[saved.branch]
        documents = (*state.documents, *(more.added if more else ()))
        same = loaded is not None and loaded.folder == found.folder
        lm = loaded if same and loaded else self.load(found, documents, state.settings.ctx)
        lm.take_readings(file.readings())
        session = Session(lm, index=self._index)
        session.restore(saved.branches, saved.branch, saved.watched)
        if more is not None:
            session.add(more)
        return session
