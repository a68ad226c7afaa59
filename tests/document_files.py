"""Documents as files in the current folder: how they are written, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nazx_cli.documents.gather import gather
from nazx_cli.errors import DocumentError


def write(path: str, data: str | bytes = "some words\n") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data.encode() if isinstance(data, str) else data)


def failure(*specs: str, stdin: str | None = None) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        gather(specs, stdin)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value
