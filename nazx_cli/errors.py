"""The errors a person can meet, each with its next step and its exit code.

Every foreseeable failure is a ``NazxError``: one line that names the cause, one that names what
to type next. The command line prints both and leaves with ``exit_code``. Anything else that
escapes is a bug and is reported as one.
"""

from __future__ import annotations

import re

_NAMES = "token|key|secret|signature|sig|password|passwd|pwd|auth|credential"
_LONG = 500  # characters looked through for an end, so that no text takes long
_CREDENTIALS = re.compile(
    # user and password; a password may have the marks in it that should have been escaped
    rf"(?P<before>://)(?:[^\s/?#]{{0,{_LONG}}}|(?!\[)[^\s/?#@:]*:(?!\d*[/?#])\S{{0,{_LONG}}})@"
    rf"|(?P<name>[?&;#][\w.-]{{0,80}}(?:{_NAMES})=)[^\s&;#'\"]+",
    re.IGNORECASE,
)


class NazxError(Exception):
    """A failure with a known cause.

    ``message`` names the cause in one line; ``hint`` names the next step, or is empty. Neither
    keeps the credentials of a URL.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = without_credentials(message)
        self.hint = without_credentials(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class DocumentError(NazxError):
    """A document is missing, empty, binary or unreadable."""


class UsageError(NazxError):
    """The request itself makes no sense: unknown option value, contradictory options."""

    exit_code = 2


class MemoryLimitError(NazxError):
    """The model or the context does not fit in the memory there is."""

    exit_code = 3


class ContextOverflowError(NazxError):
    """More tokens than the model's window takes."""

    exit_code = 4


class ModelUnavailableError(NazxError):
    """The model is unknown, cannot be fetched, or its files are broken."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """What a library's error says, without what follows; its type where it says nothing."""
    return without_credentials((str(error).splitlines() or [type(error).__name__])[0])


def without_credentials(text: str) -> str:
    """``text``, ``***`` in place of user and password, and of secret parameters, of its URLs."""
    return _CREDENTIALS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    return f"{found['before']}***@" if found["before"] else f"{found['name']}***"


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own error, torch's (told by name, to not import it here), and the one of its CPU
    allocator, which has no type of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
