"""Keeps a chat's session on disk up to date, and goes on without where the disk fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nazx_cli.errors import NazxError

if TYPE_CHECKING:
    from nazx_cli.session.saved import ModelTag
    from nazx_cli.session.session_file import SessionFile
    from nazx_cli.session.state import State
    from nazx_cli.session.store import Store
    from nazx_cli.session.workspace import Workspace

    Snapshot = tuple[Mapping[str, State], str, frozenset[str]]


class Autosave:
    """Saves to ``file`` (None: to nothing, until ``save_now`` or ``save_as``) what has changed.

    ``tell`` gets a failure once, until a save succeeds again.
    """

    def __init__(
        self, store: Store, file: SessionFile | None, tell: Callable[[NazxError], None]
    ) -> None:
        self.store = store
        self.file = file
        self._tell = tell
        self._last: Snapshot | None = None
        self._failed = False

    @property
    def name(self) -> str | None:
        """The session's name; None where nothing is saved."""
        return self.file.name if self.file is not None else None

    def mark(self, workspace: Workspace) -> None:
        """Take the workspace for saved as it is: there is nothing in it to be lost yet."""
        self._last = _copied(workspace)

    def save(self, workspace: Workspace, model: ModelTag) -> None:
        """Save if anything changed; a failure is told and does not stop the chat."""
        snapshot = _copied(workspace)
        if self.file is None or (self._last is not None and _same(self._last, snapshot)):
            return
        try:
            self._save(snapshot, model)
        except NazxError as error:
            if not self._failed:
                self._tell(error)
            self._failed = True

    def save_now(self, workspace: Workspace, model: ModelTag) -> None:
        """Save, changed or not; raises where that fails."""
        if self.file is None:
            self.file = self.store.open_fresh()
        self._save(_copied(workspace), model)

    def save_as(self, name: str, workspace: Workspace, model: ModelTag) -> None:
        """Go on in a new session called ``name``; the one that was open stays as it is."""
        if self.file is None:
            self.file = self.store.open(name, create=True)
        else:
            old = self.file
            self.file = old.save_as(name)
            old.close()
        self._save(_copied(workspace), model)

    def change(self, file: SessionFile, workspace: Workspace) -> None:
        """Leave the open session for another one, which ``workspace`` was read from."""
        self.close()
        self.file, self._failed = file, False
        self.mark(workspace)

    def close(self) -> None:
        """Let go of the session."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _save(self, snapshot: Snapshot, model: ModelTag) -> None:
        assert self.file is not None
        self.file.save(*snapshot, model)
        self._last, self._failed = snapshot, False


def _copied(workspace: Workspace) -> Snapshot:
    branches, branch, watched = workspace.snapshot()
    return dict(branches), branch, frozenset(watched)


def _same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots hold the same states; states are immutable, so identity decides."""
    return (
        one[1:] == other[1:]
        and list(one[0]) == list(other[0])
        and all(one[0][name] is other[0][name] for name in one[0])
    )
