"""What a far memory has read of a session's documents, in a file beside the session's.

It spares a reading and nothing else: each state's name says what text and what weights it was made
of, so that one of another model or of documents as they were is not found. A file that is damaged
counts as none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.session.saving.database import explained

if TYPE_CHECKING:
    from torch import Tensor

    from nazx_cli.session.session import Session

SUFFIX = ".far"


def readings_in(session: Session) -> Mapping[str, Tensor]:
    """What a far memory holds of reading the documents of ``session``, if it attends to them."""
    from torch import from_numpy

    from nazx_cli.session.prompt import read_mode

    mode = read_mode(session.settings, session.lm, session.documents)
    if mode != "resident" or session.library is None:
        return {}
    return session.lm.readings(from_numpy(session.library.ids))


def readings_of(session: Path) -> Path:
    """The file for the session that is kept in the file ``session``."""
    return session.with_suffix(SUFFIX)


def load_readings(session: Path) -> dict[str, Tensor]:
    """What is saved; empty where nothing is, or nothing whole."""
    path = readings_of(session)
    if not path.is_file():
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}


def save_readings(session: Path, readings: Mapping[str, Tensor]) -> None:
    """Have the file hold exactly these, or what it held before where that fails with a
    ``NazxError``."""
    path = readings_of(session)
    if path.is_file() and _names(path) == readings.keys():
        return
    with explained(path):
        from safetensors.torch import save

        scratch = path.with_name(f".{path.name}.partial")
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(save({name: state.contiguous() for name, state in readings.items()}))
        scratch.replace(path)


def _names(path: Path) -> frozenset[str]:
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        return frozenset(file.keys())
    return frozenset()
