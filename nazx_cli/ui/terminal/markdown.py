"""Markdown as lines for a terminal: CommonMark with tables and strikethrough.

Two deviations suit what models write: a newline inside a paragraph stays one, and HTML is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.syntax import Syntax

_INLINE = {
    "strong": "bold",
    "em": "italic",
    "s": "strike",
    "link": "underline",
    "image": "underline",
}
_CODE = "cyan"  # inline code
_HEADINGS = ("bold underline", "bold", "bold", "bold italic")
_BULLETS = "•◦▪"
_BETWEEN = 3  # cells between two columns of a table
_LEAST = 8  # columns: deeper nesting than leaves that many is not indented further


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    # A reference would vanish from what is shown, and its links may be on screen already.
    return parser.enable(["table", "strikethrough"]).disable("reference")


@lru_cache(maxsize=8)
def parse(source: str) -> tuple[SyntaxTreeNode, ...]:
    """The blocks of ``source``, outermost level; not to be changed."""
    return tuple(SyntaxTreeNode(_parser().parse(source)).children)


def render(nodes: Iterable[SyntaxTreeNode], width: int, depth: int = 0) -> list[Text]:
    """The lines of some blocks, each at most ``width`` cells, blank lines as in the source."""
    lines: list[Text] = []
    before: SyntaxTreeNode | None = None
    for node in nodes:
        if before is not None and _has_gap(before, node):
            lines.append(Text())
        lines += _block(node, max(width, _LEAST), depth)
        before = node
    return lines


def inline(node: SyntaxTreeNode, style: str = "") -> Text:
    """The text of a block that has nothing but text in it, marks turned into styles."""
    text = Text(style=style)
    for child in node.children:
        if child.type == "inline":
            _append(text, child, ())
    return text


def code_lines(node: SyntaxTreeNode) -> list[Text]:
    """The lines inside a code block, highlighted where its language is named."""
    code = node.content.removesuffix("\n")
    if not code:
        return []
    if not node.info.split():
        return [Text(line, "cyan") for line in code.split("\n")]
    lines = _highlighter(node.info.split()[0]).highlight(code).split("\n", allow_blank=True)
    return list(lines)[: code.count("\n") + 1]


def _has_gap(before: SyntaxTreeNode, node: SyntaxTreeNode) -> bool:
    """Whether the source leaves a line blank between two blocks."""
    return node.map is not None and _end(before) < node.map[0]


def _end(node: SyntaxTreeNode) -> int:
    """The line after a block's last one; a list counts blank lines after it as its own."""
    if node.type in ("bullet_list", "ordered_list", "list_item", "blockquote") and node.children:
        return _end(node.children[-1])
    return node.map[1] if node.map else 0


def _block(node: SyntaxTreeNode, width: int, depth: int) -> list[Text]:
    kind = node.type
    if kind == "heading":
        level = min(int(node.tag[1:]), len(_HEADINGS))
        return wrap(inline(node, _HEADINGS[level - 1]), width)
    if kind in ("bullet_list", "ordered_list"):
        return _list(node, width, depth)
    if kind == "blockquote":
        bar = Text("▌ ", "dim")
        return _prefixed(render(node.children, width - 2, depth) or [Text()], bar, bar)
    if kind in ("fence", "code_block"):
        return code_block(node)
    if kind == "table":
        return _table(node, width)
    if kind == "hr":
        return [Text("─" * min(width, 40), "dim")]
    return wrap(inline(node), width)


def _list(node: SyntaxTreeNode, width: int, depth: int) -> list[Text]:
    lines: list[Text] = []
    first = first_number(node)
    for at, item in enumerate(node.children):
        if at and _has_gap(node.children[at - 1], item):
            lines.append(Text())
        lines += list_item(item, None if first is None else first + at, width, depth)
    return lines


def first_number(node: SyntaxTreeNode) -> int | None:
    """The number that a list begins with, if it has numbers."""
    return int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None


def list_item(item: SyntaxTreeNode, number: int | None, width: int, depth: int = 0) -> list[Text]:
    """The lines of a list's item; ``number`` is None in a list without numbers."""
    marker = f"{number}. " if number is not None else f"{_BULLETS[min(depth, 2)]} "
    body = render(item.children, width - len(marker), depth + 1)
    return _prefixed(body or [Text()], Text(marker, "cyan"), Text(" " * len(marker)))


