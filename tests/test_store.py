"""Sessions on disk: what is saved comes back, and what cannot be is told in a line."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import make_tokenizer, tiny_checkpoint
from reading_helpers import alice_text, small_tokenizer
from store_helpers import (
    MODEL,
    OTHER,
    assert_same,
    encodable,
    full_state,
    part_of,
    python,
    random_text,
    state_of,
    turn_of,
)

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session import database
from nazx_cli.session.packing import pack, unpack
from nazx_cli.session.saved import ModelTag, Saved
from nazx_cli.session.state import State
from nazx_cli.session.store import Store

TOKENIZER = small_tokenizer()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sessions")


def save(store: Store, name: str, state: State) -> None:
    with store.open(name, create=True) as file:
        file.save({"main": state}, "main", (), MODEL)


def load(store: Store, name: str) -> Saved:
    with store.open(name, create=False) as file:
        saved = file.load(TOKENIZER, MODEL)
    assert saved is not None
    return saved


def main_of(store: Store, name: str) -> State:
    return load(store, name).branches["main"]


# What is saved comes back.


@pytest.mark.parametrize("seed", range(5))
def test_every_field_comes_back_as_it_was(store: Store, seed: int) -> None:
    branches = {"main": full_state(seed), "side": full_state(seed + 100), "empty": State()}
    with store.open("work", create=True) as file:
        file.save(branches, "side", {"/tmp/a.txt", "b.txt"}, MODEL)
    saved = load(store, "work")
    assert saved.branch == "side"
    assert saved.watched == {"/tmp/a.txt", "b.txt"}
    assert saved.branches.keys() == branches.keys()
    for name, state in branches.items():
        assert_same(saved.branches[name], state)


def test_branches_share_the_parts_that_they_have_in_common(store: Store) -> None:
    a, b = part_of("a.txt", "one text"), part_of("b.txt", "another")
    with store.open("work", create=True) as file:
        branches = {"main": State((a, b)), "side": State((b, a, a))}
        file.save(branches, "main", (), MODEL)
    saved = load(store, "work").branches
    assert saved["main"].parts[0] is saved["side"].parts[1] is saved["side"].parts[2]
    assert saved["main"].parts[1] is saved["side"].parts[0]


def test_equal_texts_from_two_files_keep_their_own_origin_and_places(store: Store) -> None:
    state = full_state()
    text = state.parts[1].document.text
    twin = part_of("b.pdf", text)
    assert twin.key == state.parts[1].key
    save(store, "work", State((state.parts[1], twin)))
    assert_same(main_of(store, "work"), State((state.parts[1], twin)))


def test_what_no_branch_has_any_more_does_not_come_back(store: Store) -> None:
    with store.open("work", create=True) as file:
        file.save({"main": full_state(1), "side": full_state(2)}, "main", {"x"}, MODEL)
        file.save({"main": full_state(3)}, "main", (), MODEL)
    saved = load(store, "work")
    assert saved.branches.keys() == {"main"}
    assert saved.watched == frozenset()
    assert_same(saved.branches["main"], full_state(3))


def test_a_session_can_be_saved_again_after_it_was_loaded(store: Store) -> None:
    save(store, "work", full_state())
    with store.open("work", create=False) as file:
        saved = file.load(TOKENIZER, MODEL)
        assert saved is not None
        history = saved.branches["main"].history.with_turn(turn_of(9))
        longer = State(saved.branches["main"].parts, history)
        file.save({"main": longer}, "main", (), MODEL)
    assert_same(main_of(store, "work"), State(full_state().parts, history))


def test_a_new_session_has_nothing_to_load_and_leaves_no_file(store: Store) -> None:
    with store.open("work", create=True) as file:
        assert file.load(TOKENIZER, MODEL) is None
        assert file.info.open_by is not None
    assert store.infos() == []
    assert list(store.folder.iterdir()) == []


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
    monkeypatch.setattr("nazx_cli.session.saving._MOST_WASTE", 50_000)
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
        longer = State(full_state().parts, full_state().history.with_turn(turn_of(5)))
        file.save({"main": longer}, "main", (), MODEL)
    assert_same(main_of(store, "work"), longer)


# Another model.


def test_another_model_is_refused_with_the_reason_and_force(store: Store) -> None:
    save(store, "work", full_state())
    config = ModelTag("bigger", MODEL.tokenizer_sha256, "f" * 64)
    with store.open("work", create=False) as file:
        with pytest.raises(UsageError, match=r"saved with tiny; other .*its tokenizer") as refused:
            file.load(TOKENIZER, OTHER)
        assert "-m tiny" in refused.value.hint and "--force" in refused.value.hint
        with pytest.raises(UsageError, match="its configuration differs"):
            file.load(TOKENIZER, config)
        changed = ModelTag("tiny", "f" * 64, "f" * 64)
        with pytest.raises(UsageError, match="before tiny changed"):
            file.load(TOKENIZER, changed)
        saved = file.load(TOKENIZER, config, force=True)
        assert saved is not None
        assert_same(saved.branches["main"], full_state())


def test_the_same_model_by_another_name_is_taken(store: Store) -> None:
    save(store, "work", full_state())
    with store.open("work", create=False) as file:
        moved = ModelTag("/elsewhere", MODEL.tokenizer_sha256, MODEL.config_sha256)
        assert file.load(TOKENIZER, moved) is not None


def test_force_tokenizes_the_documents_again_for_another_tokenizer(store: Store) -> None:
    state = State((part_of("alice.txt", alice_text()[:5000]),), full_state().history)
    save(store, "work", state)
    bytewise = State((part_of("alice.txt", alice_text()[:5000], bytewise=True),), state.history)
    with store.open("work", create=False) as file:
        saved = file.load(make_tokenizer(), OTHER, force=True)
        assert saved is not None
        assert_same(saved.branches["main"], bytewise)
        file.save(saved.branches, "main", (), OTHER)
    with store.open("work", create=False) as file:
        again = file.load(make_tokenizer(), OTHER)
        assert again is not None
        assert_same(again.branches["main"], bytewise)
        with pytest.raises(UsageError, match="saved with other"):
            file.load(TOKENIZER, MODEL)


def test_a_model_is_told_by_its_tokenizer_and_its_configuration(tmp_path: Path) -> None:
    one = ModelTag.of(tiny_checkpoint(tmp_path / "one"), "one")
    same = ModelTag.of(tiny_checkpoint(tmp_path / "same"), "same")
    wider = ModelTag.of(tiny_checkpoint(tmp_path / "wider", window=512), "wider")
    assert one.difference(same) == ""
    assert one.difference(wider) == "its configuration differs"


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
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
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
    assert "move" in refused.value.hint
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
            for part, same in zip(saved.branches["main"].parts, full_state().parts, strict=True):
                assert part.document == same.document
                assert np.array_equal(part.ids, same.ids)
                assert np.array_equal(part.starts, same.starts)
            assert saved.branches["main"].history.turns == full_state().history.turns
    assert told > 20


# Names and lists.


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../evil", "a/b", "a\\b", "/etc/passwd", ".hidden", " a", "a ", "a."),
        *("a\n", "a\0b", "a:b", "~", "con", "NUL.txt", "COM1", "a\x1b[31m", "*", "a?b"),
        *("x" * 101, "漢" * 90),
    ],
)
def test_names_that_could_be_paths_or_worse_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.open(name, create=True)
    with pytest.raises(UsageError):
        store.remove(name)
    assert not store.folder.exists()


@pytest.mark.parametrize(
    "name", ["a", "My Book 2", "v1.2_final-x", "x" * 100, "Bücher", "漢字", "console", "a..b"]
)
def test_ordinary_names_are_taken(store: Store, name: str) -> None:
    save(store, name, full_state())
    assert [info.name for info in store.infos()] == [name]
    assert_same(main_of(store, name), full_state())


def test_a_name_means_the_same_with_its_suffix_and_in_either_normal_form(store: Store) -> None:
    save(store, "Bücher.nazx", full_state())
    assert_same(main_of(store, "Bu\u0308cher"), full_state())


def test_a_session_that_is_not_there_is_told_with_the_nearest(store: Store) -> None:
    with pytest.raises(UsageError, match="no session named work"):
        store.open("work", create=False)
    save(store, "works", full_state())
    with pytest.raises(UsageError) as missing:
        store.open("work", create=False)
    assert missing.value.hint == "did you mean works?"
    assert store.infos()[0].open_by is None


def test_a_list_tells_what_the_sessions_hold_newest_first(store: Store) -> None:
    assert store.infos() == [] and store.latest() is None
    save(store, "old", full_state())
    save(store, "new", State((part_of("a.txt", "some text"),)))
    new, old = store.infos()
    assert (new.name, old.name) == ("new", "old")
    assert (old.model, old.turns, old.documents) == ("tiny", 2, 5)
    assert old.tokens == sum(len(part) for part in full_state().parts)
    assert old.nbytes == (store.folder / "old.nazx").stat().st_size
    assert abs(new.saved - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert store.latest() == "new"
    save(store, "old", full_state())
    assert store.latest() == "old"


def test_fresh_names_are_the_time_and_never_taken(store: Store) -> None:
    first = store.fresh_name()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}", first)
    with store.open(first, create=True):
        assert store.fresh_name() != first
    save(store, first, full_state())
    assert store.fresh_name() != first


def test_new_sessions_of_the_same_minute_get_a_name_each(store: Store) -> None:
    with store.open_fresh() as one, store.open_fresh() as two:
        two.save({"main": full_state()}, "main", (), MODEL)
        with store.open_fresh() as three:
            assert len({one.name, two.name, three.name}) == 3
    assert_same(main_of(store, two.name), full_state())


def test_a_removed_session_is_gone_with_all_its_files(store: Store) -> None:
    save(store, "work", full_state())
    store.remove("work")
    assert list(store.folder.iterdir()) == []
    with pytest.raises(UsageError, match="no session named work"):
        store.remove("work")


def test_a_session_is_saved_under_another_name_and_the_old_one_stays(store: Store) -> None:
    with store.open("work", create=True) as file:
        file.save({"main": full_state()}, "main", {"w"}, MODEL)
        with file.save_as("kept") as copy:
            assert copy.info.name == "kept" and copy.info.turns == 2
            copy.save({"main": full_state(7)}, "main", (), MODEL)
            assert {name for name, _ in store.running()} == {"work", "kept"}
        file.save({"main": full_state(8)}, "main", (), MODEL)
        with pytest.raises(UsageError, match="session named kept already"):
            file.save_as("kept")
    assert_same(main_of(store, "kept"), full_state(7))
    assert_same(main_of(store, "work"), full_state(8))


def test_a_session_not_saved_yet_takes_another_name(store: Store) -> None:
    with store.open("work", create=True) as file, file.save_as("kept") as copy:
        copy.save({"main": full_state()}, "main", (), MODEL)
    assert [info.name for info in store.infos()] == ["kept"]


def test_other_people_cannot_read_a_session(store: Store) -> None:
    save(store, "work", full_state())
    assert (store.folder / "work.nazx").stat().st_mode & 0o077 == 0
    assert store.folder.stat().st_mode & 0o077 == 0


def test_listing_sessions_does_not_load_torch(store: Store) -> None:
    save(store, "work", full_state())
    code = (
        "from pathlib import Path; from nazx_cli.session.store import Store\n"
        "store = Store(Path(sys.argv[1])); print(store.infos()[0].name, store.running())\n"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run(
        python(code, str(store.folder)), capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[:2] == ["work []", "False"]
