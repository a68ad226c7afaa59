"""What can go wrong with the Hub, each as one line with a next step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nazx_cli.errors import ModelUnavailableError, first_line
from nazx_cli.weights.atomic import explain

# The client moved from requests to httpx; its connection errors come from one of these.
_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


class HubUnreachableError(ModelUnavailableError):
    """No Hub answered."""


@contextmanager
def explaining(errors: Any, repo: str, revision: str | None, cache: Path) -> Iterator[None]:
    """Turn the client's errors about ``repo`` into ``ModelUnavailableError``.

    ``errors`` is the client's own module of exceptions; ``cache`` is where it writes to.
    """
    try:
        yield
    except ModelUnavailableError:
        raise
    except Exception as error:  # which types there are depends on the client's version
        found = _explained(error, errors, repo, revision, cache)
        if found is None:
            raise
        raise found from None


def _explained(
    error: Exception, errors: Any, repo: str, revision: str | None, cache: Path
) -> ModelUnavailableError | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelUnavailableError(
            f"{repo} is gated: the Hub refused access",
            "accept its licence on its Hub page and set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelUnavailableError(
            f"{repo} has no revision {revision!r}", "name a branch, tag or commit that it has"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelUnavailableError(
            f"the Hub has no model {repo}, or it is private",
            "check the name; for a private model set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.HFValidationError):
        return ModelUnavailableError(
            f"{repo!r} is no name of a Hub repository", "names look like org/repo"
        )
    return _lost(error, repo, status, cache)


def _lost(
    error: Exception, repo: str, status: int | None, cache: Path
) -> ModelUnavailableError | None:
    """Errors on the way: of the server, the connection, the disk."""
    again = "try again: what came down is kept, and the download goes on from there"
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
    ):
        return explain(error, cache)
    text = first_line(error)[:200]
    if status is not None:
        return ModelUnavailableError(f"the Hub answered {status} for {repo}", "try again later")
    if "onsistency check" in text:
        return ModelUnavailableError(
            f"a file of {repo} came down with the wrong size: {text}", "try again"
        )
    library = type(error).__module__.split(".")[0]
    if isinstance(error, OSError) or library in _HTTP_LIBRARIES:
        return HubUnreachableError(f"the connection to the Hub was lost ({repo}): {text}", again)
    # The transfer library that fetches large files reports every failure as RuntimeError.
    if type(error) is RuntimeError:
        return ModelUnavailableError(f"{repo} could not be downloaded: {text}", again)
    return None
