"""Help on topics: the Markdown files in ``nazx_cli/help``, for ``nazx help`` and ``/help``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TextIO

from nazx_cli.ui.terminal.streams import raw

_FOLDER = Path(__file__).parent.parent / "help"


@cache
def topics() -> dict[str, str]:
    """What each topic is about, its heading, by the topic's name."""
    headings = {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0]
        for path in sorted(_FOLDER.glob("*.md"))
    }
    return {name: heading.partition(": ")[2] for name, heading in headings.items()}


def show(topic: str, stream: TextIO) -> None:
    """Write a topic's text to ``stream``: rendered on a terminal, Markdown elsewhere."""
    text = (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")
    if not stream.isatty():
        stream.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(file=raw(stream)).print(Markdown(text))