def code_block(node: SyntaxTreeNode, *, is_closed: bool = True) -> list[Text]:
    """A code block between dim fences, lines as long as they are, so that they can be copied."""
    fence = node.markup or "```"
    lines = [Text(f"{fence}{node.info}", "dim"), *code_lines(node)]
    return [*lines, Text(fence, "dim")] if is_closed else lines


def _table(node: SyntaxTreeNode, width: int) -> list[Text]:
    """A table in columns; where their longest words have no room, each row as a short list."""
    rows = [row.children for part in node.children for row in part.children]
    texts = [[inline(cell) for cell in row] for row in rows]
    least = [
        max((cell_len(word) for text in column for word in text.plain.split()), default=0)
        for column in zip_longest(*texts, fillvalue=Text())
    ]
    if sum(least) + _BETWEEN * (len(least) - 1) > width:
        return [line for row in texts[1:] for line in _as_list(texts[0], row, width)]
    table = Table(show_edge=False, header_style="bold", pad_edge=False)
    for cell, text, cells in zip(rows[0] if rows else (), texts[0], least, strict=True):
        style = str(cell.attrs.get("style", ""))
        justify = "right" if "right" in style else "center" if "center" in style else "left"
        table.add_column(text, justify=justify, min_width=cells)  # type: ignore[arg-type]
    for row in texts[1:]:
        table.add_row(*row)
    lines = _measuring(width).render_lines(Padding(table, 0), pad=False)
    return [_stripped(Text.assemble(*((s.text, s.style or "") for s in line))) for line in lines]


def _as_list(heading: list[Text], row: list[Text], width: int) -> list[Text]:
    """``name: value`` for each cell of a row that has something in it, below the first one."""
    lines = wrap(row[0], width) if row else []
    indent = Text("  ")
    for name, value in zip(heading[1:], row[1:], strict=False):
        if value.plain.strip():
            named = Text.assemble(name, ": ", value) if name.plain.strip() else value
            lines += _prefixed(wrap(named, width - len(indent)), indent, indent)
    return lines


def _append(text: Text, node: SyntaxTreeNode, styles: tuple[str, ...]) -> None:
    for child in node.children:
        kind = child.type
        if kind in _INLINE:
            inner = (*styles, _INLINE[kind])
            if kind == "image" and not child.children:
                text.append(child.content, " ".join(inner))
            _append(text, child, inner)
            target = str(child.attrs.get("href" if kind == "link" else "src", ""))
            if target and target.removeprefix("mailto:") != inline_text(child):
                text.append(f" ({target})", " ".join((*styles, "dim")))
        elif kind == "code_inline":
            text.append(child.content, " ".join((*styles, _CODE)))
        elif kind in ("softbreak", "hardbreak"):
            text.append("\n")
        else:
            text.append(child.content, " ".join(styles))


def inline_text(node: SyntaxTreeNode) -> str:
    """The bare text inside a stretch of text."""
    return "".join(
        inline_text(child) if child.children else child.content for child in node.children
    )


def wrap(text: Text, width: int) -> list[Text]:
    """Lines broken between words where that is possible."""
    return [_stripped(line) for line in text.wrap(_measuring(width), width, tab_size=4)]


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


def _prefixed(lines: list[Text], first: Text, rest: Text) -> list[Text]:
    """``lines`` with something before the first and before the others."""
    prefixes = [first, *[rest] * (len(lines) - 1)]
    return [
        line if not line.plain and not prefix.plain.strip() else Text.assemble(prefix, line)
        for prefix, line in zip(prefixes, lines, strict=True)
    ]


@cache
def _measuring(width: int) -> Console:
    """A console that nothing is written to: Rich asks one how wide lines may be."""
    return Console(width=width, height=100, color_system="truecolor", force_terminal=True)


@cache
def _highlighter(language: str) -> Syntax:
    from rich.syntax import Syntax

    return Syntax("", language, theme="ansi_dark", background_color="default")
