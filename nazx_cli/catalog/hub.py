"""The Hugging Face Hub: whether it answers, what of it lies in its cache, and what its client's
errors mean.

The cache is shared with other tools. The client retries for a long time where there is no Hub, so
a short probe of ours goes first. Endpoint, cache folder and offline mode are read from the
environment here, at the time of the call, and handed to the client.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from nazx_cli.catalog.patience import UnreachableError, patiently
from nazx_cli.checkpoint.atomic import explain
from nazx_cli.checkpoint.checkpoint import is_complete
from nazx_cli.errors import ModelUnavailableError, first_line, without_credentials
from nazx_cli.foreign import expanded

PROBE_SECONDS = 2.5
# The client moved from requests to httpx; its connection errors come from one of these.
_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


T = TypeVar("T")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES)


class HubUnreachableError(UnreachableError):
    """No Hub answered."""


def endpoint() -> str:
    """The Hub's address, without a slash at the end; for the client, since it may hold a password.

    To be shown there is ``shown_endpoint``.
    """
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


def shown_endpoint() -> str:
    """The Hub's address without credentials; says so where it is none."""
    return without_credentials(endpoint()) if _is_address(endpoint()) else "(no address)"


def _is_address(text: str) -> bool:
    """Whether the client can make sense of it; else its errors name pieces of a password."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def cache_folder() -> Path:
    """The Hub's cache, as the environment names it; the client is not imported to ask."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(chosen)
    if home := os.environ.get("HF_HOME"):
        return expanded(home) / "hub"
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface/hub"


def repo_folder(repo: str) -> Path:
    """Where the cache keeps ``repo``; it need not be there."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def may_enter(folder: Path) -> bool:
    """Whether it is a folder that this user can get at."""
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)  # noqa: PTH112


def cached_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The snapshot in the Hub's cache if it is a whole checkpoint; never uses the network.

    Without a ``revision`` an older whole snapshot serves where the newest is not whole yet.
    """
    found = snapshot_folder(repo, revision)
    folders = [found] if found is not None else []
    if revision is None and may_enter(repo_folder(repo) / "snapshots"):
        others = (repo_folder(repo) / "snapshots").glob("*")
        folders += sorted(others, key=lambda path: -path.stat().st_mtime)
    return next((folder for folder in folders if is_complete(folder)), None)


def snapshot_folder(repo: str, revision: str | None = None) -> Path | None:
    """The snapshot that ``revision`` leads to in the Hub's cache, whole or not."""
    if not may_enter(repo_folder(repo)):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", cache_dir=cache_folder(), revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def check_reachable(seconds: float = PROBE_SECONDS) -> None:
    """Raise ``HubUnreachableError`` unless the Hub gives any answer within ``seconds``."""
    if not _is_address(endpoint()):
        raise HubUnreachableError(
            "HF_ENDPOINT is no address of a Hub",
            "set it as in https://huggingface.co, escape special characters of a password as "
            "%XX, or unset it",
        )
    _check_token()
    failure = "it gave no answer"
    answered = False

    from huggingface_hub.utils import get_session

    def probe() -> None:
        nonlocal failure, answered
        try:
            get_session().head(endpoint(), timeout=seconds)
            answered = True
        except Exception as error:  # its type depends on the HTTP library of the client's version
            failure = first_line(error)[:160]

    # A thread, since neither name look-up nor a connection that is swallowed can be hurried.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answered:
        raise HubUnreachableError(
            f"the Hub at {urlsplit(shown_endpoint()).netloc} cannot be reached: {failure}",
            "connect to the network, check HF_ENDPOINT, or name a local folder",
        )


def has_token() -> bool:
    """Whether requests carry a token, which gated models need."""
    from huggingface_hub import get_token

    return bool(get_token())


def _check_token() -> None:
    """Complain of a token that no request could carry."""
    from huggingface_hub import get_token

    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise ModelUnavailableError(
            "HF_TOKEN is no token of the Hub: it has characters that none has",
            "set it to one from the settings page of your Hub account, or unset it",
        )


def ask(repo: str, revision: str | None, work: Callable[[], T], look: Callable[[], None]) -> T:
    """What a call of the client about ``repo`` returns; see ``patiently``.

    Whatever it raises becomes ``ModelUnavailableError``.
    """
    try:
        return patiently(work, look)
    except (ModelUnavailableError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the transfer library's panics are no Exception
        if found := _explained(error, repo, revision):
            raise found from None
        raise no_hub(error) from None


def no_hub(error: BaseException) -> HubUnreachableError:
    """The complaint about answers that the client can make nothing of."""
    return HubUnreachableError(
        f"what answers at {shown_endpoint()} is no Hub: "
        f"{type(error).__name__}: {first_line(error)[:160]}",
        "log in where the network asks for it, or check HF_ENDPOINT",
    )


def is_of_connection(error: BaseException) -> bool:
    """Whether the way to the Hub failed, not what was asked of it."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _HTTP_LIBRARIES


@contextmanager
def explaining(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the client's errors about ``repo`` into ``ModelUnavailableError``."""
    try:
        yield
    except ModelUnavailableError:
        raise
    except Exception as error:  # which types there are depends on the client's version
        found = _explained(error, repo, revision)
        if found is None:
            raise
        raise found from None


def _explained(
    error: BaseException, repo: str, revision: str | None
) -> ModelUnavailableError | None:
    from huggingface_hub import errors

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
    return _lost(error, repo, status)


def _lost(error: BaseException, repo: str, status: int | None) -> ModelUnavailableError | None:
    """Errors on the way: of the server, the connection, the disk."""
    again = "try again: what came down is kept, and the download goes on from there"
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return explain(error, cache_folder())
    text = first_line(error)[:200]
    if status is not None:
        return ModelUnavailableError(f"the Hub answered {status} for {repo}", "try again later")
    if "onsistency check" in text:
        return ModelUnavailableError(
            f"a file of {repo} came down with the wrong size: {text}", "try again"
        )
    if "does not seem to be on huggingface.co" in text:  # what its client says of any other page
        return None
    if is_of_connection(error):
        return HubUnreachableError(f"the connection to the Hub was lost ({repo}): {text}", again)
    # The transfer library that fetches large files reports every failure as RuntimeError.
    if type(error) is RuntimeError:
        return ModelUnavailableError(f"{repo} could not be downloaded: {text}", again)
    return None
