"""Sessions on disk: what is saved comes back, for which model, and under which name."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cli_helpers import make_tokenizer, tiny_checkpoint
from reading_helpers import alice_text
from saved_sessions import TOKENIZER, load, main_of, save
from store_helpers import (
    MODEL,
    OTHER,
    assert_same,
    full_state,
    part_of,
    python,
    turn_of,
)

from nazx_cli.errors import UsageError
from nazx_cli.session.saving.session_file import ModelTag
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import State


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sessions")


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
    assert saved["main"].documents[0] is saved["side"].documents[1] is saved["side"].documents[2]
    assert saved["main"].documents[1] is saved["side"].documents[0]


def test_equal_texts_from_two_files_keep_their_own_origin_and_places(store: Store) -> None:
    state = full_state()
    text = state.documents[1].document.text
    twin = part_of("b.pdf", text)
    assert twin.key == state.documents[1].key
    save(store, "work", State((state.documents[1], twin)))
    assert_same(main_of(store, "work"), State((state.documents[1], twin)))


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
        longer = State(saved.branches["main"].documents, history)
        file.save({"main": longer}, "main", (), MODEL)
    assert_same(main_of(store, "work"), State(full_state().documents, history))


def test_a_new_session_has_nothing_to_load_and_leaves_no_file(store: Store) -> None:
    with store.open("work", create=True) as file:
        assert file.load(TOKENIZER, MODEL) is None
        assert [name for name, _ in store.running()] == ["work"] and file.model == ""
    assert store.infos() == []
    assert list(store.folder.iterdir()) == []


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
    assert old.tokens == sum(len(part) for part in full_state().documents)
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
            assert copy.name == "kept" and copy.model == "tiny"
            assert {info.name: info.turns for info in store.infos()} == {"work": 2, "kept": 2}
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
        "from pathlib import Path; from nazx_cli.session.saving.store import Store\n"
        "store = Store(Path(sys.argv[1])); print(store.infos()[0].name, store.running())\n"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run(
        python(code, str(store.folder)), capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[:2] == ["work []", "False"]
