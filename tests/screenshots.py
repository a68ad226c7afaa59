"""Make the README's picture: a real chat with the default model. ``python tests/screenshots.py``.

The model comes from ``NAZX_HOME`` (``nazx pull nazx-smol-135m``); nothing is written there.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pyte
from pseudo_terminal import Terminal
from rich.console import Console
from rich.style import Style
from rich.text import Text

from nazx_cli.catalog.stored import nazx_home

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / ".assets"
COLUMNS, ROWS = 100, 32
_FAINT, _GREY = 2, 90  # pyte knows no faint text
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"


class Screen(pyte.Screen):
    """A screen on which faint text is grey."""

    def select_graphic_rendition(self, *attributes: int, **kwargs: Any) -> None:
        if attributes[:1] not in ((38,), (48,)):
            attributes = tuple(_GREY if each == _FAINT else each for each in attributes)
        super().select_graphic_rendition(*attributes, **kwargs)


def picture(screen: pyte.Screen) -> Text:
    """What ``screen`` shows, down to its last row that is not blank."""
    rows = [_row(screen, at) for at in range(screen.lines)]
    while rows and not rows[-1].plain.strip():
        rows.pop()
    return Text("\n").join(rows)


def _row(screen: pyte.Screen, at: int) -> Text:
    row = Text(end="")
    for column in range(screen.columns):
        cell = screen.buffer[at][column]
        row.append(cell.data, _style(cell))  # empty in the second half of a wide character
    return row


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_color(cell.fg),
        bgcolor=_color(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _color(name: str) -> str | None:
    """pyte's name of a colour as Rich has it."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def svg(text: Text, title: str) -> str:
    """A picture that needs no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text, no_wrap=True)
    drawn = console.export_svg(title=title, unique_id="nazx")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code, monospace", _FONTS).replace("arial", "sans-serif")


def streaming() -> Text:
    """A chat with two documents, an edit and its undoing, and an answer that is being written."""
    files = ("tests/data/alice.txt", "LICENSE")
    terminal = Terminal(
        *("chat", "--no-save", "--vram-limit", "2GB"),
        *(word for file in files for word in ("--file", file)),
        columns=COLUMNS,
        rows=ROWS,
        timeout=60,
        screen=Screen(COLUMNS, ROWS),
    )
    terminal.until(r">>>$")
    for line in ("What did the baby turn into?", "/context", "/drop 2", "/undo"):
        terminal.enter(line, r">>>$")
    terminal.send("Tell me what happens at the trial.\r")
    terminal.until(r"at the trial\.\n(.+\n){4}.{30}.*\nresident.*tok")
    shown = picture(terminal.screen)
    terminal.kill()
    return shown


def main() -> None:
    """Write ``.assets/chat.svg``."""
    models = nazx_home() / "models"
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models").symlink_to(models.resolve())
        os.environ["NAZX_HOME"] = folder
        PICTURES.mkdir(exist_ok=True)
        text = streaming()
        (PICTURES / "chat.svg").write_text(svg(text, "nazx chat"), encoding="utf-8")
    print(text.plain)


if __name__ == "__main__":
    main()
