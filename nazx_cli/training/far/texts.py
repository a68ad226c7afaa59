"""What a far memory is taught by: long texts, a file each, and what is kept of them.

Of a copying head's the end is a stretch that was run through the model in blocks of a live window,
each block from its own beginning; kept are the final state of each position and how likely the
model finds the token after it. What stands before a block is far, and is kept as token ids.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nazx_cli.checkpoint.atomic import explained
from nazx_cli.documents.gather import gather
from nazx_cli.errors import NazxError, first_line
from nazx_cli.model.weights import Weights

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

FAR = 24_576
"""Tokens that stand before a stretch, where a text is long enough."""
STRETCH = 4_096
"""Tokens of a stretch."""
PIECE = 256
"""Positions that are learnt from together."""
_WINDOWS = (512, 1024, 2048)  # live tokens, text by text
_LEAST = 3_072  # tokens of a text that is of use
_ROWS = 512  # positions whose logits are held at a time


@dataclass(frozen=True)
class Text:
    """One stretch: ids (N + 1,) of which the last n are foretold in blocks of ``window``; their
    states (n, C), as the model's last norm gives them, and log-probabilities (n,)."""

    ids: Tensor
    states: Tensor
    own: Tensor
    window: int

    @property
    def start(self) -> int:
        """Where in ``ids`` the stretch begins."""
        return len(self.ids) - 1 - len(self.own)


@dataclass(frozen=True)
class Piece:
    """``count`` positions of what is learnt from of a text, from ``at`` on; ``far`` tokens before
    them, or before the block that they are in, are remembered, or as many of the text ``other``."""

    text: int
    at: int
    count: int
    far: int
    other: int | None = None

    @property
    def tokens(self) -> int:
        """Positions that are learnt from."""
        return self.count

    @property
    def weight(self) -> float:
        """What their losses count together: each 1."""
        return float(self.count)


def pieces(
    texts: Sequence[Text], rng: random.Random, *, passes: int, strange: float
) -> Iterator[Piece]:
    """All of ``texts`` so many times, each time with memories of other lengths; of a share of
    ``strange`` the memory is of another text, from which nothing can be learnt but to refuse."""
    for number, text in enumerate(texts):
        for _ in range(passes):
            for at in range(0, len(text.own), PIECE):
                count = min(PIECE, len(text.own) - at, text.window - at % text.window)
                far = int(FAR / 12 * 12 ** rng.random())
                others = [each for each in range(len(texts)) if each != number]
                other = rng.choice(others) if others and rng.random() < strange else None
                yield Piece(number, at, count, far, other)


def collect(
    lm: LanguageModel,
    sources: Sequence[str],
    folder: Path,
    held_share: int,
    kept: Callable[[Tensor, int], dict[str, Tensor]],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make a file of what is ``kept`` of each text of ``sources`` that is long enough, given its
    ids and a number that depends on the text: ``train-NAME`` and, of one in ``held_share``,
    ``held-NAME``. What ``folder`` has already of these texts and this model is left as it is, all
    else is taken away."""
    documents = [each for source in sources for each in gather([source]).documents]
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    model, wanted = Weights(lm.decoder).digest, set[Path]()
    for number, document in enumerate(documents):
        if on_progress:
            on_progress(number, len(documents))
        digest = sha256(document.text.encode("utf-8", "replace")).hexdigest()
        kind = "held" if held_share and int(digest, 16) % held_share == 0 else "train"
        name = sha256(digest.encode() + model).hexdigest()[:16]
        path = folder / f"{kind}-{name}.safetensors"
        wanted.add(path)
        if path.is_file():
            continue
        ids = torch.from_numpy(lm.tokenizer.encode_document(document.text).ids.copy())
        if len(ids) < _LEAST:
            continue
        made = kept(ids, int(digest[-4:], 16))
        scratch = path.with_suffix(".new")
        with explained(path):
            save_file(made, scratch)
            scratch.replace(path)
    with explained(folder):
        for path in (*_files(folder, "train"), *_files(folder, "held")):
            if path not in wanted:
                path.unlink()


def read_texts(folder: Path, kind: str) -> list[Text]:
    """All of ``kind`` (``train`` or ``held``) that ``run_stretch`` made."""
    found = []
    for path, tensors in read_kept(folder, kind):
        with _told(path):
            window = int(tensors.pop("window"))
            found.append(Text(window=window, **tensors))
    return found


def read_kept(folder: Path, kind: str) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """Each file of ``kind``, and what was kept."""
    for path in _files(folder, kind):
        with _told(path):
            tensors = load_file(path)
        yield path, tensors


def count_positions(folder: Path, kind: str, learnt: str) -> int:
    """How many positions there are to learn from: entries of the tensor ``learnt`` of each file."""
    count = 0
    for path in _files(folder, kind):
        with _told(path), safe_open(path, "pt") as file:
            count += file.get_slice(learnt).get_shape()[0]
    return count


def run_stretch(lm: LanguageModel, ids: Tensor, number: int) -> dict[str, Tensor]:
    """A ``Text`` of ids (N,), by its parts; ``number`` chooses its window."""
    start = min(FAR, len(ids) // 2)
    return _run(lm, ids[: start + STRETCH + 1], start, _WINDOWS[number % len(_WINDOWS)])


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.safetensors"))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what a broken file raises into an error that names it."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise NazxError(
            f"{path} is broken: {first_line(error)}", "remove it and begin the run again"
        ) from None


def _run(lm: LanguageModel, ids: Tensor, start: int, window: int) -> dict[str, Tensor]:
    decoder = lm.decoder
    states, own = [], []
    with torch.inference_mode():
        for at in range(start, len(ids) - 1, window):
            block = ids[at : min(at + window, len(ids) - 1)].to(decoder.device, torch.int64)
            h = lm.attention.sequence(block)
            states.append(decoder.final_norm(h).to("cpu", torch.bfloat16))
            for row in range(0, len(block), _ROWS):
                part = decoder.logits(h[row : row + _ROWS]).log_softmax(-1)
                right = ids[at + row + 1 : at + row + 1 + len(part)].to(part.device, torch.int64)
                own.append(part.gather(1, right.unsqueeze(1))[:, 0].cpu())
    kept = {"states": torch.cat(states), "own": torch.cat(own)}
    return {**kept, "ids": ids.to(torch.int32).contiguous(), "window": torch.tensor(window)}
