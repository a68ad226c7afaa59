"""Writing a segment: documents are taken in one by one, and put in order at the end."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nazx_cli.documents.content import dumps
from nazx_cli.index.levels import COMMON, levels
from nazx_cli.index.segment import Numbers, key_of_term, spelled_order
from nazx_cli.reading.matcher import token_words, tokens_at
from nazx_cli.reading.passages import PASSAGE_TOKENS
from nazx_cli.reading.tallies import Blocks
from nazx_cli.reading.tokenized import word_starts
from nazx_cli.reading.words import WORD, script, stem
from nazx_cli.tokenizer.encode import Numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.tokenizer import Tokenizer

SEGMENT_TOKENS = 8_000_000
"""Tokens of a segment, about: some 400 MB of memory while it is put in order."""

_AT_ONCE = 1 << 16  # words that are held as text at a time
_LOW = (1 << 32) - 1


class Builder:
    """A segment in the making: ``add`` documents, then ``write``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spelled = [token_words(tokenizer, token) for token in range(tokenizer.vocab_size)]
        self._split = np.asarray([words is None for words in spelled])
        # The character that each token's first word begins with, if it begins one.
        first = [words[0][0] if words else "" for words in spelled]
        self._capital = np.asarray([character.isupper() for character in first])
        self._letter = np.asarray([character.isalpha() for character in first])
        self._script = np.asarray([script(character) if character else "" for character in first])
        self.tokens = 0
        self._numbers: list[Numbers] = []
        self._hashes: list[bytes] = []
        self._passage = self._byte = self._distinct = self._record = 0
        self._arrays: defaultdict[str, list[NDArray[Any]]] = defaultdict(list)
        self._blobs: defaultdict[str, list[bytes]] = defaultdict(list)
        self._stems = Numbered()
        self._spelled = Numbered()
        self._stem_of: list[int] = []  # of each word, as it is spelled

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def hashes(self) -> list[str]:
        """What the documents that are in are named by."""
        return [digest.hex() for digest in self._hashes]

    def add(self, sha256: str, document: TokenizedDocument) -> None:
        """Put in a document, the content of a file with that hash."""
        cuts = document.cuts()
        self._add_words(document, cuts)
        self._add_cuts(document, cuts)
        capitals, letters, scripts = self._add_tokens(document, cuts)
        places = [[place.start, place.label] for place in document.document.places]
        record = dumps(
            {
                "format": document.document.format,
                "places": places,
                "scripts": scripts,
                "split": bool(self._split[document.ids].any()),
            }
        )
        self._numbers.append(
            Numbers(
                self._passage,
                self._byte,
                self._distinct,
                self._record,
                len(document),
                document.num_characters,
                capitals,
                letters,
            )
        )
        self._hashes.append(bytes.fromhex(sha256))
        self._blobs["records"].append(record)
        self._passage += len(cuts) - 1
        self._byte += len(self._blobs["texts"][-1])
        self._distinct += len(self._arrays["distinct"][-1])
        self._record += len(record)
        self.tokens += len(document)

    def _add_cuts(self, document: TokenizedDocument, cuts: NDArray[np.int32]) -> None:
        """The text, and where its passages begin."""
        count = len(cuts) - 1
        spans = [document.characters(*pair) for pair in pairwise(cuts.tolist())]
        pieces = [document.between(*span) for span in spans] or [document.document.text]
        encoded = [piece.encode("utf-8", "surrogatepass") for piece in pieces]
        begins = [begin for begin, _ in spans]
        ends = [document.num_characters] if count else [0]
        lengths = np.cumsum([0, *map(len, encoded)])[: count + 1]
        lines = np.cumsum([0, *(piece.count(b"\n") for piece in encoded)])[: count + 1]
        arrays = self._arrays
        arrays["cut_tokens"].append(cuts)
        arrays["cut_characters"].append(np.asarray([*begins, *ends], np.int32))
        arrays["cut_lines"].append(lines.astype(np.int32))
        arrays["cut_bytes"].append(self._byte + lengths)
        self._blobs["texts"].append(b"".join(encoded))

    def _add_words(self, document: TokenizedDocument, cuts: NDArray[np.int32]) -> None:
        """Where each stem begins: number of the stem, passage, place in it."""
        if not len(document):
            return
        text, starts = document.text, word_starts(document.text)
        numbers = np.zeros(len(starts), np.int64)
        for begin in range(0, len(starts), _AT_ONCE):
            end = min(begin + _AT_ONCE, len(starts))
            stop = int(starts[end]) if end < len(starts) else len(text)
            words = WORD.findall(text, int(starts[begin]), stop)
            known = len(self._spelled)
            numbers[begin:end] = np.fromiter(map(self._spelled.__getitem__, words), np.int64)
            for word in islice(self._spelled, known, None):
                self._stem_of.append(self._stems[stem(word.casefold())])
        tokens = tokens_at(document.starts, starts)
        passages = np.searchsorted(cuts, tokens, side="right") - 1
        self._arrays["stem"].append(np.asarray(self._stem_of, np.int32)[numbers])
        self._arrays["passage"].append((self._passage + passages).astype(np.int32))
        self._arrays["place"].append((tokens - cuts[passages]).astype(np.uint8))
        self._arrays["owner"].append(_each_once(numbers) << 32 | len(self))

    def _add_tokens(
        self, document: TokenizedDocument, cuts: NDArray[np.int32]
    ) -> tuple[int, int, str]:
        """The distinct tokens; how many begin a word with a capital, and with a letter; their
        alphabets."""
        ids, size = document.ids, len(self._split)
        owner = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
        holding = np.bincount(_each_once(owner * size + ids) % size, minlength=size)
        distinct = np.flatnonzero(holding)
        self._arrays["distinct"].append(distinct.astype(np.int32))
        self._arrays["distinct_passages"].append(holding[distinct].astype(np.int32))
        begins = np.bincount(ids[~document.joined], minlength=size)
        capitals, letters = (int(begins[kind].sum()) for kind in (self._capital, self._letter))
        return capitals, letters, " ".join(sorted(set(self._script[distinct].tolist()) - {""}))

    def write(self, path: Path) -> int:
        """Write the segment whole or not at all; its bytes. ``OSError`` where that cannot be."""
        from safetensors.numpy import save_file

        scratch = path.with_suffix(".partial")
        try:
            save_file(self._ordered(), scratch)
            with scratch.open("rb+") as file:
                os.fsync(file.fileno())
            scratch.replace(path)
        except Exception as error:
            with suppress(OSError):
                scratch.unlink()
            if type(error).__name__ == "SafetensorError":  # its own name for whatever writing meets
                raise OSError(getattr(error, "errno", None) or _errno(error), str(error)) from None
            raise
        return path.stat().st_size

    def _ordered(self) -> dict[str, NDArray[Any]]:
        made = {name: np.concatenate(self._arrays.pop(name)) for name in _AS_THEY_COME}
        made |= {name: _bytes(self._blobs.pop(name)) for name in ("texts", "records")}
        made["numbers"] = np.asarray(self._numbers, np.int64)
        made["hashes"] = _bytes(self._hashes)
        return made | self._terms() | self._words()

    def _terms(self) -> dict[str, NDArray[Any]]:
        """The posting lists, by the keys of their stems."""
        keys = np.asarray([key_of_term(each) for each in self._stems], np.int64)
        order = np.argsort(keys)
        rank = np.zeros(len(keys), np.int64)
        rank[order] = np.arange(len(keys))
        empty = [np.zeros(0, np.int32)]
        stems = np.concatenate(self._arrays.pop("stem", empty))
        # One number of stem, passage and place: sorted, and each once.
        bits = self._passage.bit_length()
        packed = rank[stems]
        packed <<= bits
        packed |= np.concatenate(self._arrays.pop("passage", empty))
        del stems
        places = np.concatenate(self._arrays.pop("place", empty)).astype(np.int64)
        packed <<= 8
        packed |= places
        packed = _each_once(packed)
        places = (packed & 0xFF).astype(np.uint8)
        packed >>= 8
        begins = np.flatnonzero(np.diff(packed, prepend=-1))
        entries = packed[begins]
        terms = np.arange(len(keys) + 1, dtype=np.int64) << bits
        bounds = np.searchsorted(entries, terms)
        passages = (entries & ((1 << bits) - 1)).astype(np.int32)
        counts = np.diff(begins, append=len(packed)).astype(np.uint8)
        return {
            "term_keys": keys[order],
            "term_entries": bounds,
            "term_places": np.append(begins, len(packed))[bounds],
            "entry_passages": passages,
            "entry_counts": counts,
            "places": places,
        } | self._levels(bounds, passages, counts)

    def _levels(
        self, bounds: NDArray[np.int64], passages: NDArray[np.int32], counts: NDArray[np.uint8]
    ) -> dict[str, NDArray[Any]]:
        """What the common stems come to, block by block."""
        firsts = [*(numbers.passage for numbers in self._numbers), self._passage]
        blocks = Blocks.of(np.asarray(firsts), PASSAGE_TOKENS)
        common = np.flatnonzero(np.diff(bounds) > COMMON * len(blocks))
        spans = [slice(*bounds[term : term + 2]) for term in common]
        found = levels(blocks, ((passages[span], counts[span]) for span in spans))
        rows = np.concatenate([np.zeros(0, np.uint8), *found])
        return {"common": common.astype(np.int32), "levels": rows}

    def _words(self) -> dict[str, NDArray[Any]]:
        """The words as they are spelled, and the documents that have each."""
        words = list(self._spelled)
        order = sorted(range(len(words)), key=lambda number: spelled_order(words[number]))
        encoded = [words[number].encode("utf-8", "surrogatepass") for number in order]
        rank = np.zeros(len(words), np.int64)
        rank[order] = np.arange(len(words))
        packed = np.concatenate([np.zeros(0, np.int64), *self._arrays.pop("owner", [])])
        packed = np.sort(rank[packed >> 32] << 32 | packed & _LOW)
        return {
            "spelled": _bytes(encoded),
            "spelled_bounds": np.cumsum([0, *map(len, encoded)]),
            "spelled_owners": (packed & _LOW).astype(np.int32),
            "owner_bounds": np.searchsorted(packed, np.arange(len(words) + 1) << 32),
        }


_AS_THEY_COME = (
    *("cut_tokens", "cut_characters", "cut_lines", "cut_bytes", "distinct", "distinct_passages"),
)


def _each_once(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """They in order; ``np.unique`` takes several times as long for it."""
    ordered = np.sort(numbers)
    once: NDArray[np.int64] = ordered[np.diff(ordered, prepend=-1) != 0]
    return once


def _bytes(blobs: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(blobs), np.uint8)


def _errno(error: Exception) -> int:
    import errno

    return errno.ENOSPC if "No space" in str(error) else errno.EIO
