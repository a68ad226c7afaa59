"""From a saved session to a workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nazx_cli.context.cost import Size

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.saving.session_file import SessionFile
    from nazx_cli.session.session import Session
    from nazx_cli.session.settings import SessionSettings
    from nazx_cli.session.timeline import Snapshot
    from nazx_cli.ui.models import Models


def restore(
    file: SessionFile,
    models: Models,
    model: str | None = None,
    *,
    force: bool = False,
    loaded: LanguageModel | None = None,
    change: Callable[[SessionSettings], SessionSettings] | None = None,
) -> Session:
    """The workspace that ``file`` holds, on ``model`` (None: the one it was made with).

    ``loaded`` is used where it is that very model. ``force`` takes a model that differs from the
    session's; without it that is a ``UsageError``. ``change`` may alter the settings.
    """
    from nazx_cli.session.session import Session

    found = models.find(model or file.info.model)
    saved = file.load(found.tokenizer, models.tag(found.name, found.folder), force=force)
    assert saved is not None, "a session that was never saved"
    if change is not None:
        saved = _changed(saved, change)
    same = loaded is not None and loaded.folder == found.folder
    lm = loaded if same and loaded else models.load(found, _room(saved, found.tokenizer.vocab_size))
    workspace = Session(lm)
    workspace.restore(saved.branches, saved.branch, saved.watched)
    return workspace


def _changed(saved: Snapshot, change: Callable[[SessionSettings], SessionSettings]) -> Snapshot:
    state = saved.branches[saved.branch]
    state = replace(state, settings=change(state.settings))
    return saved._replace(branches={**saved.branches, saved.branch: state})


def _room(saved: Snapshot, vocab_size: int) -> Size:
    """The documents of the present branch; what will be said comes on top."""
    from nazx_cli.memory.estimate import distinct_tokens

    tokens = sum(len(part) for part in saved.branches[saved.branch].documents)
    return Size(tokens, distinct_tokens(tokens, vocab_size))
