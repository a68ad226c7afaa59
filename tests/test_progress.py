"""How progress is shown: as a bar that leaves nothing behind, or in lines."""

from __future__ import annotations

import time

import pytest
from terminals import Board

from nazx_cli.ui.terminal import lines, live, screen
from nazx_cli.ui.terminal.lines import ProgressLines
from nazx_cli.ui.terminal.screen import Bar

LONG = "converting /a/folder/whose/name/is/longer/than/the/terminal/is/wide"


def board(monkeypatch: pytest.MonkeyPatch, columns: int) -> Board:
    """A terminal that is not as wide as ``COLUMNS`` says, and tells its size when asked."""
    made = Board(columns, 12)

    def size(stream: object) -> tuple[int, int]:
        return made.screen.columns, made.screen.lines

    for module in (screen, live):
        monkeypatch.setattr(module, "terminal_size", size)
    monkeypatch.setenv("COLUMNS", "100")
    return made


def wait_for(made: Board, text: str) -> None:
    until = time.monotonic() + 20
    while text not in "".join(made.shown):
        assert time.monotonic() < until, made.shown
        time.sleep(0.02)


@pytest.mark.parametrize("label", ["converting", LONG])
@pytest.mark.parametrize("columns", [30, 60])
def test_a_bar_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, columns: int, label: str
) -> None:
    made = board(monkeypatch, columns)
    with Bar(made, label) as bar:
        bar.start()
        wait_for(made, "conv")
        bar.update("downloading", 1, 4)
        wait_for(made, "25 %")
        bar.update("converting", 4, 4)
        wait_for(made, "100 %")
    assert (made.shown, made.screen.cursor.x, made.screen.cursor.y) == ([], 0, 0)


def test_nor_does_one_whose_terminal_was_made_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    made = board(monkeypatch, 70)
    with Bar(made, "converting") as bar:
        bar.update(1, 2)
        wait_for(made, "50 %")
        made.resize(30, 12)
        bar.update(3, 4)
        wait_for(made, "75 %")
    assert made.shown == []


def test_progress_in_lines_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], list[str]()
    monkeypatch.setattr(lines, "monotonic", lambda: now[0])
    with ProgressLines(said.append, "indexing") as progress:
        for second in range(100):
            now[0] = float(second)
            progress.update("indexing", second, 400)
        progress.update("indexing", 400, 400)
    assert said[-1] == "indexing: 23 %, about 5 min left"
    assert 5 <= len(said) <= 8
