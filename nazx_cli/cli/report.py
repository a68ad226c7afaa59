"""How a command that is no chat tells what it found: as one JSON value, or in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from nazx_cli.cli.options import OutputOptions

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name, org/repo or folder.")]


class Report:
    """The screen of such a command; ``quiet`` leaves progress and notes out."""

    def __init__(self, *, json: bool, quiet: bool = False) -> None:
        from nazx_cli.cli.options import make_screen

        self._json = json
        self._screen = make_screen(OutputOptions(json=json, quiet=quiet))

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[..., None]]:
        """What to call with (stage, done, in all), or with the last two, while the body runs."""
        with self._screen.bar(label) as bar:
            bar.start()
            yield bar.update

    def tell(self, facts: Any, *lines: str, note: str = "") -> None:
        """``facts`` with --json; for a person ``lines`` on stdout and ``note`` on stderr."""
        if self._json:
            self._screen.data(facts)
            return
        for line in lines:
            self._screen.line(line)
        if note:
            self._screen.note(note)
