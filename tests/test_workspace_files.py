"""Documents of a workspace that come from files: read, read again, swapped, watched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel

from nazx_cli.errors import DocumentError, UsageError
from nazx_cli.session.session import Session


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two texts and a binary file in it."""
    (tmp_path / "a.txt").write_text("The fox bought a lantern.")
    (tmp_path / "b.txt").write_text("The heron bought a red umbrella.")
    (tmp_path / "c.bin").write_bytes(bytes(range(256)) * 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workspace(*specs: str) -> Session:
    work = Session(ScriptedModel([]))  # type: ignore[arg-type]
    if specs:
        work.read(specs)
    return work


def names(work: Session) -> list[str]:
    return [part.name for part in work.documents]


def rewrite(path: Path, text: str) -> None:
    """Write, with a time of change that differs from what it was."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.mark.usefixtures("folder")
def test_reading_adds_what_is_new_and_tells_what_is_not() -> None:
    work = workspace("b.txt")
    told: list[tuple[int, int]] = []
    found = work.read(["*.*"], lambda done, total: told.append((done, total)))
    assert [part.name for part in found.added] == ["a.txt"]
    assert found.known == ("b.txt",)
    assert [skipped.name for skipped in found.skipped] == ["c.bin"]
    assert names(work) == ["b.txt", "a.txt"]
    assert told[-1][0] == told[-1][1] > 0
    assert work.undo() == "read a.txt"
    assert names(work) == ["b.txt"]


def test_a_file_by_another_path_is_the_document_that_is_there(folder: Path) -> None:
    (folder / "link.txt").symlink_to("a.txt")
    (folder / "here").symlink_to(folder)
    work = workspace("a.txt")
    paths = ["./a.txt", str(folder / "a.txt"), "link.txt", "here/a.txt"]
    for path in paths:
        found = work.read([path])
        assert (found.added, found.known) == ((), (path,))
    assert names(work) == ["a.txt"]


@pytest.mark.usefixtures("folder")
def test_several_files_are_one_step() -> None:
    work = workspace("a.txt", "b.txt")
    assert work.undo() == "read 2 files"
    assert work.documents == ()


@pytest.mark.usefixtures("folder")
def test_reading_only_what_is_there_is_no_step() -> None:
    work = workspace("a.txt")
    assert work.read(["a.txt"]).added == ()
    assert work.undo() == "read a.txt"


@pytest.mark.usefixtures("folder")
def test_what_cannot_be_read_changes_nothing() -> None:
    work = workspace("a.txt")
    with pytest.raises(DocumentError):
        work.read(["b.txt", "missing.txt"])
    assert names(work) == ["a.txt"]


@pytest.mark.usefixtures("folder")
def test_swapping_puts_one_document_in_another_place() -> None:
    work = workspace("a.txt", "b.txt")
    Path("d.txt").write_text("Cheese.")
    assert work.swap(1, "d.txt").name == "d.txt"
    assert names(work) == ["d.txt", "b.txt"]
    with pytest.raises(UsageError, match=r"b\.txt is in the session already"):
        work.swap(1, "b.txt")
    with pytest.raises(UsageError, match="names 2 documents"):
        work.swap(2, "[ab].txt")
    assert work.undo() == "swapped a.txt for d.txt"
    assert names(work) == ["a.txt", "b.txt"]


def test_reloading_takes_in_what_the_file_holds_now(folder: Path) -> None:
    work = workspace("a.txt", "b.txt")
    old = work.documents
    assert not work.reload(1)
    rewrite(folder / "a.txt", "The fox bought nothing.")
    assert work.reload(1)
    assert work.documents[0].document.text == "The fox bought nothing."
    assert work.documents[0].name == "a.txt"
    assert work.documents[1] is old[1]
    assert work.undo() == "reloaded a.txt"
    assert work.documents == old


def test_a_file_that_is_gone_stays_as_it_was_read(folder: Path) -> None:
    work = workspace("a.txt")
    work.watch(1)
    (folder / "a.txt").unlink()
    assert work.changed() == ()
    assert work.missing() == (1,)
    with pytest.raises(DocumentError, match=r"a\.txt is gone"):
        work.reload(1)
    assert names(work) == ["a.txt"]


def test_watched_files_are_changed_only_when_their_contents_are(folder: Path) -> None:
    work = workspace("a.txt", "b.txt")
    for number in (1, 2):
        work.watch(number)
    assert (work.changed(), work.missing()) == ((), ())
    os.utime(folder / "a.txt", ns=(1, 1))
    assert work.changed() == ()
    rewrite(folder / "b.txt", "New.")
    assert work.changed() == (2,)
    assert work.reload(2)
    assert work.changed() == ()
    rewrite(folder / "a.txt", "New too.")
    work.watch(1, on=False)
    assert work.changed() == ()
    assert [work.is_watched(n) for n in (1, 2)] == [False, True]
    assert work.watched == {str(folder / "b.txt")}


def test_what_came_from_no_file_can_be_neither_reloaded_nor_watched() -> None:
    from nazx_cli.documents.document import Document
    from nazx_cli.reading.tokenized import TokenizedDocument

    work = workspace()
    part = TokenizedDocument.build(Document("stdin", "Text.", "text"), work.lm.tokenizer)
    work.set_documents((part,), "read stdin")
    for edit in (work.reload, work.watch):
        with pytest.raises(UsageError, match="stdin was not read from a file"):
            edit(1)
    assert not work.is_watched(1)
    assert work.changed() == ()


def test_a_file_that_was_only_touched_is_looked_through_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nazx_cli.session import files

    work = workspace("a.txt")
    work.watch(1)
    looked: list[Path] = []
    hashing = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: (looked.append(path), hashing(path))[1])
    assert (work.changed(), looked) == ((), [])
    os.utime(folder / "a.txt", ns=(1, 1))
    assert (work.changed(), work.changed()) == ((), ())
    assert looked == [folder / "a.txt"]
