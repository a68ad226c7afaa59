"""What others wrote, read with care: JSON of bounded size and depth, values of the type that is
needed, and libraries that fail in ways of their own."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from nazx_cli.errors import ModelUnavailableError, NazxError, first_line

FETCH_AGAIN = "fetch the model again"
MAX_JSON_BYTES = 32 << 20
"""An index of a hundred thousand tensors takes a third of it."""

_MAX_DEPTH = 64
_MAX_TEXT_BYTES = 4 << 20
_REASON = 200  # characters of a library's own words


def expanded(path: str | Path) -> Path:
    """The path that a person names; one of a user who is not known stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 Path's own raises then


def read_object(path: Path, hint: str = FETCH_AGAIN) -> dict[str, Any]:
    """The JSON object that the file ``path`` holds.

    ``FileNotFoundError`` where there is no such file, ``ModelUnavailableError`` with ``hint`` for
    whatever else is wrong with it.
    """
    try:
        data = parse_json(_read(path, MAX_JSON_BYTES))
    except (UnicodeDecodeError, ValueError) as error:
        raise ModelUnavailableError(f"{path} is not valid JSON: {error}", hint) from None
    if not isinstance(data, dict):
        raise ModelUnavailableError(f"{path} does not hold a JSON object", hint)
    return data


def read_text(path: Path, hint: str = FETCH_AGAIN) -> str:
    """The text of a file in UTF-8, 4 MB at most; errors as ``read_object``."""
    try:
        return _read(path, _MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ModelUnavailableError(f"{path} is not text in UTF-8: {error}", hint) from None


def parse_json(raw: bytes) -> Any:
    """The value that ``raw`` is, in UTF-8; ``ValueError`` in one line where it is none.

    What could not be written again is refused too: more than 64 levels, halves of characters.
    """
    try:
        data = json.loads(raw.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_shape(data)
    return data


def _read(path: Path, limit: int) -> bytes:
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ModelUnavailableError(f"{path} is no regular file", FETCH_AGAIN)
        if status.st_size > limit:
            raise ModelUnavailableError(
                f"{path} has {status.st_size:,} bytes, more than any real one", FETCH_AGAIN
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror}", FETCH_AGAIN) from None


def _check_shape(data: Any) -> None:
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()  # a half of a surrogate pair raises a ValueError
        level = below


@dataclass(frozen=True)
class Fields:
    """Typed, bounded access to values by key; None counts as not there.

    ``complain`` makes the error from a sentence that names the key and its value.
    """

    data: Mapping[str, Any]
    complain: Callable[[str], NazxError]

    def count(
        self, key: str, default: int | None = None, minimum: int = 1, maximum: int = 1 << 31
    ) -> int:
        """A whole number between ``minimum`` and ``maximum``; needed where there is no default."""
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._error(key, value, "a whole number is needed")
        if not minimum <= value <= maximum:
            raise self._error(key, value, f"it must lie between {minimum:,} and {maximum:,}")
        return value

    def number(self, key: str, default: float | None, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._error(key, value, "a number is needed")
        # Compared before it is converted: a whole number may be too large for a float.
        if not low <= value <= high or not math.isfinite(value):
            raise self._error(key, value, f"it must lie between {low:g} and {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, value, "true or false is needed")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """One of the texts ``allowed``."""
        value = self._get(key, default)
        if value not in allowed:
            raise self._error(key, value, f"NazX knows {', '.join(allowed)}")
        return str(value)

    def text(self, key: str) -> str | None:
        """A text, or None."""
        value = self._get(key, None)
        if value is not None and not isinstance(value, str):
            raise self._error(key, value, "a text is needed")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """A list of values of the type ``kind``; empty where there is none."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self._error(key, value, f"a list of {_PLURALS[kind]} is needed")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.data.get(key)
        return default if value is None else value

    def _error(self, key: str, value: Any, reason: str) -> NazxError:
        return self.complain(f"{key} is {_shown(value)}; {reason}")


def decimal(value: float) -> float:
    """A float32 as the short decimal that was meant: 1e-5, not 9.999999747378752e-06."""
    return float(f"{float(value):.6g}")


_PLURALS = {int: "whole numbers", str: "texts", float: "numbers"}


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of very many digits"  # more of them than Python cares to print
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value):,}"
    return repr(value[:60] if isinstance(value, str) else value)


@contextmanager
def guarded(what: str, hint: str) -> Iterator[None]:
    """Turn every failure of a library's call into ``ModelUnavailableError``: ``what`` went wrong,
    then the library's own words.

    Rust's panics count, although PyO3 makes them a ``BaseException``, and what they print on
    stderr is kept from it.
    """
    with _Stderr() as stderr:
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception):
                stderr.drop()
            reason = first_line(error)[:_REASON]
            raise ModelUnavailableError(f"{what}: {reason}", hint) from None


class _Stderr:
    """Holds back what is written to the process's stderr, by threads too, and lets it out at the
    end unless it is dropped; one at a time."""

    _lock = threading.RLock()

    def __enter__(self) -> _Stderr:
        self._lock.acquire()
        self._real = self._held = -1
        try:
            self._real = os.dup(2)
            self._held = _spool()
            os.dup2(self._held, 2)
        except OSError:  # stderr is closed, or there are no descriptors left: nothing to hold
            self._close()
        return self

    def drop(self) -> None:
        """Forget a panic's report, and keep what other threads wrote."""
        if self._held < 0:
            return
        text = self._text()
        os.ftruncate(self._held, 0)
        os.lseek(self._held, 0, os.SEEK_SET)
        os.write(self._held, _PANIC.sub(b"", text))

    def __exit__(self, *_: object) -> None:
        try:
            if self._held >= 0:
                os.dup2(self._real, 2)
                if text := self._text():
                    os.write(2, text)
        finally:
            self._close()
            self._lock.release()

    def _text(self) -> bytes:
        size = os.fstat(self._held).st_size
        os.lseek(self._held, 0, os.SEEK_SET)
        return os.read(self._held, size)

    def _close(self) -> None:
        for descriptor in (self._real, self._held):
            if descriptor >= 0:
                os.close(descriptor)
        self._real = self._held = -1


_PANIC = re.compile(rb"\n?thread '[^\n]*panicked at [\s\S]*\Z")


def _spool() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("nazx-stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
