"""A file of documents and their posting lists, that never changes once it is there.

In safetensors format. Of D documents with P passages in all:

    texts                UTF-8, one after another
    numbers              (D, 8) int64, a row of ``Numbers`` for each document
    hashes               (D, 32) SHA-256 of the files that they were read from
    records              JSON for each document: format, places, alphabets
    cut_tokens ...       (P + D,) int32: for each document where its passages begin, and its end, in
    cut_characters           tokens, characters and lines of the document ...
    cut_lines
    cut_bytes            int64: ... and in bytes of ``texts``
    term_keys            (T,) int64, ascending: a hash of each stem
    term_entries         (T + 1,) int64: its passages are entry_passages[a:b], ascending
    term_places          (T + 1,) int64: and where in these it begins is places[a:b]
    entry_passages       int32, counted through the file
    entry_counts         uint8: how often it begins in the passage
    common               (C,) int32, ascending: of the terms those that stand in very many passages
    levels               (C * B,) uint8: of each what it comes to in each block; see ``levels``
    places               uint8: the tokens between the passage's first one and its own
    spelled              the words as they are spelled, by casefold, then spelling, and ...
    spelled_bounds           (W + 1,) int64: where each begins
    spelled_owners       int32: the documents that have each ...
    owner_bounds             (W + 1,) int64
    distinct             int32: the distinct tokens of each document ...
    distinct_passages        int32: and how many of its passages have each
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nazx_cli.documents.content import loads
from nazx_cli.errors import NazxError
from nazx_cli.index.levels import limits
from nazx_cli.reading.passages import PASSAGE_TOKENS
from nazx_cli.reading.tallies import Blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS: Mapping[str, type[np.generic]] = {"I64": np.int64, "I32": np.int32, "U8": np.uint8}
_LONGEST_HEADER = 1 << 16


class DamagedIndexError(NazxError):
    """A file of the index holds what was never written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the index is damaged: {path}", "run: nazx index clear, and start again")


class Numbers(NamedTuple):
    """What is known of a document in numbers: ``passage``, ``byte``, ``distinct`` and ``record``
    are where its own begin in the file."""

    passage: int
    byte: int
    distinct: int
    record: int
    tokens: int
    characters: int
    capitals: int
    letters: int


class Entries(NamedTuple):
    """Where the entries of a stem begin and end in a segment, and its places; ``term`` is its
    number among the stems, -1 where it is none of them."""

    term: int
    begin: int
    end: int
    first: int
    last: int


def key_of_term(stem: str) -> int:
    """What a stem is looked up by: 63 bits, so that two stems of a language do not meet."""
    digest = blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Column:
    """An array of a file, of which slices are read when they are asked for."""

    def __init__(self, file: _File, kind: np.dtype[Any], begin: int, length: int) -> None:
        self._file, self._kind, self._begin, self._length = file, kind, begin, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        start, stop, _ = wanted.indices(self._length)
        size = self._kind.itemsize
        data = self._file.read(self._begin + start * size, max(0, stop - start) * size)
        return np.frombuffer(data, self._kind)


