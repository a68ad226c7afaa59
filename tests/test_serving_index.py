"""``nazx serve`` about documents of the index on disk, by OpenAI's own client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import run_nazx, tiny_checkpoint
from serving_helpers import PLAIN, Server, ask_nazx, asked, running, told, upload

from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import load_model
from nazx_cli.index import shelf as index_shelf
from nazx_cli.index.shelf import Index
from nazx_cli.serving.app import Service
from nazx_cli.serving.desk import Served
from nazx_cli.serving.errors import ApiError
from nazx_cli.serving.shelf import Held, Shelf
from nazx_cli.session.saving.session_file import ModelTag
from nazx_cli.session.saving.store import Store
from nazx_cli.session.settings import SessionSettings

openai = pytest.importorskip("openai")

BIRDS = [f"bird{number:02}" for number in range(23)]
QUESTION = "Where did the bird17 stand?"


def text_of(name: str) -> str:
    return f"The {name} stood in the reeds.\n\nIt was a {name} of great age.\n\n" * 8


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("birds")
    for name in BIRDS:
        (folder / f"{name}.txt").write_text(text_of(name))
    return str(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, birds: str) -> Iterator[Server]:
    options = ("--file", birds, "--index", "always", "--max-tokens", "24")
    with running(tmp_path_factory.mktemp("serving"), *options) as found:
        yield found


def sources(answer: Any) -> dict[str, dict[str, Any]]:
    """What an answer rests on, by the names of files without folder and ending."""
    found = [each.file_citation for each in answer.choices[0].message.annotations]
    return {Path(each["filename"]).stem: each for each in found}


def test_answer_sources_and_passage_are_those_of_nazx_ask(
    server: Server, client: openai.OpenAI, birds: str
) -> None:
    said = ask_nazx(server, QUESTION, "-f", birds, "--index", "never")
    own = {"nazx": {"sources": True}}
    answer = client.chat.completions.create(**asked(QUESTION), extra_body=own)
    message = answer.choices[0].message
    assert (message.content, message.nazx["sources"]) == (said["answer"], said["sources"])
    source = sources(answer)["bird17"]
    assert source["document"] == 18 and source["filename"] == f"{birds}/bird17.txt"
    asking = f"passage?first_line={source['first_line']}&quote=The+bird17+stood"
    status, found = server.raw("GET", f"/nazx/files/{source['file_id']}/{asking}")
    assert (status, found["quote"], found["begins"]) == (200, "The bird17 stood", True)
    with pytest.raises(openai.BadRequestError, match="resident"):
        own = {"nazx": {"read": "resident"}}
        client.chat.completions.create(**asked(QUESTION), extra_body=own)


def test_documents_are_listed_page_by_page(
    server: Server, client: openai.OpenAI, birds: str
) -> None:
    names = [f"{birds}/{name}.txt" for name in BIRDS]
    found = list(client.files.list(limit=7, order="asc"))  # which asks for page after page
    assert [file.filename for file in found] == names
    assert [file.bytes for file in found] == [len(text_of(name)) for name in BIRDS]
    assert all(
        file.nazx == {"tokens": file.bytes, "format": "text", "indexed": True} for file in found
    )
    assert [file.filename for file in client.files.list()] == names[::-1]
    page = client.files.list(limit=4, order="asc", after=found[3].id, purpose="nazx")
    assert [file.id for file in page.data] == [file.id for file in found[4:8]] and page.has_more
    assert page.nazx == {"total": 23}
    assert client.files.list(purpose="user_data").data == []
    for wrong, status in (("limit=0", 400), ("limit=x", 400), ("order=up", 400), ("after=x", 404)):
        assert server.raw("GET", f"/v1/files?{wrong}")[0] == status
    assert server.metric("documents") == 23
    assert server.metric("document_tokens") == sum(len(text_of(name)) for name in BIRDS)


def test_a_session_keeps_what_was_said_and_the_server_the_documents(
    server: Server, client: openai.OpenAI
) -> None:
    own = {"nazx": {"session": "birds"}}
    answer = client.chat.completions.create(**asked(QUESTION), extra_body=own)
    source = sources(answer)["bird17"]
    assert source["document"] is None and source["file_id"]
    (info,) = told(server, "/nazx/sessions")
    assert (info["documents"], info["turns"]) == (0, 1)
    _, said = server.raw("GET", "/nazx/sessions/birds")
    told_again = said["turns"][0]["sources"]  # type: ignore[index]
    assert source["file_id"] in [each["file_id"] for each in told_again]
    assert all(each["document"] is None for each in told_again)
    _, err, code = run_nazx(
        *("ask", "--session", "birds", "--max-tokens", "8", "And the fox?"),
        env={"NAZX_HOME": str(server.home), **PLAIN},
    )
    assert code == 0, err
    answer = client.chat.completions.create(**asked("Where was the bird03?"), extra_body=own)
    assert "bird03" in sources(answer)
    own["nazx"]["files"] = []  # type: ignore[assignment]
    answer = client.chat.completions.create(**asked(QUESTION), extra_body=own)
    assert all(
        each.file_citation["document"] is None for each in answer.choices[0].message.annotations
    )
    _, said = server.raw("GET", "/nazx/sessions/birds")
    assert len(said["turns"]) == 4  # type: ignore[arg-type]
    assert server.raw("DELETE", "/nazx/sessions/birds/documents/1")[0] == 404


def test_what_is_sent_is_read_beside_them(server: Server, client: openai.OpenAI) -> None:
    file = upload(client, "fox.txt", b"The fox bought a lantern.\n")
    assert client.files.retrieve(file).nazx["indexed"]
    again = upload(client, "fox.txt", b"The fox bought a lantern.\n")
    assert server.metric("documents") == 24  # held once
    question = asked("Where did the bird17 stand, and what did the fox buy?")
    for files, names in ((["nazx", file], {"bird17", "fox"}), ([file], {"fox"})):
        own = {"nazx": {"files": files}}
        found = sources(client.chat.completions.create(**question, extra_body=own))
        assert names <= set(found) and (len(files) > 1 or names == set(found))
    with pytest.raises(openai.BadRequestError) as refused:
        upload(client, "x.bin", b"\x00\x01\x02\x03" * 100)
    assert refused.value.code == "invalid_file" and "x.bin is" in str(refused.value)
    for each in (file, again):
        client.files.delete(each)
    assert server.metric("documents") == 23


def test_a_session_keeps_what_was_sent_into_the_index(
    server: Server, client: openai.OpenAI
) -> None:
    file = upload(client, "owl.txt", text_of("owl").encode())
    own = {"nazx": {"files": ["nazx", file], "session": "owls"}}
    question = asked("Where did the owl stand, and where the bird17?")
    for session in ("dropped", "owls"):
        own["nazx"]["session"] = session
        source = sources(client.chat.completions.create(**question, extra_body=own))
        assert source["owl"]["document"] == 1 and source["bird17"]["document"] is None
        if session == "dropped":  # of what the session holds, not of what it answered from
            assert server.raw("DELETE", "/nazx/sessions/dropped/documents/1")[0] == 200
            assert server.raw("GET", "/nazx/sessions/dropped")[1]["documents"] == []  # type: ignore[index]
    client.files.delete(file)
    own["nazx"]["files"] = []
    source = sources(client.chat.completions.create(**question, extra_body=own))
    assert set(source) == {"owl"} and source["owl"]["document"] == 1
    _, said = server.raw("GET", "/nazx/sessions/owls")
    assert [each["filename"] for each in said["documents"]] == ["owl.txt"]  # type: ignore[index]
    path = "/nazx/sessions/owls/documents/1"
    status, shown = server.raw("GET", f"{path}/passage?first_line=3&quote=It+was")
    assert status == 200 and "owl of great age" in json.dumps(shown)
    out, err, code = run_nazx(
        *("ask", "--session", "owls", "--json", "--max-tokens", "8", "And the owl?"),
        env={"NAZX_HOME": str(server.home), **PLAIN},
    )
    assert code == 0 and "owl.txt" in out, err
    assert server.raw("DELETE", path)[0] == 200
    assert server.raw("GET", "/nazx/sessions/owls")[1]["documents"] == []  # type: ignore[index]


def test_a_session_of_the_terminal_about_the_same_folder_goes_on_here(
    server: Server, client: openai.OpenAI, birds: str
) -> None:
    ask_nazx(server, QUESTION, "-f", birds, "--index", "always", "--session", "terminal")
    own = {"nazx": {"files": [], "session": "terminal"}}
    found = sources(client.chat.completions.create(**asked(QUESTION), extra_body=own))
    assert found["bird17"]["document"] == 18
    assert server.raw("DELETE", "/nazx/sessions/terminal/documents/1")[0] == 200
    said = ask_nazx(server, QUESTION, "--session", "terminal")
    assert f"{birds}/bird17.txt" in [each["file"] for each in said["sources"]]  # type: ignore[attr-defined]
    _, shown = server.raw("GET", "/nazx/sessions/terminal")
    assert (len(shown["documents"]), len(shown["turns"])) == (22, 3)  # type: ignore[arg-type]


def test_what_the_index_has_no_longer_is_told_and_numbers_stay_as_listed(
    tmp_path: Path,
) -> None:
    for name in ("owl", "fox", "elk"):
        (tmp_path / f"{name}.txt").write_text(text_of(name))
    with running(tmp_path / "serving", "--max-tokens", "8") as server:
        client = server.client()
        for name, how in (("owl", "always"), ("fox", "never"), ("elk", "never")):
            for session in ("asked", "dropped"):
                file = str(tmp_path / f"{name}.txt")
                ask_nazx(server, "Who?", "-f", file, "--index", how, "--session", session)
        env = {"NAZX_HOME": str(server.home), **PLAIN}
        assert run_nazx("index", "clear", "--yes", env=env)[2] == 0

        def listed(session: str) -> list[str]:
            _, shown = server.raw("GET", f"/nazx/sessions/{session}")
            return [Path(each["filename"]).stem for each in shown["documents"]]  # type: ignore[attr-defined]

        assert listed("dropped") == ["owl", "fox", "elk"]
        _, dropped = server.raw("DELETE", "/nazx/sessions/dropped/documents/2")
        assert "fox.txt" in json.dumps(dropped) and listed("dropped") == ["elk"]
        for notices in (1, 0):  # it is told once: the session is saved without it then
            own = {"nazx": {"files": [], "session": "asked"}}
            question = asked("Where did the elk stand?")
            answer = client.chat.completions.create(**question, extra_body=own)
            told_of = [
                each for each in answer.choices[0].message.nazx["notices"] if "index" in each
            ]
            assert len(told_of) == notices and all("owl.txt" in each for each in told_of)
            assert sources(answer)["elk"]["document"] == 2
        assert listed("asked") == ["fox", "elk"]


def test_what_is_removed_is_not_read_any_more(server: Server, client: openai.OpenAI) -> None:
    before = sources(client.chat.completions.create(**asked(QUESTION)))
    client.files.delete(before["bird17"]["file_id"])
    assert "bird17" not in sources(client.chat.completions.create(**asked(QUESTION)))
    assert server.metric("documents") == 22


def test_only_what_lies_in_memory_with_much_else_goes_into_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_shelf, "INDEX_FROM", 1_000)
    lm = load_model(tiny_checkpoint(tmp_path / "tiny"), device="cpu")
    shelf = Shelf(lm, index=Index(tmp_path / "index", 10**9))

    def add(name: str, nbytes: int) -> Held:
        data = (f"{name} " * nbytes)[:nbytes].encode()
        upload = shelf.receive(f"{name}.txt", io.BytesIO(data), nbytes, "user_data")
        assert isinstance(upload.content, Document) == (nbytes < 700)
        (held,) = shelf.add(upload)
        return held

    assert not add("one", 600).is_indexed
    assert add("two", 700).is_indexed
    assert not add("three", 300).is_indexed  # beside 600 in memory
    assert [held.document.name for held in shelf] == ["one.txt", "two.txt", "three.txt"]
    assert shelf.num_tokens == 1_600
    with pytest.raises(ApiError, match="is empty"):
        list(shelf.add(shelf.receive("e.txt", io.BytesIO(b" " * 900), 900, "user_data")))


def test_what_a_model_attends_to_as_a_whole_stays_in_memory(tmp_path: Path) -> None:
    lm = load_model(tiny_checkpoint(tmp_path / "tiny", kind="inattention"), device="cpu")
    index, tag = Index(tmp_path / "index", 10**9, "always"), ModelTag("tiny", "a", "b")
    served = Served(lm, SessionSettings(), Store(tmp_path), tag, index=index)
    shelf = Service(served, on_fault=lambda error: None).shelf
    (held,) = shelf.add(shelf.receive("x.txt", io.BytesIO(b"word " * 9), 45, "user_data"))
    assert not held.is_indexed
