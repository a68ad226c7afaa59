"""Taking folders in by the index: what it costs the second time, and what cannot spoil it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reading_helpers import alice_text, small_tokenizer

from nazx_cli.documents.gather import gather, listed
from nazx_cli.errors import DocumentError, NazxError
from nazx_cli.index import build, catalogue, intake, room
from nazx_cli.index.intake import Taken, take_in
from nazx_cli.index.segment import DamagedIndexError
from nazx_cli.reading.library import Library
from nazx_cli.reading.recall import rank
from nazx_cli.reading.tokenized import tokenize_documents

Take = Callable[..., Taken]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of chapters, two of them under two names."""
    folder = tmp_path / "texts"
    folder.mkdir()
    text = alice_text()
    chapters = [text[at : at + 15_000] for at in range(0, 90_000, 15_000)]
    for number, chapter in enumerate([*chapters, chapters[0], chapters[3]]):
        (folder / f"{number}.txt").write_text(chapter, encoding="utf-8")
    return folder


@pytest.fixture
def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Take:
    """Takes files in, each segment of a few chapters; files just written are trusted."""
    monkeypatch.setattr(catalogue, "_SETTLED", -(10**12))
    monkeypatch.setattr(intake, "SEGMENT_TOKENS", 9000)

    def take(*specs: Path, **options: object) -> Taken:
        listing = listed([str(spec) for spec in specs])
        return take_in(listing, small_tokenizer(), tmp_path / "index", **options)  # type: ignore[arg-type]

    return take


def in_memory(folder: Path, *left_out: str) -> Library:
    documents = [d for d in gather([str(folder)]).documents if Path(d.name).name not in left_out]
    return Library(tokenize_documents(documents, small_tokenizer()), small_tokenizer())


def assert_same(taken: Taken, folder: Path) -> None:
    """As read into memory, but for what is a copy of another file."""
    found = Library.of(taken.documents, small_tokenizer())
    plain = in_memory(folder, "6.txt", "7.txt")
    assert list(found.passages) == list(plain.passages)
    for question in ("Who is the Duchess?", "What did Alice drink from the bottle?"):
        assert rank(found, question).order.tolist() == rank(plain, question).order.tolist()


def test_what_is_known_is_not_read_again(texts: Path, take: Take) -> None:
    first = take(texts)
    assert (first.looked_into, first.new, first.copies, len(first.documents)) == (8, 6, 2, 6)
    again = take(texts)
    assert (again.looked_into, again.new, again.copies, len(again.documents)) == (0, 0, 2, 6)
    assert_same(first, texts)
    assert_same(again, texts)


def test_a_change_costs_the_file_that_changed(texts: Path, take: Take) -> None:
    take(texts)
    (texts / "2.txt").write_text("The walrus sat on a golden key.", encoding="utf-8")
    (texts / "1.txt").unlink()
    (texts / "9.txt").write_text("A carpenter wept like anything.", encoding="utf-8")
    taken = take(texts)
    assert (taken.looked_into, taken.new, len(taken.documents)) == (2, 2, 6)
    names = [Path(document.name).name for document in taken.documents]
    assert names == ["0.txt", "2.txt", "3.txt", "4.txt", "5.txt", "9.txt"]
    found = Library.of(taken.documents, small_tokenizer())
    best = found.passages[int(rank(found, "Where did the walrus sit?").order[0])]
    assert best.document.endswith("2.txt") and "golden key" in best.text
    (texts / "2.txt").rename(texts / "8.txt")  # another name costs a look
    taken = take(texts)
    assert (taken.looked_into, taken.new) == (1, 0)


