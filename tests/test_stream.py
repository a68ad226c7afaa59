"""Answers as they stream: Markdown made of pieces, and the lines that move."""

from __future__ import annotations

import random
import time

import pytest
from fixed_gauge import gauge
from rich.cells import cell_len
from rich.text import Text
from terminals import Board, BoardArea

from nazx_cli.ui.terminal.stream import MarkdownStream, PlainStream, Stream, fold

SAMPLE = """# A title

Some **bold text**, *emphasis*, `code` and a [link](http://x.example/y), in a line that is
longer than a narrow terminal, with 漢字かな交じり文 and 🦊 in it.

1. **First**: this
   goes on

2. Second item, with text that is longer than the width of the screen
   - nested *a*
   - nested b
3. third
- bullet
- bullet 2

```python
def f(x):
    '''doc

    more'''
    return x + 1  # a comment that is longer than the screen is wide, that much is certain

```
| a | b |
|---|--:|
| 1 | 2 |
| three | **4** |

> a quotation
> of two lines

---

<b>not HTML</b>, 2 * 3 * 4, snake_case_name and [1].

[1]: http://nowhere.example

A heading below
---
""" + " ".join(f"word{n} **b{n}** `c d` 漢字" for n in range(40))


def stream_of(kind: type[Stream], text: str, width: int, *, seed: int) -> list[str]:
    """The lines of ``text`` pushed in random pieces; those in between are checked."""
    pieces = random.Random(seed)
    stream = kind()
    final: list[Text] = []
    at = 0
    while at < len(text):
        size = pieces.choice((1, 2, 3, 5, 8))
        stream.push(text[at : at + size])
        at += size
        lines = stream.advance(width, 10)
        final += lines.final
        assert sum(len(fold(line, width)) for line in lines.open) <= 14
    final += stream.advance(width, 10, is_over=True).final
    return [line.plain for line in final]


@pytest.mark.parametrize("width", [24, 80, 200])
@pytest.mark.parametrize("seed", range(2))
def test_markdown_in_pieces_gives_the_lines_of_the_whole(width: int, seed: int) -> None:
    whole = MarkdownStream()
    whole.push(SAMPLE)
    expected = [line.plain for line in whole.advance(width, 10, is_over=True).final]
    assert stream_of(MarkdownStream, SAMPLE, width, seed=seed) == expected


@pytest.mark.parametrize("seed", range(2))
def test_plain_text_keeps_every_mark_and_line(seed: int) -> None:
    assert stream_of(PlainStream, SAMPLE, 10_000, seed=seed) == SAMPLE.split("\n")
    narrow = stream_of(PlainStream, SAMPLE, 30, seed=seed)
    assert "".join(narrow) == SAMPLE.replace("\n", "")


def shown(source: str, width: int = 60) -> list[str]:
    stream = MarkdownStream()
    stream.push(source)
    return [line.plain for line in stream.advance(width, 10, is_over=True).final]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("one\ntwo", ["one", "two"]),
        ("<think>hm</think>\n\n<br>", ["<think>hm</think>", "", "<br>"]),
        ("[1]: http://x.example", ["[1]: http://x.example"]),
        ("1. a\n1. b\n\n1. c", ["1. a", "2. b", "", "3. c"]),
        ("7. a\n8. b", ["7. a", "8. b"]),
        ("- a\n  - b\n    - c", ["• a", "  ◦ b", "    ▪ c"]),
        ("- \n- x", ["• ", "• x"]),
        ("> a\n> b", ["▌ a", "▌ b"]),
        ("```\n\n a\n\n```\nb", ["```", "", " a", "", "```", "b"]),
        ("```py\nx = 1", ["```py", "x = 1"]),
        ("~~~\n~~~", ["~~~", "~~~"]),
        ("- x\n\n  ```py\n  y\n  ```", ["• x", "", "  ```py", "  y", "  ```"]),
        ("a  \nb\\\nc", ["a", "b", "c"]),
        ("![alt](a.png) [b](http://b.example)", ["alt (a.png) b (http://b.example)"]),
        ("<http://b.example> x\\*y", ["http://b.example x*y"]),
        ("**not closed", ["**not closed"]),
        ("&amp; &copy;", ["& ©"]),
        ("|a|b|\n|-|-|", ["a ┃ b", "━━╇━━"]),
        ("", []),
        ("\n\n", []),
    ],
)
def test_markdown_loses_nothing(source: str, lines: list[str]) -> None:
    assert shown(source) == lines


