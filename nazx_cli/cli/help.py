"""``nazx help``: what a subject is about, beyond the options of one command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nazx_cli.cli.shared.options import OutputOptions, make_screen
from nazx_cli.errors import UsageError
from nazx_cli.ui import topics
from nazx_cli.ui.terminal.tables import Table


def help_on(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="What to read about; without it the topics are listed.",
            show_default=False,
            autocompletion=lambda: list(topics.topics().items()),
        ),
    ] = None,
) -> None:
    """Read about a topic: documents, chats, models, memory and more.

    Example: nazx help reading
    """
    known = topics.topics()
    if topic is None:
        make_screen(OutputOptions()).line(Table(tuple(known.items())))
    elif topic in known:
        topics.show(topic, sys.stdout)
    else:
        raise UsageError(f"there is no topic {topic!r}", f"choose from {', '.join(known)}")
