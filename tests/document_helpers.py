"""Documents that are written to a file in the present folder, and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from nazx_cli.documents.document import Document
from nazx_cli.documents.gather import gather
from nazx_cli.errors import DocumentError


def document_of(data: bytes | str, name: str = "file") -> Document:
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    (document,) = gather([name]).documents
    return document


def places_of(document: Document) -> list[tuple[str, str]]:
    """Each place's label, and the words that it begins with."""
    return [(p.label, document.text[p.start :].split("\n")[0]) for p in document.places]


def reason(data: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        document_of(data)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.message.removeprefix("file ")
