"""Going on with saved sessions, one question after another: the last one is kept at hand."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nazx_cli.names import MAIN_BRANCH
from nazx_cli.session.state import Snapshot, State

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.session.saving.session_file import ModelTag, SessionFile
    from nazx_cli.session.session import Session
    from nazx_cli.session.settings import SessionSettings


@dataclass(frozen=True)
class _Last:
    """A session as it was saved under ``name``, which save that was, and the keys of the documents
    that it keeps."""

    name: str
    version: str | None
    session: Session
    keys: frozenset[str]


class Saving:
    """Opens saved sessions to go on with them, and saves them; the last one is kept at hand.

    ``shared`` are the keys of the server's own documents of the index: a session does not keep them
    unless it has them from elsewhere.
    """

    def __init__(
        self, lm: LanguageModel, settings: SessionSettings, tag: ModelTag, shared: Set[str]
    ) -> None:
        self._lm, self._settings, self._tag = lm, settings, tag
        self.shared = shared
        self._last: _Last | None = None

    @property
    def last_name(self) -> str | None:
        """The session that is kept at hand."""
        return None if self._last is None else self._last.name

    def hold(self, session: Session | None) -> None:
        """Let go of the last session, unless that is ``session``."""
        if self._last is not None and self._last.session is not session:
            self._last = None

    def open(self, file: SessionFile) -> tuple[Session | None, Snapshot, frozenset[str]]:
        """The session of ``file`` where it is at hand and nobody changed it; what is saved in it,
        and the keys of the documents that it keeps."""
        last = self._last
        if last is not None and (last.name, last.version) == (file.name, file.version):
            return last.session, last.session.snapshot(), last.keys
        saved = file.load(self._lm.tokenizer, self._tag)
        new = Snapshot({MAIN_BRANCH: State(settings=self._settings)}, MAIN_BRANCH, frozenset())
        return None, saved or new, _keys(saved or new)

    def kept(
        self, documents: Sequence[TokenizedDocument], keys: Set[str]
    ) -> tuple[TokenizedDocument, ...]:
        """Those of ``documents`` that a session keeps which has kept those of ``keys``."""
        return tuple(d for d in documents if d.key in keys or d.key not in self.shared)

    def save(self, file: SessionFile, session: Session, keys: Set[str]) -> None:
        """Save what ``session`` keeps, which has kept the documents of ``keys``."""
        found = session.snapshot()
        branches = {
            name: replace(state, documents=self.kept(state.documents, keys))
            for name, state in found.branches.items()
        }
        found = found._replace(branches=branches)
        file.save(*found, self._tag)
        self._last = _Last(file.name, file.version, session, _keys(found))


def _keys(saved: Snapshot) -> frozenset[str]:
    return frozenset(each.key for state in saved.branches.values() for each in state.documents)
