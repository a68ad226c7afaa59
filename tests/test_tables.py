"""Tables and text in terminals of any width: nothing is cut, nothing is lost."""

from __future__ import annotations

import io
import re

import pytest
from cli_helpers import run_nazx as nazx
from rich.cells import cell_len
from terminals import Board

from nazx_cli.cli.shared import parsing
from nazx_cli.ui.terminal.markdown import parse, render
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.terminal.tables import Table, wrapped

HEADING = ("NAME", "SIZE", "KIND", "WHERE")
MODELS = Table(
    [
        (
            "nazx-smol-135m",
            "542 MB",
            "windowed",
            "/home/ada/.local/share/nazx/models/nazx-smol-135m",
        ),
        ("漢字", "-", "", "nazx pull 漢字"),
    ],
    HEADING,
    right=(1,),
)
FACTS = Table([("versions", "nazx 0.1.0, torch 2.13.0"), ("", "and python"), ("a (b)", "")])


def test_a_table_has_its_columns_where_they_fit_and_in_a_pipe() -> None:
    for width in (None, 200, 85):
        assert MODELS.lines(width) == [
            "NAME              SIZE  KIND      WHERE",
            "nazx-smol-135m  542 MB  windowed  /home/ada/.local/share/nazx/models/nazx-smol-135m",
            "漢字                 -            nazx pull 漢字",
        ]


def test_the_text_of_the_widest_column_goes_on_in_further_lines() -> None:
    assert MODELS.lines(60) == [
        "NAME              SIZE  KIND      WHERE",
        "nazx-smol-135m  542 MB  windowed  /home/ada/.local/share/",
        "                                  nazx/models/nazx-smol-135m",
        "漢字                 -            nazx pull 漢字",
    ]


def test_spare_columns_go_before_anything_else_does_the_last_of_them_first() -> None:
    table = Table([("a", "1.5", "good"), ("b", "20", "-")], ("N", "UP TO", "AT"), (1,), (1, 2))
    assert table.lines(14) == ["N  UP TO  AT", "a    1.5  good", "b     20  -"]
    assert table.lines(13) == ["N  UP TO", "a    1.5", "b     20"]
    assert table.lines(7) == ["N", "a", "b"]


def test_a_heading_goes_on_in_further_lines_before_anything_else_does() -> None:
    table = Table([("bf16", "2.30 GB", "fits")], ("", "dense KV cache", "8GB"), right=(1,))
    assert table.lines(26) == ["      dense KV cache  8GB", "bf16         2.30 GB  fits"]
    assert table.lines(25) == [
        "        dense  8GB",
        "           KV",
        "        cache",
        "bf16  2.30 GB  fits",
    ]
    assert table.lines(18) == ["bf16 2.30 GB", "  8GB: fits"]


def test_where_no_column_has_room_each_row_becomes_a_list() -> None:
    fits = Table([("qwen3-0.6b", "18/s", "all")], ("NAME", "UP TO", "F32"), right=(1,))
    assert fits.lines(14) == ["qwen3-0.6b", "  up to: 18/s", "  F32: all"]
    assert MODELS.lines(40) == [
        "nazx-smol-135m",
        "  size: 542 MB",
        "  kind: windowed",
        "  where: /home/ada/.local/share/nazx/",
        "    models/nazx-smol-135m",
        "漢字",
        "  size: -",
        "  where: nazx pull 漢字",
    ]
    assert FACTS.lines(24) == [
        "versions: nazx 0.1.0,",
        "  torch 2.13.0",
        "  and python",
        "a (b)",
    ]


@pytest.mark.parametrize("table", [MODELS, FACTS])
def test_no_width_cuts_a_word_or_loses_one(table: Table) -> None:
    # a path may be broken, after a slash
    pieces = [part for row in table.rows for part in re.findall(r"[^ /]+/?|/", " ".join(row))]
    for width in range(1, 120):
        lines = table.lines(width)
        shown = "\n".join(lines)
        assert [part for part in pieces if part not in shown] == [], width
        # what is too wide is a single word, or one step of a path
        assert all(cell_len(line) <= width or " " not in line.strip() for line in lines)


def test_lines_are_broken_between_words_and_go_on_as_they_began() -> None:
    assert wrapped("  to be or not", 9) == ["  to be", "  or not"]
    assert wrapped("to be  or", 6, "- ") == ["to be", "- or"]
    assert wrapped("see /usr/local/share/nazx now", 12) == ["see /usr/", "local/share/", "nazx now"]
    assert wrapped("", 5) == [""] and wrapped("1234567 8", 5) == ["1234567", "8"]


def test_a_screen_asks_its_own_streams_how_wide_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    board, pipe = Board(24), io.StringIO()
    screen = Screen(board, pipe)
    screen.line(FACTS)
    screen.line("a sentence of several words")
    screen.say(FACTS)
    assert board.shown == [*FACTS.lines(24), "a sentence of several", "words"]
    assert pipe.getvalue().splitlines() == FACTS.lines(None)


def test_help_is_a_list_where_the_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (40, 200):
        monkeypatch.setattr(parsing, "columns_of", lambda _, width=width: width)
        for command in ((), ("ask",), ("bench",), ("sessions",)):
            out = nazx(*command, "--help")[0]
            assert max(map(len, out.splitlines())) <= (40 if width == 40 else 120), command
            assert "..." not in out.replace("]...", ""), "no text is left out"


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (("pull",), "Missing argument 'NAME'", "pull"),
        (("ask", "--nope"), "No such option: --nope", "ask"),
        (("ask", "--read", "aloud"), "'aloud' is not one of 'auto'", "ask"),
        (("ask", "--ctx", "some"), "'some' is not a whole number", "ask"),
        (("sessions", "lsit"), "No such command 'lsit'. Did you mean 'list'?", "sessions"),
        (("asks",), "No such command 'asks'. Did you mean 'ask'?", ""),
        (("--nope",), "No such option: --nope", ""),
    ],
)
def test_what_is_wrong_with_the_command_line_is_told_in_one_line(
    arguments: tuple[str, ...], message: str, command: str
) -> None:
    out, err, code = nazx(*arguments)
    assert (out, code) == ("", 2)
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert err.rstrip().endswith(f"{command} --help".strip())


ANSWER = """| Name | What it is | Figure |
|:--|:--|--:|
| The first of them | a sentence that goes on | 12,345 |
| Incomprehensibilities | | 7 |
"""


def rendered(width: int) -> list[str]:
    return [line.plain for line in render(parse(ANSWER), width)]


@pytest.mark.parametrize("width", (32, 20, 12, 8))
def test_an_answers_table_whose_words_have_no_room_becomes_a_list(width: int) -> None:
    lines = rendered(width)
    text = " ".join(" ".join(lines).split())
    if width >= 20:
        assert max(map(len, lines)) <= max(width, len("Incomprehensibilities"))
        assert "Figure: 12,345" in text
        assert "What it is: a sentence that goes on" in text
    assert "…" not in text
    assert "12,345" in text.replace(" ", "")


def test_an_answers_table_that_has_room_stays_one() -> None:
    assert rendered(60)[0].split("┃")[1].strip() == "What it is"
    assert all("…" not in line for line in rendered(43))


def test_a_list_has_the_columns_that_a_table_would_have_left_out() -> None:
    table = Table([("a" * 40, "7", "9 MB")], ("NAME", "TURNS", "SIZE"), right=(1, 2), spare=(2,))
    assert table.lines(49) == [f"NAME{' ' * 36}  TURNS", f"{'a' * 40}      7"]
    assert table.lines(20)[-2:] == ["  turns: 7", "  size: 9 MB"]
