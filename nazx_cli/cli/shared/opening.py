"""From options to a conversation, of ``nazx ask`` as of ``nazx chat``: a new one, or one that goes
on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import typer

from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.documents import Given, IndexOptions
from nazx_cli.cli.shared.options import (
    ChatOptions,
    ModelOptions,
    OutputOptions,
    make_screen,
)
from nazx_cli.cli.shared.ranks import SharingOptions
from nazx_cli.context.ranks.sharing import ALONE, Share
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.ui.models import Found, Models
from nazx_cli.ui.terminal.screen import Screen

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.index.shelf import Index
    from nazx_cli.ranks import Group
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.session.files import ReadResult
    from nazx_cli.session.saving.session_file import SessionFile
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.session import Session
    from nazx_cli.session.settings import SessionSettings
    from nazx_cli.ui.chat import Chat


def models_of(
    options: ModelOptions,
    screen: Screen,
    group: Group | None = None,
    by: Share = ALONE,
    index: Index | None = None,
) -> Models:
    """Models as the options want them held, and shared by ``group``; ``index`` as in ``Models``."""
    from nazx_cli.memory.plan import LoadOptions

    held = LoadOptions(
        options.device,
        options.dtype,
        options.quantize,
        options.layout,
        options.vram_limit,
        by=by,
    )
    return Models(
        held,
        screen,
        name=options.model,
        revision=options.revision,
        offline=options.offline,
        adapter=options.adapter,
        group=group,
        index=index,
    )


def load_with(
    name: str, models: Models, settings: SessionSettings, given: Given
) -> tuple[LanguageModel, tuple[TokenizedDocument, ...]]:
    """Find the model, tokenize the documents, and then load what fits beside them."""
    found = models.find(name)
    documents = given.tokenized(found.tokenizer, in_memory=_attends(found, settings))
    return models.load(found, documents, settings.ctx), documents


def _attends(found: Found, settings: SessionSettings) -> bool:
    """Whether the model attends to its documents: those of an index it cannot."""
    from nazx_cli.reading.plan import mode_for

    return mode_for(settings.read, True, found.prefers_resident) == "resident"


def open_session(name: str, models: Models, settings: SessionSettings, given: Given) -> Session:
    """A conversation with the model of that name, about ``given``."""
    lm, documents = load_with(name, models, settings, given)
    from nazx_cli.reading.library import Library
    from nazx_cli.session.session import Session

    library = Library.of(documents, lm.tokenizer) if documents else None
    return Session(lm, library, settings, given.index)


def named_options(context: typer.Context) -> frozenset[str]:
    """Options given on the command line itself: not by environment, not by default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )


def names_no_model(context: typer.Context) -> bool:
    """Whether nothing says which model to use: no option, variable, nor what was chosen before."""
    source = context.get_parameter_source("model")
    return source is not None and source.name == "DEFAULT"


