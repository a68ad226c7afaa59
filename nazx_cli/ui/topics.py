"""Help on topics: the Markdown files in ``nazx_cli/help``, for ``nazx help`` and ``/help``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TextIO

_FOLDER = Path(__file__).parent.parent / "help"


@cache
def topics() -> dict[str, str]:
    """What each topic is about, its heading, by the topic's name."""
    return {path.stem: _heading(path) for path in sorted(_FOLDER.glob("*.md"))}


def show(topic: str, stream: TextIO) -> None:
    """Write a topic's text to ``stream``: rendered on a terminal, Markdown elsewhere."""
    text = (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")
    if not stream.isatty():
        stream.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(file=stream).print(Markdown(text))


def _heading(path: Path) -> str:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    return first.partition(": ")[2]