class _File:
    """A file that is read by position, by any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._lock = Lock()

    def read(self, begin: int, length: int) -> bytes:
        """Exactly those bytes; ``DamagedIndexError`` where there are fewer."""
        with self._lock:
            self._file.seek(begin)
            data = self._file.read(length)
            while len(data) < length and (more := self._file.read(length - len(data))):
                data += more
        if len(data) < length:
            raise DamagedIndexError(self.path)
        return data

    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class Segment:
    """The segment at ``path``; ``OSError`` where there is none, ``DamagedIndexError`` where it is
    none. Of its documents next to nothing is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _File(path)
        try:
            self._columns = self._header()
            columns = self._columns
            self.numbers: NDArray[np.int64] = columns["numbers"][:].reshape(
                -1, len(Numbers._fields)
            )
            self.hashes = columns["hashes"][:].tobytes()
            self.texts = columns["texts"]
            self.blocks = self._blocks()
            self._common: NDArray[np.int32] = columns["common"][:]
            self._terms: tuple[NDArray[np.int64], ...] | None = None
            self._spelled_bounds: NDArray[np.int64] | None = None
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            raise DamagedIndexError(path) from None
        size = len(self._common) * len(self.blocks)
        if len(self.hashes) != 32 * len(self) or len(columns["levels"]) != size:
            raise DamagedIndexError(path)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_passages(self) -> int:
        """Passages of all documents."""
        return len(self._columns["cut_tokens"]) - len(self)

    def document(self, d: int) -> Numbers:
        """The numbers of a document."""
        return Numbers(*self.numbers[d].tolist())

    def ends(self, d: int, what: str) -> int:
        """Where a document's ``what``, of ``Numbers``, end in the file."""
        if d + 1 < len(self):
            return int(self.numbers[d + 1, Numbers._fields.index(what)])
        whole = {"byte": "texts", "distinct": "distinct", "record": "records"}
        return self.num_passages if what == "passage" else len(self._columns[whole[what]])

    def hash_of(self, d: int) -> str:
        """The SHA-256 of the file that a document was read from."""
        return self.hashes[32 * d : 32 * d + 32].hex()

    def record(self, d: int) -> dict[str, Any]:
        """Format, places and alphabets of a document."""
        begin = self.document(d).record
        found: dict[str, Any] = loads(
            self._columns["records"][begin : self.ends(d, "record")].tobytes()
        )
        return found

    def cuts(self, d: int, unit: str) -> NDArray[Any]:
        """(p + 1,) where a document's passages begin, and its end, in ``tokens``, ``characters``,
        ``lines`` or ``bytes``."""
        begin = self.document(d).passage + d
        found = self._columns[f"cut_{unit}"][begin : self.ends(d, "passage") + d + 1]
        if len(found) and (np.diff(found) < 0).any():
            raise DamagedIndexError(self.path)
        return found

    def text(self, d: int, begin: int | None = None, end: int | None = None) -> str:
        """A document's text, or bytes ``begin`` to ``end`` of ``texts`` that lie in it."""
        begin = self.document(d).byte if begin is None else begin
        end = self.ends(d, "byte") if end is None else end
        try:
            return self.texts[begin:end].tobytes().decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise DamagedIndexError(self.path) from None

    def entries(self, stem: str) -> Entries:
        """Where what is known of a stem is."""
        if self._terms is None:
            names = ("term_keys", "term_entries", "term_places")
            self._terms = tuple(self._columns[name][:] for name in names)
        keys, bounds, places = self._terms
        key = key_of_term(stem)
        at = int(np.searchsorted(keys, key))
        if at == len(keys) or keys[at] != key:
            return Entries(-1, 0, 0, 0, 0)
        entries, own = bounds[at : at + 2].tolist(), places[at : at + 2].tolist()
        for (begin, end), column in ((entries, "entry_counts"), (own, "places")):
            if not 0 <= begin <= end <= len(self._columns[column]):
                raise DamagedIndexError(self.path)
        return Entries(at, *entries, *own)

    def limits(self, entries: Entries) -> NDArray[np.float32]:
        """(B,) at least what entries come to in any passage of each block: see ``Blocks``."""
        row, size = int(np.searchsorted(self._common, entries.term)), len(self.blocks)
        if row < len(self._common) and self._common[row] == entries.term:
            return limits(self._columns["levels"][row * size : (row + 1) * size])
        return self.blocks.limits(self.passages(entries), self.counts(entries))

    def passages(self, entries: Entries) -> NDArray[np.int32]:
        """Those of entries, ascending; ``DamagedIndexError`` where the file has none such."""
        found: NDArray[np.int32] = self._columns["entry_passages"][entries.begin : entries.end]
        if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < self.num_passages:
            raise DamagedIndexError(self.path)
        if (found[1:] <= found[:-1]).any():
            raise DamagedIndexError(self.path)
        return found

    def counts(self, entries: Entries) -> NDArray[np.uint8]:
        """How often they stand in each of them."""
        return self._columns["entry_counts"][entries.begin : entries.end]

    def places(self, entries: Entries) -> NDArray[np.uint8]:
        """The tokens before each time they stand there."""
        return self._columns["places"][entries.first : entries.last]

    def distinct(self, d: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """A document's distinct tokens, and how many of its passages have each."""
        begin, end = self.document(d).distinct, self.ends(d, "distinct")
        return self._columns["distinct"][begin:end], self._columns["distinct_passages"][begin:end]

    @property
    def num_spelled(self) -> int:
        """How many words there are, as they are spelled."""
        return len(self._columns["spelled_bounds"]) - 1

    def spelled(self, number: int) -> str:
        """A word as it is spelled; they are in the order of ``spelled_order``."""
        if self._spelled_bounds is None:
            self._spelled_bounds = self._columns["spelled_bounds"][:]
        begin, end = self._spelled_bounds[number : number + 2].tolist()
        data: bytes = self._columns["spelled"][begin:end].tobytes()
        return data.decode("utf-8", "surrogatepass")

    def owners(self, number: int) -> NDArray[np.int32]:
        """The documents that have a word so spelled."""
        begin, end = self._columns["owner_bounds"][number : number + 2].tolist()
        return self._columns["spelled_owners"][begin:end]

    def _blocks(self) -> Blocks:
        """The passages in blocks."""
        firsts = np.append(self.numbers[:, 0], self.num_passages)
        if firsts[0] or (np.diff(firsts) < 0).any():
            raise ValueError("no documents begin so")
        return Blocks.of(firsts, PASSAGE_TOKENS)

    def _header(self) -> dict[str, Column]:
        """The arrays by name, all of which lie in the file."""
        length = int.from_bytes(self._file.read(0, 8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("no header is so long")
        header = json.loads(self._file.read(8, length))
        begin, size, found = 8 + length, self._file.size(), {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            kind = np.dtype(_KINDS[entry["dtype"]])
            low, high = (begin + int(offset) for offset in entry["data_offsets"])
            if not begin <= low <= high <= size or (high - low) % kind.itemsize:
                raise ValueError(name)
            found[name] = Column(self._file, kind, low, (high - low) // kind.itemsize)
        return found


def spelled_order(word: str) -> tuple[str, str]:
    """What words are ordered by: those that begin alike, in either case, are together."""
    return word.casefold(), word
