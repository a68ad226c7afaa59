"""The screen that a command writes to."""

from __future__ import annotations

import sys

from nazx_cli.cli.options import OutputOptions
from nazx_cli.ui.screen import Screen


def make_screen(options: OutputOptions) -> Screen:
    """The process's own streams, with what the options ask for."""
    return Screen(
        sys.stdout,
        sys.stderr,
        quiet=options.quiet,
        verbose=options.verbose,
        sources=options.sources,
        plain=options.plain,
    )
