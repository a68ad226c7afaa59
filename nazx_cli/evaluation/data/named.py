"""Questions about files: what a record names is read, as any document is.

``{"file": "novel.txt", "sections": [{"id": "1", "lines": [120, 128]}], "questions": [...]}`` stands
for the same record with the file's text. Sections are named by their lines, counted from 1, the
last one with them; what stands between them becomes sections too, so that all of the text is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nazx_cli.documents.document import Document
from nazx_cli.documents.file import read_file
from nazx_cli.errors import DocumentError
from nazx_cli.evaluation.data.forms import Fields


def with_text(record: Fields, folder: Path) -> tuple[Fields, Document | None]:
    """``record`` with the text of the file that it names, in ``folder`` or else here, and that
    file's document; as it is, and None, where it names none.

    ``DocumentError`` where that cannot be read, ``KeyError``, ``TypeError`` or ``ValueError`` where
    its sections are broken.
    """
    name = record.get("file")
    if not isinstance(name, str) or "questions" not in record or "document" in record:
        return record, None
    path = next((p for p in (folder / name, Path(name)) if p.exists()), folder / name)
    try:
        document = read_file(name, path)
    except DocumentError as error:
        raise DocumentError(f"{path} {error.message}", error.hint) from None
    titled = {"title": path.stem} | dict(record)
    if not record.get("sections"):
        return titled | {"document": document.text}, document
    lines = [(_lines(each["lines"]), each["id"]) for each in record["sections"]]
    sections = list(_sections(document.text.split("\n"), sorted(lines)))
    return titled | {"sections": sections}, document


def _lines(value: Any) -> tuple[int, int]:
    first, last = value
    if not (isinstance(first, int) and isinstance(last, int) and 1 <= first <= last):
        raise ValueError(f"{str(value)[:40]} are no lines")
    return first, last


def _sections(
    lines: Sequence[str], named: Sequence[tuple[tuple[int, int], Any]]
) -> Iterator[dict[str, Any]]:
    at = 1
    for (first, last), name in named:
        if first < at or last > len(lines):
            raise ValueError(f"lines {first} to {last} are in another section, or not there")
        if first > at:
            yield {"id": f"lines {at}-{first - 1}", "text": "\n".join(lines[at - 1 : first - 1])}
        yield {"id": name, "text": "\n".join(lines[first - 1 : last])}
        at = last + 1
    if at <= len(lines):
        yield {"id": f"lines {at}-{len(lines)}", "text": "\n".join(lines[at - 1 :])}
