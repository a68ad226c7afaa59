"""What goes wrong with a request, in the shape that OpenAI's clients expect; never with a path of
this machine or a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nazx_cli.errors import (
    ContextOverflowError,
    DocumentError,
    MemoryLimitError,
    UsageError,
    is_out_of_memory,
)
from nazx_cli.session.saving.store import SessionOpenError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is answered with ``status``; ``param`` names the field that is at fault."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        fallback = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, fallback)
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told}


def as_api_error(error: BaseException, param: str | None = None) -> ApiError:
    """What a client is told of ``error``. Of what is no fault of the request only that it is none:
    such messages can hold paths."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflowError):
        return ApiError(400, error.message, param or "messages", "context_length_exceeded")
    if isinstance(error, SessionOpenError):
        return ApiError(409, error.message, "nazx.session", "session_open")
    if isinstance(error, MemoryLimitError) or is_out_of_memory(error):
        message = "there is not enough memory for this on the server"
        return ApiError(413, message, param, "memory_limit")
    if isinstance(error, UsageError | DocumentError):
        return ApiError(400, error.message, param, "invalid_value")
    return ApiError(500, "the server could not answer this; its own output says why", None, "fault")


def no_document(session: str) -> ApiError:
    """The error for a document that a session has not."""
    return ApiError(404, f"session {session} has no such document", "number", "file_not_found")


@contextmanager
def naming_a_session() -> Iterator[None]:
    """404 where there is no such session."""
    try:
        yield
    except UsageError as error:
        raise ApiError(404, error.message, "name", "session_not_found") from None


def is_fault(error: BaseException) -> bool:
    """Whether ``error`` is one to tell whoever runs the server."""
    return as_api_error(error).status == 500
