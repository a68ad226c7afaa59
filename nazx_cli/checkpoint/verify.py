"""Reading a checkpoint through: is every byte there, and does it make sense?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nazx_cli.checkpoint.atomic import has_hash
from nazx_cli.checkpoint.checkpoint import FLOATS, Checkpoint
from nazx_cli.checkpoint.quantized import check_tensors
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.names import OnProgress

_PIECE = 1 << 22  # elements looked at together
_GIT_HASH = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Verified:
    """What was found right: tensors and their bytes, and files held to a hash."""

    tensors: int
    nbytes: int
    hashed: int
    unhashed: tuple[str, ...]


def verify_checkpoint(folder: Path, on_progress: OnProgress | None = None) -> Verified:
    """Check the files of ``folder`` one after another.

    Hashes where the place of the folder records them, headers, every tensor that the configuration
    asks for with its shape, values that are finite, the tokenizer. ``ModelUnavailableError`` names
    the first file that is broken.
    """
    config = ModelConfig.from_folder(folder)
    checkpoint = Checkpoint.open(folder)
    check_tensors(config, checkpoint)
    total = 2 * checkpoint.nbytes
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if on_progress:
            on_progress(min(done, total), total)

    names = {path.name for path in checkpoint.files}
    hashed = _check_hashes(folder, names, advance)
    done = checkpoint.nbytes
    for name, entry in checkpoint.entries.items():
        _check_finite(checkpoint, name)
        advance(entry.nbytes)
    check_tokenizer(folder)
    unhashed = tuple(sorted(names - hashed))
    return Verified(len(checkpoint.entries), checkpoint.nbytes, len(hashed), unhashed)


def _check_hashes(folder: Path, weights: set[str], advance: Callable[[int], None]) -> set[str]:
    """Hold files to the hashes that the Hub's cache or the conversion kept; their names."""
    origin = Origin.of(folder)
    recorded: Mapping[str, str] = origin.sha256 if origin is not None else {}
    right = set()
    for path in sorted(folder.iterdir()):
        blob = path.resolve().name
        if path.name in recorded:
            matches = has_hash(path, recorded[path.name])
        elif path.is_symlink() and _GIT_HASH.fullmatch(blob):
            matches = has_hash(path, blob)
        else:
            continue
        if not matches:
            raise ModelUnavailableError(f"{path} is damaged: its hash is not the recorded one")
        right.add(path.name)
        if path.name in weights:
            advance(path.stat().st_size)
    return right


def _check_finite(checkpoint: Checkpoint, name: str) -> None:
    entry = checkpoint.entries[name]
    if entry.dtype not in FLOATS:
        return  # whole numbers are always finite
    flat = checkpoint.read(name).reshape(-1)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        # A sum is finite only where every term is, and takes no second tensor; where the sum
        # itself overflows, the terms are looked at one by one.
        if not piece.sum().isfinite() and not piece.isfinite().all():
            raise ModelUnavailableError(
                f"{entry.file} is damaged: {name} holds values that are not finite"
            )


def check_tokenizer(folder: Path) -> None:
    """``ModelUnavailableError`` where a checkpoint's tokenizer cannot be used."""
    from nazx_cli.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    tokenizer.decode(tokenizer.encode("The quick brown fox."))