def test_a_file_that_may_change_unseen_is_looked_into_again(
    texts: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_SETTLED", 2_000_000_000)
    take(texts)
    assert take(texts).looked_into == 8
    state = (texts / "0.txt").stat()
    (texts / "0.txt").write_text("x" * state.st_size, encoding="utf-8")
    os.utime(texts / "0.txt", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert take(texts).new == 1


def test_faulty_files_are_told_as_without_the_index(texts: Path, take: Take) -> None:
    (texts / "empty.txt").write_text("")
    (texts / "binary.dat").write_bytes(bytes(range(256)) * 40)
    (texts / "zeros.img").write_bytes(bytes(1000))
    for _ in range(2):
        taken = take(texts)
        assert taken.skipped == gather([str(texts)]).skipped and len(taken.skipped) == 3
    assert taken.looked_into == 0
    for name in ("empty.txt", "binary.dat"):
        with pytest.raises(DocumentError) as plain:
            gather([str(texts / name)])
        with pytest.raises(DocumentError) as told:
            take(texts / name)
        assert (told.value.message, told.value.hint) == (plain.value.message, plain.value.hint)
    with pytest.raises(DocumentError, match="no readable text"):
        (texts / "sub").mkdir()
        take(texts / "sub")


def test_an_interrupted_start_goes_on_where_it_was(
    texts: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = catalogue.Catalogue.put
    count = 0

    def stopped(self: catalogue.Catalogue, builder: build.Builder) -> None:
        nonlocal count
        if (count := count + 1) == 2:
            raise KeyboardInterrupt
        put(self, builder)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(catalogue.Catalogue, "put", stopped)
        take(texts)
    taken = take(texts)
    assert taken.looked_into == 0 and 0 < taken.new < 6
    assert_same(taken, texts)


def test_a_killed_writer_leaves_nothing_that_is_trusted(
    texts: Path, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)  # all is written, nothing has its name
        take(texts)
    (litter,) = [p for p in (tmp_path / "index").rglob("*") if p.suffix == ".partial"] or [None]
    if litter is None:
        (folder,) = (tmp_path / "index").iterdir()
        litter = folder / "left.partial"
        litter.write_bytes(b"half")
    os.utime(litter, (time.time() - 10_000,) * 2)
    assert_same(take(texts), texts)
    assert not litter.exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-5000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(os.urandom(5000)),
        lambda path: path.write_bytes(b"\x02" + bytes(7) + b"[]" + bytes(100)),
    ],
)
def test_a_damaged_segment_is_made_again(
    harm: Callable[[Path], object], texts: Path, take: Take, tmp_path: Path
) -> None:
    take(texts)
    path = next((tmp_path / "index").rglob("*.safetensors"))
    harm(path)
    taken = take(texts)
    assert taken.new > 0 and taken.looked_into == 0
    assert_same(taken, texts)


def test_damage_that_shows_later_is_told_in_a_line(texts: Path, take: Take, tmp_path: Path) -> None:
    taken = take(texts)
    for path in (tmp_path / "index").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        header = int.from_bytes(data[:8], "little") + 8
        data[header:] = b"\xff" * (len(data) - header)
        path.write_bytes(data)
    found = Library.of(taken.documents, small_tokenizer())
    with pytest.raises(DamagedIndexError):
        rank(found, "Who is the Duchess?")


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"no database" * 1000,
        lambda data: data[:8192] + os.urandom(len(data) - 8192),
        lambda data: data[:-4096],
    ],
)
def test_a_damaged_catalogue_is_made_again(
    harm: Callable[[bytes], bytes], texts: Path, take: Take, tmp_path: Path
) -> None:
    for number in range(100):
        (texts / f"{number:0100}.txt").write_text(f"The {number}th walrus.", encoding="utf-8")
    take(texts)
    (path,) = (tmp_path / "index").rglob("*.db")
    path.write_bytes(harm(path.read_bytes()))
    taken = take(texts)
    assert taken.new == 106 and taken.looked_into == 108
    assert take(texts).new == 0


def test_names_and_inodes_that_are_no_text_and_no_small_number(
    texts: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    (texts / os.fsdecode(b"caf\xe9.txt")).write_text("A walrus sang.", encoding="utf-8")
    stat = Path.stat

    def large(self: Path, **options: bool) -> os.stat_result:
        found = stat(self, **options)
        fields = list(found)
        fields[1] += 1 << 63
        kept = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        return os.stat_result(fields, kept)

    monkeypatch.setattr(Path, "stat", large)
    taken = take(texts)
    assert (taken.looked_into, taken.new) == (9, 7)
    taken = take(texts)
    assert (taken.looked_into, taken.new) == (0, 0)
    assert any("walrus" in each.text for each in taken.documents)


def test_an_index_of_an_older_version_is_made_again(
    texts: Path, take: Take, tmp_path: Path
) -> None:
    take(texts)
    (folder,) = (tmp_path / "index").iterdir()
    version, _, rest = folder.name.partition("-")
    older = folder.rename(folder.with_name(f"v{int(version[1:]) - 1}-{rest}"))
    taken = take(texts)
    assert taken.new == 6 and not older.exists()
    assert_same(taken, texts)


def test_two_processes_at_once_do_no_harm(texts: Path, take: Take, tmp_path: Path) -> None:
    code = """
import sys
sys.path[:0] = [sys.argv[1]]
from reading_helpers import small_tokenizer
from nazx_cli.documents.gather import listed
from nazx_cli.index.intake import take_in
from pathlib import Path
print(len(take_in(listed([sys.argv[2]]), small_tokenizer(), Path(sys.argv[3])).documents))
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(texts)]
    running = [
        subprocess.Popen([*command, str(tmp_path / "index")], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in running] == [b"6", b"6"]
    taken = take(texts)
    assert taken.new == 0
    assert_same(taken, texts)


def test_a_full_disk_is_one_line(texts: Path, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NazxError, match="the disk is full") as told:
            take(texts)
    assert "nazx index clear" in told.value.hint
    assert_same(take(texts), texts)


def test_many_small_additions_are_joined(texts: Path, take: Take, tmp_path: Path) -> None:
    for number in range(12):
        (texts / f"x{number:02}.txt").write_text(f"The {number}th walrus sang.", encoding="utf-8")
        assert take(texts).new == (7 if number == 0 else 1)
    (folder,) = (tmp_path / "index").iterdir()
    with sqlite3.connect(folder / "catalogue.db") as database:
        (count,) = database.execute("SELECT count(DISTINCT segment) FROM contents").fetchone()
    assert count <= 12
    found = Library.of(take(texts).documents, small_tokenizer())
    plain = in_memory(texts, "6.txt", "7.txt")
    assert rank(found, "walrus").order.tolist() == rank(plain, "walrus").order.tolist()


def test_the_index_keeps_to_its_size(texts: Path, take: Take, tmp_path: Path) -> None:
    index, other = tmp_path / "index", tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text(alice_text()[:60_000], encoding="utf-8")
    take(texts)
    needed = room.nbytes(index)
    room.clear(index)
    assert room.nbytes(index) == 0
    with pytest.raises(NazxError, match="takes more than"):
        take(texts, limit=needed // 2)
    take(other)
    assert_same(take(texts, limit=needed + 20_000), texts)
    assert room.nbytes(index) <= needed + 20_000
    assert take(texts).new == 0
    assert take(other).new == 1  # what was used longest ago had to go
