"""Any model that NazX can read, as a NazX checkpoint in a folder of the person's choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.weights.atomic import building, put_in_place
from nazx_cli.weights.checkpoint import Checkpoint
from nazx_cli.weights.convert import DEFAULT_ATTENTION, convert_folder, convert_gguf
from nazx_cli.weights.hub import snapshot_origin
from nazx_cli.weights.origin import Origin
from nazx_cli.weights.resolve import resolve_model
from nazx_cli.weights.verify import check_tensors

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, in all); the second two count bytes, or are 0 where unknown."""


def convert_model(
    source: str,
    dest: Path,
    attention: AttentionConfig | None,
    *,
    revision: str | None = None,
    offline: bool = False,
    replace: bool = False,
    on_progress: Progress,
) -> Path:
    """Make the folder ``dest`` from ``source``: a model by any of its names, or a GGUF file.

    Without ``attention`` a NazX checkpoint keeps its own and any other becomes windowed. ``dest``
    appears whole or not at all; one that is there already is refused, or replaced on request.
    """
    dest = dest.expanduser().absolute()
    check_dest(dest, replace)
    file = Path(source).expanduser()
    is_gguf = file.is_file() or file.suffix.lower() == ".gguf"
    if is_gguf and not file.is_file():
        raise UsageError(f"there is no file {source}", "check the path")
    if is_gguf and revision:
        raise UsageError(f"{source} is a file, which has no revisions", "leave --revision out")
    folder = (
        file
        if is_gguf
        else resolve_model(source, revision=revision, offline=offline, on_progress=on_progress)
    )
    if not is_gguf and (dest.resolve() == folder.resolve() or folder.resolve() in dest.parents):
        raise UsageError(f"{dest} is or lies in what is converted", "name another folder")

    def progress(done: int, total: int) -> None:
        on_progress("converting", done, total)

    with building(dest, keep_lock=False) as scratch:
        new = scratch / "new"
        if is_gguf:
            convert_gguf(file, new, attention or DEFAULT_ATTENTION, progress)
            origin = Origin("gguf", str(file.absolute()))
        else:
            _check_weights(folder)
            convert_folder(folder, new, attention, progress, may_link=False)
            origin = (
                snapshot_origin(folder, revision)
                or Origin.read(folder)
                or Origin("folder", str(folder.absolute()))
            )
        _check_weights(new)
        origin.write(new)
        check_dest(dest, replace)
        put_in_place(new, dest, scratch)
    return dest


def check_dest(dest: Path, replace: bool) -> None:
    """``UsageError`` where a checkpoint cannot be made at ``dest``, or not without ``replace``."""
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return
    if not replace:
        raise UsageError(f"{dest} is there already", "name another folder, or add --force")
    if not (dest / "config.json").is_file():
        raise UsageError(
            f"{dest} is no checkpoint, and is not replaced by one", "name another folder"
        )


def _check_weights(folder: Path) -> None:
    """Hold the tensors to what the configuration asks for, from their headers."""
    try:
        check_tensors(ModelConfig.from_folder(folder), Checkpoint.open(folder))
    except ModelUnavailableError as error:
        raise ModelUnavailableError(error.message, "take a complete checkpoint") from None