def test_lines_are_never_wider_than_the_terminal() -> None:
    before, _, after = SAMPLE.split("```")
    for width in (24, 80):
        for line in shown(before + after, width):
            assert cell_len(line) <= width, line


def test_code_is_left_as_long_as_it_is_so_that_it_can_be_copied() -> None:
    code = "x = " + " + ".join("y" * 20)
    assert shown(f"```py\n{code}\n```", 20) == ["```py", code, "```"]


def test_marks_that_are_open_are_taken_as_closed_while_they_stream() -> None:
    stream = MarkdownStream()
    stream.push("this is **very")
    (line,) = stream.advance(80, 10).open
    assert line.plain == "this is very"
    assert any("bold" in str(span.style) for span in line.spans)


def test_a_line_that_may_become_a_mark_waits() -> None:
    stream = MarkdownStream()
    stream.push("text\n-")
    assert [line.plain for line in stream.advance(80, 10).open] == ["text"]
    stream.push(" item")
    lines = stream.advance(80, 10)
    assert [line.plain for line in lines.final + lines.open] == ["text", "• item"]


def test_an_endless_paragraph_stays_quick() -> None:
    stream = MarkdownStream()
    count = 0
    begin = time.perf_counter()
    for at in range(800):
        stream.push(f"some more words {at} ")
        lines = stream.advance(80, 10)
        count += len(lines.final)
        assert len(lines.open) <= 12
    assert count > 150
    assert time.perf_counter() - begin < 20


def test_folding_loses_nothing_and_splits_no_wide_character() -> None:
    text = Text("ab漢字🦊" * 30)
    for width in (2, 5, 20, 500):
        rows = fold(text, width)
        assert "".join(row.plain for row in rows) == text.plain
        assert all(row.cell_len <= width for row in rows)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50), (30, 8)])
def test_frames_leave_exactly_the_answer(columns: int, rows: int) -> None:
    board = Board(columns, rows)
    area = BoardArea(board)
    board.write(">>> question\r\n")
    stream, bar = MarkdownStream(), gauge()
    expected = shown(SAMPLE, columns)
    for at in range(0, len(SAMPLE), 7):
        stream.push(SAMPLE[at : at + 7])
        lines = stream.advance(columns, rows - 3)
        area.draw(lines.final, [*lines.open, bar.rich_text(columns - 1)])
        assert "resident" in board.shown[-1] or columns < 40
        assert sum("35 MB" in line for line in board.everything) <= 1  # one gauge, not a trail
    area.draw(stream.advance(columns, rows - 3, is_over=True).final, [])
    area.close()
    rows_expected = [row.plain.rstrip() for line in expected for row in fold(Text(line), columns)]
    seen = [line.rstrip() for line in board.everything]
    assert "".join(seen) == ">>> question" + "".join(rows_expected)
    assert not board.screen.cursor.hidden


def test_a_frame_is_one_write_and_none_where_nothing_changed() -> None:
    board = Board()
    area = BoardArea(board)
    area.draw([], [Text("a"), Text("b")])
    area.draw([], [Text("a"), Text("b")])
    assert len(board.writes) == 1
    area.draw([Text("done")], [Text("c")])
    assert len(board.writes) == 2
    assert board.shown == ["done", "c"]
    area.close()
    assert board.shown == ["done"]
    assert (board.screen.cursor.y, board.screen.cursor.x) == (1, 0)


@pytest.mark.parametrize("columns", [120, 40])
def test_a_resize_leaves_no_trail(columns: int) -> None:
    board = Board(80, 24)
    area = BoardArea(board)
    area.draw([Text("answered")], [Text("x" * 150), gauge().rich_text(79)])
    board.resize(columns, 20)
    area.draw([], [Text("x" * 150), gauge().rich_text(columns - 1)])
    area.draw([Text("x" * 30)], [])
    area.close()
    assert board.shown == ["answered", "x" * 30]


def test_of_more_lines_than_the_screen_has_the_last_are_shown() -> None:
    board = Board(20, 6)
    area = BoardArea(board)
    area.draw([], [Text(str(n)) for n in range(40)])
    area.draw([], [Text(str(n)) for n in range(41)])
    assert board.shown == ["36", "37", "38", "39", "40"]
    assert board.everything == board.shown
