"""Keeping the open session saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nazx_cli.errors import NazxError
from nazx_cli.session.saving.readings import readings_in

if TYPE_CHECKING:
    from nazx_cli.session.saving.lock import ProcessLock
    from nazx_cli.session.saving.session_file import ModelTag, SessionFile
    from nazx_cli.session.saving.store import Store
    from nazx_cli.session.session import Session
    from nazx_cli.session.state import Snapshot


class Autosave:
    """Saves to ``file`` (None: to nothing, until ``save_now`` or ``save_as``) what has changed.

    ``tell`` gets a failure once, until a save succeeds again. ``failure`` is what keeps the
    session from being saved as it is now; None: nothing does.
    """

    def __init__(
        self,
        store: Store,
        file: SessionFile | None,
        tell: Callable[[NazxError], None],
        failure: NazxError | None = None,
    ) -> None:
        self.store = store
        self.file = file
        self.failure = failure
        self._tell = tell
        self._last: Snapshot | None = None
        self._seen: ProcessLock | None = None  # while nothing is saved

    @property
    def name(self) -> str | None:
        """The session's name; None where nothing is saved."""
        return self.file.name if self.file is not None else None

    @property
    def keeps_nothing(self) -> bool:
        """Whether nothing is saved, for so it was asked."""
        return self._seen is not None

    def keep_nothing(self) -> None:
        """Leave the session as it is saved, and save nothing until asked to; the chat is still
        one that the store knows to be running."""
        self.close()
        self._seen = self.store.be_seen()

    def mark(self, session: Session) -> None:
        """Take the session for saved as it is: there is nothing in it to be lost yet."""
        self._last = session.snapshot()

    def save(self, session: Session, model: ModelTag) -> None:
        """Save if anything changed; a failure is told and does not stop the chat."""
        snapshot = session.snapshot()
        if self.file is None:
            return
        try:
            if snapshot != self._last:
                self._save(snapshot, model)
            if readings := readings_in(session):
                self.file.save_readings(readings)
        except NazxError as error:
            if self.failure is None:
                self._tell(error)
            self.failure = error

    def save_now(self, session: Session, model: ModelTag) -> None:
        """Save, changed or not; raises where that fails."""
        if self.file is None:
            self.file = self.store.open_fresh()
        self._save(session.snapshot(), model)

    def save_as(self, name: str, session: Session, model: ModelTag) -> None:
        """Go on in a new session called ``name``; the one that was open stays as it is."""
        if self.file is None:
            self.file = self.store.open_new(name)
        else:
            old = self.file
            self.file = old.save_as(name)
            old.close()
        self._save(session.snapshot(), model)

    def change(self, file: SessionFile, session: Session) -> None:
        """Leave the open session for another one, which ``session`` was read from; where nothing
        is to be saved that one stays as it is too."""
        keeps_nothing = self.keeps_nothing
        self.close()
        self.file, self.failure = file, None
        self.mark(session)
        if keeps_nothing:
            self.keep_nothing()

    def close(self) -> None:
        """Let go of the session."""
        self._be_unseen()
        if self.file is not None:
            self.file.close()
            self.file = None

    def _be_unseen(self) -> None:
        if self._seen is not None:
            self._seen.release()
            self._seen = None

    def _save(self, snapshot: Snapshot, model: ModelTag) -> None:
        assert self.file is not None
        self._be_unseen()  # the session is seen now
        self.file.save(*snapshot, model)
        self._last, self.failure = snapshot, None
