"""A progress bar that leaves nothing behind."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from nazx_cli.ui.echo import NoEcho


class Bar:
    """A spinner until the first ``update``, a bar from then on."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._label = label
        self._spinner = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*self._spinner, console=Console(file=stream), transient=True)
        self._task = self._progress.add_task(label, total=None)
        self._running = False
        self._echo = NoEcho()  # what is typed would leave pieces of the bar behind

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Draw it."""
        if not self._running:
            self._running = True
            self._echo.__enter__()
            self._progress.start()

    def update(self, *values: str | int) -> None:
        """Show (done, total), or (stage, done, total)."""
        *stage, done, total = values
        label = str(stage[0]) if stage else self._label
        if total:
            bar = (BarColumn(bar_width=30), TaskProgressColumn(), TimeLeft())
            self._progress.columns = (*self._spinner, *bar)
        self._progress.update(
            self._task, description=label, completed=float(done), total=float(total) or None
        )
        self.start()

    def stop(self) -> None:
        """Remove it; it can be stopped twice."""
        if self._running:
            self._running = False
            try:
                self._progress.stop()
            finally:
                self._echo.__exit__(None, None, None)
