"""What of a folder goes to others: the files of a checkpoint or of an adapter, and its card.

Whatever else lies there stays: the state of a training run, notes of where a model came from,
hidden and scratch files.
"""

from __future__ import annotations

from pathlib import Path

from nazx_cli.checkpoint.adapters import verify_adapter
from nazx_cli.checkpoint.adapters.folder import CARD_FILE, WEIGHTS_FILE
from nazx_cli.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE, SMALL_FILES, Checkpoint
from nazx_cli.checkpoint.verify import verify_checkpoint
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import ADAPTER_CONFIG, OnProgress

_LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "NOTICE")
_BELOW = ("adapter", "model")  # what a training run makes in its folder


def published_files(folder: Path) -> dict[str, Path]:
    """The files that go up, by name; whether they are sound is told by ``verify_folder``.

    ``ModelUnavailableError`` where ``folder`` holds neither a checkpoint nor an adapter.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        names = [ADAPTER_CONFIG, WEIGHTS_FILE]
    elif (folder / "config.json").is_file():
        weights = [path.name for path in Checkpoint.open(folder).files]
        names = [*SMALL_FILES, *weights]
        if SINGLE_FILE not in weights:
            names.append(INDEX_FILE)
    else:
        raise _nothing(folder)
    names += [CARD_FILE, *_LICENCES]
    return {name: folder / name for name in names if (folder / name).is_file()}


def verify_folder(folder: Path, on_progress: OnProgress | None = None) -> None:
    """Read all of a checkpoint or an adapter; ``ModelUnavailableError`` names what is broken."""
    if (folder / ADAPTER_CONFIG).is_file():
        verify_adapter(folder)
    else:
        verify_checkpoint(folder, on_progress)


def is_weights(name: str) -> bool:
    """Whether a file of this name is read as weights: left beside new ones it would mix two
    models."""
    return name == INDEX_FILE or ("/" not in name and name.endswith(".safetensors"))


def _nothing(folder: Path) -> ModelUnavailableError:
    if not folder.is_dir():
        return ModelUnavailableError(f"there is no folder {folder}", "check the path")
    for name in _BELOW:
        if any((folder / name / file).is_file() for file in (ADAPTER_CONFIG, "config.json")):
            return ModelUnavailableError(
                f"{folder} is the folder of a run, what it made is in it", f"name {folder / name}"
            )
    return ModelUnavailableError(
        f"{folder} is neither a checkpoint nor an adapter",
        f"name a folder that holds config.json or {ADAPTER_CONFIG}",
    )
