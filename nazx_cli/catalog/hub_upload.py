"""Uploads to the Hub: a folder's files as one commit, into a repository that is private unless
asked otherwise.

Large files go up first, over plain HTTP, and the commit comes last: until then nobody sees
anything, and what went up whole is not sent again by the next try. Nothing is replaced unasked.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nazx_cli.catalog.hub import (
    HubUnreachableError,
    check_reachable,
    endpoint,
    has_token,
    is_of_connection,
    no_hub,
    shown_endpoint,
)
from nazx_cli.catalog.patience import patiently, until, window
from nazx_cli.checkpoint.adapters.folder import CARD_FILE
from nazx_cli.checkpoint.atomic import has_hash
from nazx_cli.checkpoint.published import is_weights
from nazx_cli.errors import ModelUnavailableError, UsageError, first_line, without_credentials
from nazx_cli.names import OnProgress, is_offline

T = TypeVar("T")

_OWN = ".gitattributes"  # the Hub makes it
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_NAMED = 3  # files that are named; the others are counted


@dataclass(frozen=True)
class Pushed:
    """What became of a push; ``changed`` is False where the repository held it all already."""

    url: str
    commit: str
    created: bool
    changed: bool
    private: bool


@dataclass(frozen=True)
class _Repository:
    """What the Hub holds: hashes, as in ``has_hash``, by the name of the file."""

    commit: str
    private: bool
    hashes: Mapping[str, str]


def card_with_licence(path: Path, licence: str | None) -> bytes:
    """The card at ``path`` as it goes up: with ``licence`` in its metadata where it names none.

    ``UsageError`` where there is no card, or no licence, or another.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} has no card",
            f"write {path}: what the model is, what it was made from, its data, its licence",
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {first_line(error)}", "write it as UTF-8") from None
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"{licence!r} is no licence as the Hub names them",
            "as in apache-2.0, mit, cc-by-sa-4.0, or other",
        )
    from huggingface_hub import ModelCard

    _silence_client()
    try:
        card = ModelCard(text)
        named = card.data.to_dict().get("license")
    except Exception as error:  # of YAML, and of whatever the client makes of its values
        raise UsageError(f"the metadata of {path}: {first_line(error)}", "mend it") from None
    if named and licence not in (None, named):
        raise UsageError(f"{path} says licence {named}, not {licence}", "mend one of them")
    if named:
        return text.encode()
    if licence is None:
        raise UsageError(
            f"{path} names no licence",
            "add --licence ID, as apache-2.0, or begin the card with the lines ---, license: ID, "
            "---",
        )
    card.data["license"] = licence
    return str(card.content).encode()


def check_can_push(repo: str) -> None:
    """What can be told without the network: the repository's name, that there is a token, and
    that the network may be used."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except ValueError:
        repo = ""
    if repo.count("/") != 1:
        raise UsageError("that is no name of a Hub repository", "name one as in org/name")
    if is_offline():
        raise UsageError("pushing needs the network, and NazX is offline", "unset HF_HUB_OFFLINE")
    if not has_token():
        raise ModelUnavailableError(
            "pushing needs a token of the Hub",
            "set HF_TOKEN to one with write access, from the settings page of your Hub account",
        )


def push(
    repo: str,
    files: Mapping[str, Path | bytes],
    *,
    public: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Pushed:
    """Make ``repo`` hold ``files``, by one commit; it is made where there is none.

    ``UsageError`` where it holds other files and ``force`` is not given, or is public without
    ``public``. With ``force`` files of the same name are replaced and other weights removed.
    ``ModelUnavailableError`` for what goes wrong on the way: the repository is then as it was.
    """
    check_can_push(repo)
    _silence_client()
    check_reachable()
    with _explaining(repo):
        _call(repo, lambda: _api().whoami())
        found = _call(repo, lambda: _repository(repo))
        if found is not None:
            _check(repo, found, files, public=public, force=force)
        _call(repo, lambda: _check_card(files.get(CARD_FILE, b"")))
        if found is None:
            _call(repo, lambda: _api().create_repo(repo, private=not public, exist_ok=True))
        commit = _commit(repo, files, found, on_progress)
    before = found.commit if found else None
    return Pushed(
        url=f"{shown_endpoint()}/{repo}",
        commit=commit,
        created=found is None,
        changed=commit != before,
        private=found.private if found else not public,
    )


def _check(
    repo: str,
    found: _Repository,
    files: Mapping[str, Path | bytes],
    *,
    public: bool,
    force: bool,
) -> None:
    if not (found.private or public):
        raise UsageError(
            f"{repo} is there and is public: everyone would see these files",
            "add --public, or name another repository",
        )
    others = [name for name in found.hashes if name not in files and name != _OWN]
    differing = [
        name for name in found.hashes if name in files and not _same(files[name], found, name)
    ]
    if force or not (others or differing):
        return
    what = "other files" if others else "other contents of the same files"
    raise UsageError(
        f"{repo} holds {what}: {_some(others or differing)}",
        "add --force to replace what has the same name, or name another repository",
    )


def _same(content: Path | bytes, found: _Repository, name: str) -> bool:
    return has_hash(content, found.hashes[name])


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _repository(repo: str) -> _Repository | None:
    """What the Hub has under this name; None where there is none that the token may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = _api().model_info(repo, files_metadata=True)
    except RepositoryNotFoundError:
        return None
    if info.sha is None:
        raise ValueError("its answer names no commit")
    hashes = {
        str(file.rfilename): str(file.lfs["sha256"] if file.lfs else file.blob_id)
        for file in info.siblings or []
    }
    return _Repository(str(info.sha), bool(info.private), hashes)


