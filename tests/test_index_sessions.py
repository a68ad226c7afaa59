"""Sessions about documents of the index: saved by where these lie, and gone on with."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint, write_birds
from reading_helpers import small_tokenizer
from saved_sessions import load, main_of, save
from store_helpers import MODEL

from nazx_cli.documents.document import Document
from nazx_cli.documents.gather import listed
from nazx_cli.errors import NazxError
from nazx_cli.index import finding, room
from nazx_cli.index.segment import Segment
from nazx_cli.index.shelf import Index, is_indexed
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import History, Message, State, Turn

SHORT = ("--max-tokens", "8")
TOKENIZER = small_tokenizer()
TURN = Turn("Who?", Message("user", "Who?"), (), "The crane.", interrupted=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return write_birds(tmp_path / "birds")


def sources(out: str) -> list[str]:
    return [Path(each["file"]).name for each in json.loads(out)["sources"]]


def test_a_session_about_the_index_goes_on_without_reading_again(model: str, birds: Path) -> None:
    always = ("-m", model, "-f", str(birds), "--index", "always", "--session", "birds")
    _, err, code = nazx("chat", *always, *SHORT, stdin="Where did the heron stand?\n")
    assert code == 0 and "not saved" not in err
    (birds / "heron.txt").rename(birds / "gone.txt")  # it is not looked for
    _, err, code = nazx("chat", "--resume", *SHORT, stdin="And the crane?\n")
    assert code == 0 and "in the index" not in err, err
    out, err, code = nazx(
        *("ask", "--session", "birds", "--json", *SHORT, "Where did the heron stand?")
    )
    assert code == 0 and "heron.txt" in sources(out), err
    (listing,) = json.loads(nazx("sessions", "--json")[0])
    assert (listing["documents"], listing["turns"]) == (3, 3)


def test_a_session_goes_on_where_all_of_home_has_moved(
    model: str, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HOME", str(tmp_path / "old"))
    always = ("-m", model, "-f", str(birds), "--index", "always", "--session", "birds")
    assert nazx("ask", *always, *SHORT, "Where did the heron stand?")[2] == 0
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setenv("NAZX_HOME", str(tmp_path / "new"))
    question = ("--session", "birds", "--json", *SHORT, "Where did the heron stand?")
    out, err, code = nazx("ask", *question)
    assert code == 0 and "in the index" not in err and "heron.txt" in sources(out), err
    (tmp_path / "new" / "index").rename(tmp_path / "lost")
    _, err, code = nazx("ask", *question)
    assert code == 0 and "index" in err  # told, and left out


def test_what_a_model_attends_to_is_added_in_memory(birds: Path, tmp_path: Path) -> None:
    attends = str(tiny_checkpoint(tmp_path / "attends", kind="inattention"))
    assert nazx("ask", "-m", attends, "--session", "resident", *SHORT, "Who?")[2] == 0
    more = ("-f", str(birds), "--index", "always", "--session", "resident")
    _, err, code = nazx("ask", *more, *SHORT, "Who?")
    assert code == 0 and "index" not in err, err
    (listing,) = json.loads(nazx("sessions", "--json")[0])
    assert (listing["documents"], listing["turns"]) == (3, 2)


def test_what_the_index_has_no_longer_is_told_and_left_out(model: str, birds: Path) -> None:
    always = ("-m", model, "-f", str(birds), "--index", "always", "--session", "birds")
    assert nazx("ask", *always, *SHORT, "Where did the heron stand?")[2] == 0
    assert nazx("index", "clear", "--yes")[2] == 0
    before = nazx("sessions", "show", "birds")[0]
    assert "Where did the heron stand?" in before and "heron.txt" in before
    _, err, code = nazx("chat", "--session", "birds", *SHORT, stdin="")
    told = "note: not in the index any more, so left out: "
    assert code == 0 and err.count(told) == 1 and "heron.txt" in err
    assert nazx("sessions", "show", "birds")[0] == before  # opening it has lost nothing
    _, err, code = nazx("ask", *always, "--json", *SHORT, "Where did the stork stand?")
    assert code == 0 and told in err
    out, err, code = nazx("ask", "--session", "birds", "--json", *SHORT, "And where is the crane?")
    assert code == 0 and told not in err and "crane.txt" in sources(out)


def mixed(folder: Path, rng: random.Random) -> list[TokenizedDocument]:
    """Some documents in memory and some in the index in ``folder``."""
    found: list[TokenizedDocument] = []
    for number in range(rng.randint(1, 4)):
        text = " ".join(rng.choice(["crane", "heron", "ähre", "鳥", "x"]) for _ in range(90))
        if rng.random() < 0.5:
            found.append(TokenizedDocument.build(Document(f"m{number}", text, "text"), TOKENIZER))
            continue
        path = folder / f"i{number}.txt"
        path.write_text(text, encoding="utf-8")
        index = Index(folder / "index", 10**9, "always")
        found.extend(index.take_in(listed([str(path)]), TOKENIZER).documents)
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_a_mixed_session_comes_back_as_it_was(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    documents = mixed(tmp_path, rng)
    state = State(tuple(documents), History((TURN,)))
    store = Store(tmp_path / "sessions")
    save(store, "a", state)
    back = load(store, "a").branches["main"]
    assert back.history == state.history and len(back.documents) == len(documents)
    for old, new in zip(documents, back.documents, strict=True):
        assert is_indexed((old,)) == is_indexed((new,))
        assert (old.name, old.text, old.content_key) == (new.name, new.text, new.content_key)
        assert old.ids.tolist() == new.ids.tolist() and len(old) == len(new)
    save(store, "a", back)
    save(store, "b", back)
    number = rng.randrange(len(documents))
    shown = store.document("b", number + 1)
    assert shown is not None and shown.text == documents[number].text
    assert [n for n, _ in store.read("b").documents] == [d.name for d in documents]
    if (tmp_path / "index").exists():
        room.clear(tmp_path / "index")
    with store.open("b", create=False) as file:
        found = file.load(TOKENIZER, MODEL)
        assert found is not None
        left = [d for d in documents if not is_indexed((d,))]
        assert [d.name for d in found.branches["main"].documents] == [d.name for d in left]
        assert sorted(file.gone.values()) == sorted(d.name for d in documents if is_indexed((d,)))
    if is_indexed((documents[number],)):
        assert store.document("b", number + 1) is None


def indexed_session(tmp_path: Path) -> Store:
    path = tmp_path / "crane.txt"
    path.write_text("The crane stood. " * 30, encoding="utf-8")
    index = Index(tmp_path / "index", 10**9, "always")
    documents = index.take_in(listed([str(path)]), TOKENIZER).documents
    store = Store(tmp_path / "sessions")
    save(store, "a", State(documents))
    return store


def test_a_session_holds_no_text_of_the_index(tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    assert b"crane stood" not in (store.folder / "a.nazx").read_bytes()
    (info,) = store.infos()
    assert (info.documents, info.problem) == (1, "") and info.tokens > 60


@pytest.mark.parametrize(
    "header",
    [
        b'{"name": "crane.txt", "index": 3, "origin": null}',
        b'{"name": "crane.txt", "index": "/", "origin": {"path": "x"}}',
        b'{"index": "/nowhere"}',
        b'{"name": "other.txt", "format": "text", "places": [], "index": "/nowhere", "origin":'
        b' {"path": "/crane.txt", "sha256": "aa", "size": 1, "mtime_ns": 1}}',
    ],
)
def test_a_broken_note_is_told_as_damage(header: bytes, tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    with sqlite3.connect(store.folder / "a.nazx") as database:
        database.execute("UPDATE parts SET document = ?", (header,))
    database.close()
    with pytest.raises(NazxError, match="damaged"):
        load(store, "a")


def test_what_is_noted_is_held_to_what_was_saved(tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    with sqlite3.connect(store.folder / "a.nazx") as database:
        database.execute(
            "UPDATE parts SET document = CAST(replace(document, 'crane', 'stork') AS BLOB)"
        )
    database.close()
    with pytest.raises(NazxError, match=r"damaged.*is not what was saved"):
        load(store, "a")


def test_many_documents_are_found_with_one_look_into_their_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / f"crane{number}.txt").write_text(f"The crane stood {number}.")
    index = Index(tmp_path / "index", 10**9, "always")
    documents = index.take_in(listed([str(tmp_path / "*.txt")]), TOKENIZER).documents
    store = Store(tmp_path / "sessions")
    save(store, "a", State(documents))
    opened: list[Path] = []
    real = finding._catalogue
    monkeypatch.setattr(finding, "_catalogue", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(finding, "Segment", lambda path: opened.append(path) or Segment(path))
    assert len(load(store, "a").branches["main"].documents) == 30
    assert sorted(path.suffix for path in opened) == [".db", ".safetensors"]
    opened.clear()
    with sqlite3.connect(store.folder / "a.nazx") as database:
        database.execute("DELETE FROM branches")
    database.close()
    repaired = store.repair("a")
    assert repaired.documents == 30 and not [each for each in repaired.lost if "document" in each]
    assert len([path for path in opened if path.suffix == ".safetensors"]) == 1
    back = load(store, "a").branches["main"].documents
    assert {each.text for each in back} == {each.text for each in documents}


def test_a_repair_tells_what_the_index_has_no_longer(tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    save(store, "a", replace(main_of(store, "a"), history=History((TURN,))))
    with sqlite3.connect(store.folder / "a.nazx") as database:
        database.execute("DELETE FROM branches")
    database.close()
    room.clear(tmp_path / "index")
    found = store.repair("a")
    assert (found.turns, found.documents) == (1, 0)
    assert f"the document {tmp_path / 'crane.txt'}, which the index has no longer" in found.lost


def test_a_transaction_that_was_begun_in_the_catalogue_hides_nothing(tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    (path,) = (tmp_path / "index").glob("*/catalogue.db")
    killed = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
database.executemany("INSERT INTO files VALUES (?, 1, 1, 1, 1, 'x')", [(n,) for n in range(9999)])
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", killed, str(path)], check=True)
    assert path.with_name("catalogue.db-journal").stat().st_size
    assert len(load(store, "a").branches["main"].documents) == 1


def test_an_index_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = indexed_session(tmp_path)
    (path,) = (tmp_path / "index").glob("*/catalogue.db")
    monkeypatch.setattr(finding, "PATIENCE", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NazxError, match=r"index cannot be read.*locked"):
            load(store, "a")

    def fails(path: Path) -> Segment:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(finding, "Segment", fails)
        with pytest.raises(NazxError, match=r"index cannot be read.*Permission denied"):
            load(store, "a")
    assert len(load(store, "a").branches["main"].documents) == 1


@pytest.mark.parametrize("harm", ["catalogue", "segment", "other"])
def test_a_damaged_index_has_it_no_longer(harm: str, tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    (database,) = (tmp_path / "index").glob("*/catalogue.db")
    (segment,) = (tmp_path / "index").glob("*/*.safetensors")
    if harm == "catalogue":
        database.write_bytes(b"no database at all")
    elif harm == "segment":
        segment.write_bytes(segment.read_bytes()[:40])
    else:
        with sqlite3.connect(database) as catalogue:
            catalogue.execute("UPDATE contents SET number = 7")
        catalogue.close()
    assert load(store, "a").branches["main"].documents == ()


def test_another_tokenizer_finds_nothing(tmp_path: Path) -> None:
    store = indexed_session(tmp_path)
    other = small_tokenizer(600)
    assert other.key != TOKENIZER.key
    with store.open("a", create=False) as file:
        found = file.load(other, MODEL)
        assert found is not None and [*file.gone.values()] == [str(tmp_path / "crane.txt")]
