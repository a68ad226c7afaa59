"""Damaged sessions: told in one line, never made worse by being opened, and repaired."""

from __future__ import annotations

import os
import random
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from saved_sessions import TOKENIZER, load, main_of, save
from store_helpers import MODEL, OTHER, assert_same, full_state, part_of, state_of, turn_of

from nazx_cli.documents.content import dumps, loads
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving import database
from nazx_cli.session.saving.database import key_of_states
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import State

Change = Callable[[sqlite3.Connection], object]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "sessions")
    branches = {"main": full_state(), "side": full_state(50)}
    with store.open("work", create=True) as file:
        file.save(branches, "main", {"/tmp/a.txt"}, MODEL)
    return store


def path_of(store: Store) -> Path:
    return store.folder / "work.nazx"


def change(store: Store, make: Change) -> None:
    with closing(sqlite3.connect(path_of(store))) as file, file:
        make(file)


def sql(statement: str, *values: object) -> Change:
    return lambda file: file.execute(statement, values)


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All that is in the file."""
    with closing(sqlite3.connect(path_of(store))) as file:
        return {
            name: file.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in ("meta", "branches", "turns", "parts")
        }


def set_meta(key: str, value: object) -> Change:
    return sql("REPLACE INTO meta VALUES (?, ?)", key, dumps(value))


def set_state(edit: Callable[[dict[str, object]], object]) -> Change:
    """Change the record of main, as somebody would who signs it too."""

    def make(file: sqlite3.Connection) -> None:
        name = dumps("main")
        (record,) = file.execute("SELECT state FROM branches WHERE name = ?", (name,)).fetchone()
        data = loads(record)
        edit(data)
        file.execute("UPDATE branches SET state = ? WHERE name = ?", (dumps(data), name))
        signed = key_of_states(file.execute("SELECT name, state FROM branches"))
        set_meta("states", signed)(file)

    return make


DAMAGE: dict[str, Change] = {
    "a turn is missing": sql("DELETE FROM turns WHERE rowid = 1"),
    "a document is missing": sql("DELETE FROM parts WHERE rowid = 2"),
    "a branch is missing": sql("DELETE FROM branches WHERE name = ?", dumps("side")),
    "no branch is there": sql("DELETE FROM branches"),
    "another branch is there": sql("UPDATE branches SET name = ? WHERE rowid = 1", dumps("x")),
    "nothing is said of it": sql("DELETE FROM meta"),
    "not when it was saved": sql("DELETE FROM meta WHERE key = 'saved'"),
    "not what its branches are": sql("DELETE FROM meta WHERE key = 'states'"),
    "no model": sql("DELETE FROM meta WHERE key = 'model'"),
    "a model of another type": set_meta("model", ["tiny"]),
    "a model's name of another type": set_meta("model", {**vars(MODEL), "name": 7}),
    "a model with less": set_meta("model", {"name": "tiny"}),
    "a time that is none": set_meta("saved", "yesterday"),
    "a branch that is not there": set_meta("branch", "gone"),
    "a branch of another type": set_meta("branch", ["main"]),
    "watched of another type": set_meta("watched", [1, None]),
    "a number for JSON": sql("UPDATE meta SET value = 7"),
    "text for JSON": sql("UPDATE meta SET value = 'main'"),
    "JSON cut short": sql("UPDATE branches SET state = substr(state, 1, 40)"),
    "JSON without end": sql("UPDATE branches SET state = ?", b"[" * 100_000),
    "a list for a state": sql("UPDATE branches SET state = ?", b"[]"),
    "a number for a turn": sql("UPDATE turns SET turn = 1.5"),
    "a turn cut short": sql("UPDATE turns SET turn = substr(turn, 1, 30)"),
    "another turn": sql("UPDATE turns SET turn = ?", zlib.compress(turn_of(99).record)),
    "ids for text": sql("UPDATE parts SET ids = 'none'"),
    "other ids": sql("UPDATE parts SET ids = ?", zlib.compress(b"\1\0\2\0")),
    "other numbers": sql("UPDATE parts SET tokens = -1"),
    "no vocabulary": sql("UPDATE parts SET vocabulary = ?", zlib.compress(b"{}")),
    "ids of no model": sql(
        "UPDATE parts SET vocabulary = ? WHERE rowid = 1", zlib.compress(b'{"ids":[4000000000]}')
    ),
    "another document's text": sql("UPDATE parts SET document = ?", b'{"name":"x","places":[]}'),
    "a setting of another type": set_state(lambda data: data["settings"].update(ctx="far")),  # type: ignore[attr-defined]
    "a setting out of range": set_state(lambda data: data["settings"].update(max_tokens=0)),  # type: ignore[attr-defined]
    "a history of another type": set_state(lambda data: data["history"].update(left_out=[])),  # type: ignore[attr-defined]
    "a table is missing": sql("DROP TABLE turns"),
    "a column is missing": sql("ALTER TABLE parts RENAME COLUMN ids TO other"),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON turns BEGIN DELETE FROM parts; END"),
    "a view": sql("CREATE VIEW v AS SELECT 1"),
    "no format": sql("PRAGMA user_version = 0"),
    "a format below all": sql("PRAGMA user_version = -3"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line_and_nothing_is_lost_by_opening(store: Store, name: str) -> None:
    change(store, DAMAGE[name])
    if name == "a table is missing":
        before: object = path_of(store).stat().st_size
    else:
        before = rows(store)
    for _ in range(2):
        store.infos()
        with pytest.raises(NazxError, match="session work is damaged: ") as told:
            load(store, "work")
        assert "\n" not in told.value.message and "nazx sessions repair work" in told.value.hint
    with pytest.raises(NazxError, match="damaged"), store.open("work", create=True) as file:
        file.save({"main": State()}, "main", (), MODEL)
    after = path_of(store).stat().st_size if name == "a table is missing" else rows(store)
    assert before == after


@pytest.mark.parametrize("name", DAMAGE)
def test_what_can_be_read_is_repaired_and_the_rest_is_kept_and_told(
    store: Store, name: str
) -> None:
    change(store, DAMAGE[name])
    before = path_of(store).read_bytes()
    done = store.repair("work")
    assert done.kept is not None and done.kept.read_bytes() == before
    assert done.turns + done.documents > 0
    (info,) = store.infos()
    assert info.problem == ""
    with store.open("work", create=False) as file:
        saved = file.load(TOKENIZER, MODEL, force=True)
    assert saved is not None
    turns = {turn for state in saved.branches.values() for turn in state.history.turns}
    assert len(turns) == done.turns
    assert turns <= {turn for seed in (0, 50) for turn in full_state(seed).history.turns} | {
        turn_of(99)
    }
    assert store.repair("work").kept is None


@pytest.mark.parametrize(
    ("name", "turns", "documents"),
    [
        ("a turn is missing", 3, 8),
        ("a document is missing", 4, 7),
        ("a branch is missing", 4, 8),
        ("no branch is there", 4, 8),
        ("nothing is said of it", 4, 8),
        ("a table is missing", 0, 8),
        ("a trigger", 4, 8),
    ],
)
def test_a_repair_loses_no_more_than_the_damage_did(
    store: Store, name: str, turns: int, documents: int
) -> None:
    change(store, DAMAGE[name])
    done = store.repair("work")
    assert (done.turns, done.documents) == (turns, documents)
    assert done.lost or name == "a trigger"


def test_branches_that_are_whole_stay_as_they_were(store: Store) -> None:
    change(store, DAMAGE["a branch is missing"])
    done = store.repair("work")
    saved = load(store, "work")
    assert_same(saved.branches["main"], full_state())
    assert saved.branch == "main" and saved.watched == {"/tmp/a.txt"}
    assert saved.branches["recovered"].history.turns == full_state(50).history.turns
    assert done.lost == ("which turns belong together: some are in the branch recovered",)


def test_a_whole_session_is_left_alone(store: Store) -> None:
    before = path_of(store).read_bytes()
    done = store.repair("work")
    assert (done.kept, done.lost, done.turns) == (None, (), 4)
    assert path_of(store).read_bytes() == before
    assert [path.name for path in store.folder.iterdir()] == ["work.nazx"]


def test_a_repair_refuses_what_it_does_not_know(store: Store, tmp_path: Path) -> None:
    change(store, sql("PRAGMA user_version = 99"))
    with sqlite3.connect(store.folder / "notes.nazx") as file:
        file.execute("CREATE TABLE notes (text)")
    (store.folder / "bad.nazx").write_bytes(random.Random(1).randbytes(50_000))
    (store.folder / "short.nazx").write_bytes(b"hello")
    (store.folder / "folder.nazx").mkdir()
    before = {path: path.read_bytes() for path in store.folder.iterdir() if path.is_file()}
    for name, told in (
        ("work", "newer NazX"),
        ("notes", "is no session"),
        ("bad", "nothing of session bad can be read"),
        ("short", "nothing of session short can be read"),
        ("folder", "is no file"),
    ):
        with pytest.raises(NazxError, match=told):
            store.repair(name)
    with pytest.raises(UsageError, match="no session named none"):
        store.repair("none")
    with store.open("other", create=True) as file:
        file.save({"main": full_state()}, "main", (), MODEL)
        with pytest.raises(UsageError, match="open here already"):
            store.repair("other")
    (store.folder / "other.nazx").unlink()
    assert {p: p.read_bytes() for p in store.folder.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_and_lost_ends_are_repaired_as_far_as_they_can_be(
    store: Store, seed: int
) -> None:
    rng = random.Random(seed)
    whole = path_of(store).read_bytes()
    saved = 0
    for _ in range(12):
        damaged = bytearray(whole)
        if seed % 2:
            del damaged[rng.randrange(len(whole) // 4, len(whole)) :]
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path_of(store).write_bytes(damaged)
        try:
            done = store.repair("work")
        except NazxError:
            assert path_of(store).read_bytes() == damaged
        else:
            saved += 1
            assert load_forced(store)
            if done.kept is not None:
                assert done.kept.read_bytes() == damaged
    assert saved >= 6


def load_forced(store: Store) -> bool:
    with store.open("work", create=False) as file:
        return file.load(TOKENIZER, MODEL, force=True) is not None


def test_a_damaged_header_hides_nothing(store: Store) -> None:
    data = bytearray(path_of(store).read_bytes())
    data[:24] = bytes(24)
    path_of(store).write_bytes(data)
    assert store.repair("work").turns == 4
    assert load(store, "work").branches.keys() == {"main", "side"}


def test_a_journal_that_belongs_elsewhere_does_no_harm_for_good(store: Store) -> None:
    """SQLite plays it back into the file: what was there before is kept."""
    other = Store(store.folder.parent / "elsewhere")
    save(other, "work", full_state(7))
    journal = store.folder / "work.nazx-journal"
    with closing(sqlite3.connect(path_of(other), isolation_level=None)) as file:
        file.execute("PRAGMA cache_size = 1")
        file.execute("BEGIN")
        file.execute("UPDATE parts SET tokens = 1")
        file.execute("UPDATE turns SET turn = zeroblob(100000)")
        left = (other.folder / "work.nazx-journal").read_bytes()
        file.execute("ROLLBACK")
    assert left[:8].hex() == "d9d505f920a163d7"
    before = path_of(store).read_bytes()
    journal.write_bytes(left)
    store.infos()
    kept = database.before(path_of(store))
    assert kept.read_bytes() == before
    try:
        load(store, "work")
    except NazxError:
        assert kept.read_bytes() == before
    else:
        assert not kept.exists()


def test_what_is_no_file_is_told_and_listed(store: Store) -> None:
    (store.folder / "folder.nazx").mkdir()
    os.mkfifo(store.folder / "pipe.nazx")
    (store.folder / "loop.nazx").symlink_to("loop.nazx")
    (store.folder / "zero.nazx").symlink_to("/dev/zero")
    listed = {info.name: info.problem for info in store.infos()}
    assert listed["work"] == ""
    for name in ("folder", "pipe", "zero"):
        assert "is no file" in listed[name]
        with pytest.raises(NazxError, match="is no file"):
            store.open(name, create=True)
    assert store.latest() == "work"


def test_a_lock_that_is_a_link_does_not_empty_what_it_leads_to(store: Store) -> None:
    precious = store.folder.parent / "precious.txt"
    precious.write_text("keep me")
    (store.folder / ".work.lock").symlink_to(precious)
    with pytest.raises(NazxError, match="cannot use"):
        store.open("work", create=False)
    assert precious.read_text() == "keep me"


def test_another_model_s_session_is_not_taken_for_damaged(store: Store) -> None:
    with store.open("work", create=False) as file, pytest.raises(UsageError, match="--force"):
        file.load(TOKENIZER, OTHER)
    assert load(store, "work").branches.keys() == {"main", "side"}


def test_what_is_said_can_be_read_while_the_session_is_open(store: Store) -> None:
    with store.open("work", create=False) as file:
        found = store.read("work")
        assert found.turns == full_state().history.turns
        assert file.load(TOKENIZER, MODEL) is not None
    names = [(each.name, len(each)) for each in full_state().documents]
    assert list(found.documents) == names
    assert (found.model, found.system) == ("tiny", full_state().settings.system)


def test_a_file_of_the_first_format_is_signed_when_it_is_opened(store: Store) -> None:
    change(store, sql("DELETE FROM meta WHERE key = 'states'"))
    change(store, sql("PRAGMA user_version = 1"))
    assert main_of(store, "work").history.turns == full_state().history.turns
    change(store, DAMAGE["a branch is missing"])
    with pytest.raises(NazxError, match="not what was saved"):
        load(store, "work")


def test_a_document_s_tokens_are_this_vocabulary_s(store: Store) -> None:
    state = state_of(part_of("bytes.txt", "some text", bytewise=True))
    low = int(state.documents[0].ids.max())
    save(store, "bytes", state)
    with store.open("bytes", create=False) as file:
        tokenizer = type("Small", (), {"vocab_size": low})()
        with pytest.raises(NazxError, match="tokens that the model does not know"):
            file.load(tokenizer, MODEL)