def _check_card(card: Path | bytes) -> None:
    """Have the Hub look at the card's metadata; the client would only do so after the uploads."""
    from huggingface_hub.utils import build_hf_headers, get_session

    text = (card if isinstance(card, bytes) else card.read_bytes()).decode()
    asked = {"content": text, "repoType": "model"}
    url = f"{endpoint()}/api/validate-yaml"
    answer = get_session().post(url, json=asked, headers=build_hf_headers())
    if answer.status_code == 400:
        wrong = "; ".join(str(each.get("message")) for each in answer.json().get("errors", []))
        raise ModelUnavailableError(
            f"the Hub does not take the card: {_cleaned(wrong)}", "mend README.md, or --licence"
        )


class _Sent(io.BufferedReader):
    """A file that knows how far it has been read, over all tries to send it."""

    furthest = 0

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes."""
        data = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return data


def _commit(
    repo: str,
    files: Mapping[str, Path | bytes],
    found: _Repository | None,
    on_progress: OnProgress | None,
) -> str:
    """Send ``files``; the commit that holds them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with ExitStack() as opened:
        sources = {
            name: content if isinstance(content, bytes) else opened.enter_context(_open(content))
            for name, content in files.items()
        }
        large = [source for source in sources.values() if isinstance(source, _Sent)]
        total = sum(os.fstat(source.fileno()).st_size for source in large)

        def work() -> str:
            # The client hashes what it is given; only after that does it send.
            added = [CommitOperationAdd(*each) for each in sources.items()]
            for source in large:
                source.furthest = 0
            stale = [name for name in (found.hashes if found else ()) if is_weights(name)]
            removed = [CommitOperationDelete(name) for name in stale if name not in files]
            for each in added:
                # One by one: several at once are threads that Ctrl-C has to wait for.
                _api().preupload_lfs_files(repo, [each], free_memory=False)
            made = _api().create_commit(
                repo,
                [*added, *removed],
                commit_message="Upload by nazx push",
                parent_commit=found.commit if found else None,
            )
            return str(made.oid)

        def look() -> None:
            if on_progress:
                on_progress(sum(source.furthest for source in large), total)

        return patiently(work, look)


def _open(path: Path) -> _Sent:
    try:
        return _Sent(io.FileIO(path))
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror}") from None


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def _call(repo: str, work: Callable[[], T]) -> T:
    """What a short call returns; Ctrl-C is heard meanwhile."""
    return patiently(work, until(f"asking the Hub about {repo}", window()))


def _silence_client() -> None:
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()


@contextmanager
def _explaining(repo: str) -> Iterator[None]:
    """Turn whatever the client raises into one line with a next step."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the card's metadata, in several lines
            yield
    except (UsageError, ModelUnavailableError):
        raise
    except Exception as error:  # which types there are depends on the client's version
        raise _failure(error, repo) from None


def _failure(error: BaseException, repo: str) -> ModelUnavailableError:
    if error.__cause__ is not None and type(error) is RuntimeError:
        error = error.__cause__  # the client says only which file it was
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return ModelUnavailableError(
            "the Hub does not take this token",
            "set HF_TOKEN to a valid one, from the settings page of your Hub account",
        )
    if status == 403:
        return ModelUnavailableError(
            f"this token may not write to {repo}",
            "name a repository of yours or of an organization of yours, and set HF_TOKEN to a "
            "token with write access",
        )
    if status in (409, 412):
        return ModelUnavailableError(
            f"{repo} was changed meanwhile, and nothing was published", "run the same again"
        )
    if status is not None:
        return ModelUnavailableError(
            f"the Hub answered {status} for {repo}: {_told(error)}", "run the same again later"
        )
    if is_of_connection(error):
        return HubUnreachableError(
            f"the connection to the Hub was lost, and nothing was published: {_told(error)}",
            "run the same again: files that went up whole are not sent again",
        )
    return no_hub(error)


def _told(error: BaseException) -> str:
    """What the Hub said, in one line, or else the client."""
    return _cleaned(str(getattr(error, "server_message", None) or first_line(error)))


def _cleaned(text: str) -> str:
    """One line, and never with the token in it."""
    from huggingface_hub import get_token

    text = without_credentials(" ".join(text.split()))
    return text.replace(get_token() or "\0", "***")[:200]