@dataclass(frozen=True)
class Opening:
    """What a conversation is opened from; ``piped`` is the document that ``-`` in ``files`` is,
    ``names_no_model`` as in the function of that name; ``group`` as ``models_of`` takes it."""

    files: tuple[str, ...]
    model: ModelOptions
    answers: AnswerOptions
    output: OutputOptions
    options: ChatOptions
    named: frozenset[str]
    interactive: bool = False
    piped: str | None = None
    names_no_model: bool = False
    group: Group | None = None
    sharing: SharingOptions = field(default_factory=SharingOptions)
    index: IndexOptions = field(default_factory=IndexOptions)

    def open(self) -> Chat:
        """The chat; its session, if it is saved, is this process's alone until it is closed."""
        from nazx_cli.catalog.stored import nazx_home
        from nazx_cli.session.saving.store import Store

        screen = make_screen(self.output)
        screen.start_computing()
        settings = self.answers.settings()  # first: a wrong value should not wait for a model
        store = Store(nazx_home() / "sessions")
        failure: NazxError | None = None
        try:
            file = self._file(store)
        except NazxError as error:
            if self.options.resume or self.options.session is not None:
                raise
            screen.error(NazxError(f"this chat will not be saved: {error.message}", error.hint))
            file, failure = None, error
        try:
            return self._chat(store, file, settings, screen, failure)
        except BaseException:
            if file is not None:
                file.close()
            raise

    def _file(self, store: Store) -> SessionFile | None:
        """The session that is asked for, or a new one where this chat is to be saved."""
        name = self.options.session
        if self.options.resume:
            if name is not None:
                raise UsageError(
                    "the last session and another are asked for", "give --session alone"
                )
            name = store.latest()
            if name is None:
                raise UsageError("there is no session to resume", "begin one with: nazx chat")
        if name is not None:
            return store.open(name, create=True)
        return store.open_fresh() if self.interactive and not self.options.no_save else None

    def _chat(
        self,
        store: Store,
        file: SessionFile | None,
        settings: SessionSettings,
        screen: Screen,
        failure: NazxError | None,
    ) -> Chat:
        from nazx_cli.session.saving.autosave import Autosave
        from nazx_cli.ui.chat import Chat

        more: ReadResult | None = None
        goes_on = file is not None and bool(file.model)
        index = self.index.index_of()
        if file is not None and goes_on:
            models = models_of(self.model, screen, self.group, self.sharing.share(), index)
            session, more = self._resumed(file, models, settings)
        else:
            given = Given.look(self.files, self.piped, index, screen)
            model = self._model(screen)
            models = models_of(model, screen, self.group, self.sharing.share(), index)
            session = open_session(model.model, models, settings, given)
            if model is not self.model:
                from nazx_cli.cli.models.choose import remember

                remember(model.model, screen)
        autosave = Autosave(store, file, screen.error, failure)
        chat = Chat(session, screen, models=models, autosave=autosave)
        if self.options.no_save:
            autosave.keep_nothing()
        elif not (more and more.added) and (goes_on or self.options.session is None):
            autosave.mark(session)  # a chat in which nothing is said leaves no file
        if more:
            screen.tell_skipped(more.skipped)
        if self.interactive and not (self.options.no_gauge or screen.quiet):
            from nazx_cli.ui.terminal.gauge_line import Gauge

            chat.gauge = Gauge(lambda: chat.workspace.usage(), chat.lm.device, chat.lm.memory_limit)
        chat.save()
        return chat

    def _model(self, screen: Screen) -> ModelOptions:
        if not self.names_no_model:
            return self.model
        from nazx_cli.cli.models.choose import first_choice

        return first_choice(self.model, self.output, screen)

    def _resumed(
        self, file: SessionFile, models: Models, given: SessionSettings
    ) -> tuple[Session, ReadResult | None]:
        """The session of ``file`` with what the command line names of settings and files."""
        from nazx_cli.session.files import read_new

        model = self.model.model if "model" in self.named else None
        found, saved = models.find_saved(file, model, force=self.options.force)
        state = saved.branches[saved.branch]
        named = self.named | ({"grounding"} if "no_grounding" in self.named else set())
        own = {key: value for key, value in vars(given).items() if key in named}
        drawn = {key: value for key, value in vars(given.sampling).items() if key in self.named}
        sampling = replace(state.settings.sampling, **drawn)
        settings = replace(state.settings, **own, sampling=sampling)
        more = None
        if self.files:
            index = None if _attends(found, settings) else self.index.index_of()
            with models.screen.bar("tokenizing") as bar:
                more = read_new(
                    self.files,
                    state.documents,
                    found.tokenizer,
                    bar.update,
                    piped=self.piped,
                    index=index,
                )
        state = replace(state, settings=settings)
        saved = saved._replace(branches={**saved.branches, saved.branch: state})
        return models.restore(found, saved, file, more=more), more
