"""A session's file: packed small, written only where new, migrated, and damage is told."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from reading_helpers import alice_text
from saved_sessions import load, main_of, save
from store_helpers import (
    MODEL,
    assert_same,
    encodable,
    full_state,
    part_of,
    random_text,
    state_of,
    turn_of,
)

from nazx_cli.errors import NazxError
from nazx_cli.session.saving import database
from nazx_cli.session.saving.packed import pack, unpack
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import State


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sessions")


# Packing.


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_a_packed_document_comes_back_exactly(seed: int, bytewise: bool) -> None:
    part = part_of("a", encodable(random_text(seed, 1500)), bytewise=bytewise)
    text, ids, starts = unpack(pack(part.document.text, part.ids, part.starts))
    assert text == part.document.text
    assert np.array_equal(ids, part.ids)
    assert np.array_equal(starts, part.starts)


@pytest.mark.parametrize("seed", range(60))
def test_any_ids_and_starts_come_back_whatever_the_tokenizer_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = random_text(seed, 300)
    count = int(rng.integers(0, 200))
    ids = rng.integers(0, [3, 70_000, 1_000_000][seed % 3], count)
    starts = rng.integers(0, len(text), count)
    if seed % 4:
        starts.sort()
    packed = pack(text, ids.astype(np.int32), starts.astype(np.int32))
    back, same_ids, same_starts = unpack(packed)
    assert back == text
    assert same_ids.tolist() == ids.tolist()
    assert same_starts.tolist() == starts.tolist()


def test_prose_is_packed_without_its_text() -> None:
    part = part_of("alice.txt", alice_text())
    packed = pack(part.document.text, part.ids, part.starts)
    assert packed.text is None and packed.starts is None
    assert packed.nbytes < 2 * len(part)


def test_a_vocabulary_beyond_two_bytes_is_packed_and_unpacked() -> None:
    ids = np.arange(70_000, dtype=np.int32)[::-1].copy()
    text = "".join(chr(0x4E00 + n % 5000) for n in range(70_000))
    back, same, starts = unpack(pack(text, ids, np.arange(70_000, dtype=np.int32)))
    assert back == text
    assert np.array_equal(same, ids)
    assert np.array_equal(starts, np.arange(70_000))


# Only what is new is written, and what is unused goes.


def test_a_save_after_a_turn_writes_only_the_turn(store: Store) -> None:
    part = part_of("alice.txt", alice_text())
    with store.open("work", create=True) as file:
        state = State((part,))
        file.save({"main": state}, "main", (), MODEL)
        size = file.path.stat().st_size
        with sqlite3.connect(file.path) as other:
            before = other.execute("SELECT rowid, key FROM parts").fetchall()
        state = State((part,), state.history.with_turn(turn_of(1)))
        file.save({"main": state}, "main", (), MODEL)
        with sqlite3.connect(file.path) as other:
            assert other.execute("SELECT rowid, key FROM parts").fetchall() == before
            assert other.execute("SELECT count(*) FROM turns").fetchone() == (1,)
        assert file.path.stat().st_size - size < 20_000 < size


def test_closing_removes_what_no_branch_has_and_gives_its_space_back(store: Store) -> None:
    with store.open("work", create=True) as file:
        file.save({"main": State((part_of("alice.txt", alice_text()),))}, "main", (), MODEL)
        small = state_of(part_of("b.txt", "little"), turns=1)
        file.save({"main": small}, "main", (), MODEL)
        before = file.path.stat().st_size
    assert file.path.stat().st_size < before / 2
    assert_same(main_of(store, "work"), small)


def test_much_that_is_unused_does_not_wait_for_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nazx_cli.session.saving.records._MOST_WASTE", 50_000)
    with store.open("work", create=True) as file:
        sizes = []
        for number in range(6):
            part = part_of("alice.txt", f"{number} {alice_text()[:60_000]}")
            file.save({"main": State((part,))}, "main", (), MODEL)
            sizes.append(file.path.stat().st_size)
        assert sizes[-1] <= 3.5 * sizes[0]


def test_a_file_deleted_meanwhile_is_written_again_whole(store: Store) -> None:
    with store.open("work", create=True) as file:
        file.save({"main": full_state()}, "main", (), MODEL)
        file.path.unlink()
        longer = State(full_state().documents, full_state().history.with_turn(turn_of(5)))
        file.save({"main": longer}, "main", (), MODEL)
    assert_same(main_of(store, "work"), longer)


# Versions of the format.


def test_a_file_of_a_newer_format_is_refused_and_left_alone(store: Store) -> None:
    save(store, "work", full_state())
    path = store.folder / "work.nazx"
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(NazxError, match=r"newer NazX \(format 99") as refused:
        store.open("work", create=False)
    assert "upgrade" in refused.value.hint
    assert "newer NazX" in store.infos()[0].problem
    assert path.read_bytes() == before


def _add_column(file: sqlite3.Connection) -> None:
    file.execute("ALTER TABLE turns ADD COLUMN mood TEXT")


def _fail(file: sqlite3.Connection) -> None:
    file.execute("DROP TABLE turns")
    raise RuntimeError("no power")


def test_an_older_file_is_migrated_and_keeps_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, "work", full_state())
    later = [*database.MIGRATIONS, _add_column]
    monkeypatch.setattr(database, "MIGRATIONS", later)
    assert_same(main_of(store, "work"), full_state())
    with sqlite3.connect(store.folder / "work.nazx") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(later),)
        assert file.execute("SELECT count(mood) FROM turns").fetchone() == (0,)


def test_a_migration_that_fails_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, "work", full_state())
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", [*database.MIGRATIONS, _add_column, _fail])
        with pytest.raises(RuntimeError):
            store.open("work", create=False)
    assert_same(main_of(store, "work"), full_state())


# Damage.


def test_garbage_is_told_and_listed(store: Store) -> None:
    save(store, "good", full_state())
    (store.folder / "bad.nazx").write_bytes(random.Random(1).randbytes(50_000))
    (store.folder / "blank.nazx").write_bytes(b"")
    with pytest.raises(NazxError, match="session bad is damaged") as refused:
        store.open("bad", create=True)
    assert "nazx sessions repair bad" in refused.value.hint
    listed = {info.name: info for info in store.infos()}
    assert listed.keys() == {"good", "bad"}
    assert "damaged" in listed["bad"].problem and not listed["good"].problem
    assert listed["bad"].nbytes == 50_000
    assert store.latest() == "good"
    assert store.running() == []


def test_another_programs_database_is_left_alone(store: Store) -> None:
    store.folder.mkdir()
    with sqlite3.connect(store.folder / "notes.nazx") as file:
        file.execute("CREATE TABLE notes (text)")
    with pytest.raises(NazxError, match="is no session of NazX"):
        store.open("notes", create=True)
    assert "no session of NazX" in store.infos()[0].problem


def test_a_truncated_file_is_an_error_in_one_line_or_whole(store: Store) -> None:
    save(store, "work", full_state())
    path = store.folder / "work.nazx"
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(NazxError, match="work is damaged") as told:
            load(store, "work")
        assert "\n" not in told.value.message
        store.infos()


def test_a_flipped_bit_is_noticed_or_does_not_matter(store: Store) -> None:
    save(store, "work", full_state())
    path = store.folder / "work.nazx"
    whole = path.read_bytes()
    rng = random.Random(3)
    told = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        store.infos()
        try:
            saved = load(store, "work")
        except NazxError:
            told += 1
        else:
            for part, same in zip(
                saved.branches["main"].documents, full_state().documents, strict=True
            ):
                assert part.document == same.document
                assert np.array_equal(part.ids, same.ids)
                assert np.array_equal(part.starts, same.starts)
            assert saved.branches["main"].history.turns == full_state().history.turns
    assert told > 20
