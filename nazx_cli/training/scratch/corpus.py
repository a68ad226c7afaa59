"""A corpus in a folder: a tokenizer and the token ids that are trained on and held out.

tokenizer.json, tokenizer_config.json   what reads the corpus, and comes with the models
train.npy, held.npy                     int32 token ids, an end mark behind every document
held.txt                                what is held out, as text: for nazx eval
sources.json                            where the text came from
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.write import to_json
from nazx_cli.documents.document import Document
from nazx_cli.documents.gather import gather
from nazx_cli.errors import NazxError, UsageError, first_line
from nazx_cli.foreign import expanded
from nazx_cli.names import OnProgress
from nazx_cli.tokenizer import Tokenizer
from nazx_cli.training.licences import licence_of
from nazx_cli.training.scratch.recall import with_lists

END = "<|endoftext|>"
"""The token behind every document; files may hold it as text between theirs."""
TRAIN, HELD, HELD_TEXT, SOURCES = "train.npy", "held.npy", "held.txt", "sources.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_NOTICES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "CREDITS")  # beside texts, not of them
_LEARNT_FROM = 30_000_000  # characters that a tokenizer is made from


@dataclass(frozen=True)
class SourceNote:
    """What one ``FILE`` of the command came to; ``sha256`` is that of all its texts."""

    name: str
    files: int
    characters: int
    sha256: str
    licence: str


def make_corpus(
    folder: Path,
    specs: Sequence[str],
    *,
    vocab_size: int,
    held_share: int,
    recall: float = 0.0,
    longest: int = 512,
    tokenizer: Path | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Read ``specs`` (files, folders, globs) into ``folder``; one document in ``held_share`` is
    held out.

    A tokenizer of ``vocab_size`` is made from what is trained on, or the one in the folder
    ``tokenizer`` is used. Lists are added, ``recall`` times as many tokens as there are of the
    files and each of at most ``longest``: see ``training.scratch.recall``. ``UsageError`` where
    there is too little text.
    """
    train: list[str] = []
    held: list[str] = []
    notes = []
    for spec in specs:
        documents = [each for each in gather([spec]).documents if not _is_notice(each.name)]
        notes.append(_note(spec, documents))
        for document in documents:
            for text in _texts(document.text):
                mine, theirs = _split(text, held_share)
                train.extend(mine)
                held.extend(theirs)
    if not train or not held:
        raise UsageError("there is too little text to train on", "name more files")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(folder, train, vocab_size, tokenizer)
        reader = Tokenizer.from_folder(folder)
        end = reader.special_ids.get(END, next(iter(sorted(reader.stop_ids)), None))
        if end is None:
            raise UsageError("the tokenizer has no token that ends a text", "take another")
        for name, texts in ((TRAIN, train), (HELD, held)):
            ids = _encoded(reader, texts, end, on_progress)
            if recall and name == TRAIN:
                ids = with_lists(ids, reader, int(recall * len(ids)), longest, end)
            np.save(folder / name, ids)
        (folder / HELD_TEXT).write_text("\n\n".join(held) + "\n", encoding="utf-8")
        # Last: a corpus with it is whole.
        (folder / SOURCES).write_bytes(to_json([asdict(note) for note in notes]))


def read_notes(folder: Path) -> list[SourceNote]:
    """What the corpus came from."""
    try:
        return [SourceNote(**each) for each in json.loads((folder / SOURCES).read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise NazxError(
            f"{folder / SOURCES} is broken: {first_line(error)}", "begin the run again"
        ) from None


def read_ids(folder: Path, name: str) -> NDArray[np.int32]:
    """(N,) token ids of ``TRAIN`` or ``HELD``, read from the disk as they are asked for."""
    try:
        ids: NDArray[np.int32] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise NazxError(
            f"cannot read {folder / name}: {first_line(error)}", "begin the run again"
        ) from None
    return ids


@dataclass(frozen=True)
class Rows:
    """Sequences (B, T + 1) that are run together: each token but the first is foretold."""

    ids: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that run through the model, all of which are learnt from."""
        return self.ids.shape[0] * (self.ids.shape[1] - 1)

    @property
    def weight(self) -> float:
        """What their losses count together: each 1."""
        return float(self.tokens)


class Stretches(Sequence[Rows]):
    """A corpus cut into stretches of ``length`` tokens; an item is up to ``batch`` of them, from
    places far from each other."""

    def __init__(self, ids: NDArray[np.int32], length: int, batch: int, most: int | None = None):
        self._ids, self._length = ids, length
        count = max(0, (len(ids) - 1) // length)
        if most is not None:
            count = min(count, most)
        self._batch = max(1, min(batch, count))
        self._items = count // self._batch

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, item: int) -> Rows:  # type: ignore[override]
        if not 0 <= item < self._items:
            raise IndexError(item)
        starts = [(item + row * self._items) * self._length for row in range(self._batch)]
        rows = [self._ids[start : start + self._length + 1] for start in starts]
        return Rows(torch.from_numpy(np.stack(rows).astype(np.int64)))


def _is_notice(name: str) -> bool:
    return Path(name).name.upper().startswith(_NOTICES)


def _texts(text: str) -> Iterator[str]:
    for part in text.split(END):
        if part.strip():
            yield part.strip()


def _split(text: str, held_share: int) -> tuple[list[str], list[str]]:
    """A document as it is trained on and held out: whole, by its hash, unless it is a long one,
    whose last part is held out."""
    if len(text) < 100_000:
        held = int(sha256(text.encode("utf-8", "replace")).hexdigest(), 16) % held_share == 0
        return ([], [text]) if held else ([text], [])
    end = len(text) - len(text) // held_share
    near = end - end // 20
    cut = next((at for mark in "\n " if (at := text.rfind(mark, near, end)) >= 0), end)
    return [text[:cut].strip()], [text[cut:].strip()]


def _note(spec: str, documents: Sequence[Document]) -> SourceNote:
    digest = sha256()
    for document in documents:
        digest.update(document.text.encode("utf-8", "replace"))
    path = expanded(spec)
    return SourceNote(
        path.name or spec,
        len(documents),
        sum(len(document.text) for document in documents),
        digest.hexdigest(),
        licence_of(path),
    )


def _write_tokenizer(
    folder: Path, texts: Sequence[str], vocab_size: int, given: Path | None
) -> None:
    if given is not None:
        for name in TOKENIZER_FILES:
            if (given / name).is_file():
                (folder / name).write_bytes((given / name).read_bytes())
        return
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(_sample(texts), trainer)
    (folder / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_bytes(to_json({"eos_token": END}))


def _sample(texts: Sequence[str]) -> Iterator[str]:
    """So many of them, in an order of chance, as a tokenizer is made from."""
    left = _LEARNT_FROM
    for text in random.Random(0).sample(list(texts), len(texts)):
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _encoded(
    tokenizer: Tokenizer, texts: Sequence[str], end: int, on_progress: OnProgress | None
) -> NDArray[np.int32]:
    parts: list[NDArray[np.int32]] = []
    for number, text in enumerate(texts):
        if on_progress and number % 50 == 0:
            on_progress(number, len(texts))
        parts.append(tokenizer.encode_document(text).ids.astype(np.int32))
        parts.append(np.asarray([end], np.int32))
    return np.concatenate(parts)
