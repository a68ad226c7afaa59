"""``nazx serve``: documents and sessions over HTTP, by OpenAI's own client."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ScriptedModel, run_nazx, tiny_checkpoint
from document_bytes import docx_members, epub_members, pdf_bytes, word_paragraph, zip_bytes
from serving_helpers import (
    BOOK,
    MODEL,
    PLAIN,
    Server,
    ask_nazx,
    asked,
    told,
    upload,
)

from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import load_model
from nazx_cli.reading.passages import Passage
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.serving import saved
from nazx_cli.serving.desk import Desk, Served
from nazx_cli.serving.replies import Reply
from nazx_cli.serving.requests import ChatRequest, Manner, chat_request
from nazx_cli.serving.shelf import Held, Shelf, Upload
from nazx_cli.session.parts import Asking
from nazx_cli.session.saving.session_file import ModelTag
from nazx_cli.session.saving.store import Store
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.state import History, Message, State, Turn

openai = pytest.importorskip("openai")

FORMATS = {
    "pdf": pdf_bytes(["The fox bought a lantern."]),
    "epub": zip_bytes(epub_members({"a.xhtml": "<p>The fox bought a lantern.</p>"}, {})),
    "docx": zip_bytes(docx_members(word_paragraph("The fox bought a lantern."))),
    "html": b"<!DOCTYPE html><title>x</title><p>The fox bought a lantern.</p>",
}


# Documents


def test_a_document_comes_in_is_listed_and_goes(server: Server, client: openai.OpenAI) -> None:
    made = client.files.create(file=("../a/book.txt", BOOK.encode()), purpose="user_data")
    assert (made.filename, made.bytes, made.status) == ("book.txt", len(BOOK), "processed")
    assert made.id in [file.id for file in client.files.list()]
    assert client.files.retrieve(made.id).created_at == made.created_at
    again = upload(client, "book.txt", BOOK.encode())
    assert server.metric("documents") == 1 and again != made.id  # held once
    assert server.metric("document_tokens") == len(BOOK)
    assert client.files.delete(made.id).deleted
    assert server.metric("documents") == 1
    client.files.delete(again)
    assert server.metric("documents") == 0
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_an_answer_about_a_document_is_the_one_that_nazx_ask_gives(
    server: Server, client: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    monkeypatch.chdir(tmp_path)
    file = upload(client, "book.txt", BOOK.encode())
    for read, question in (("auto", "What did the heron buy?"), ("tail", "Who?")):
        told = ask_nazx(server, question, "-f", "book.txt", "--read", read)
        own = {"files": [file], "read": read, "sources": True}
        answer = client.chat.completions.create(**asked(question), extra_body={"nazx": own})
        message = answer.choices[0].message
        assert message.content == told["answer"]
        assert message.nazx["sources"] == told["sources"] != []
        assert message.nazx["mode"] == told["mode"]
        cited = message.annotations[0].file_citation
        assert (cited["file_id"], cited["filename"]) == (file, "book.txt")
        assert cited["place"] == "1-3" and "red umbrella" in cited["quote"]
        chunks = client.chat.completions.create(
            **asked(question), extra_body={"nazx": own}, stream=True
        )
        assert list(chunks)[-1].choices[0].delta.annotations[0]["file_citation"] == cited
    own = {"nazx": {"files": [file], "read": "resident"}}
    with pytest.raises(openai.BadRequestError):  # which the model cannot do
        client.chat.completions.create(**asked("Who?"), extra_body=own)
    client.files.delete(file)


@pytest.mark.parametrize("kind", ["pdf", "epub", "docx", "html"])
def test_every_format_that_nazx_reads_comes_in(client: openai.OpenAI, kind: str) -> None:
    made = client.files.create(file=(f"x.{kind}", FORMATS[kind]), purpose="assistants")
    assert made.nazx["format"] == kind and made.nazx["tokens"] > 5
    client.files.delete(made.id)


def test_what_is_no_document_or_too_long_is_refused(server: Server, client: openai.OpenAI) -> None:
    for data in (b"", b"\x00\x01\x02\x03" * 100):
        with pytest.raises(openai.BadRequestError) as refused:
            upload(client, "x.bin", data)
        assert refused.value.param == "file" and "x.bin is" in str(refused.value)
    with pytest.raises(openai.APIStatusError) as refused:
        upload(client, "x.txt", b"word " * 205_000)
    assert refused.value.status_code == 413
    assert server.raw("POST", "/v1/files", b"{}")[0] == 400
    assert server.metric("documents") == 0


def test_a_passage_is_shown_where_it_stands(server: Server, client: openai.OpenAI) -> None:
    text = "".join(f"Line {number}.\n\n" for number in range(400)) + BOOK + "The end.\n"
    file = upload(client, "long.txt", text.encode())
    quote = "The+heron+bought%0Aa red umbrella.".replace(" ", "+")
    place = f"/nazx/files/{file}/passage?first_line=700&quote={quote}"
    status, found = server.raw("GET", place)
    assert status == 200
    assert (found["filename"], found["quote"]) == ("long.txt", "The heron bought a red umbrella.")
    assert (found["begins"], found["ends"]) == (False, True)
    assert "".join(str(found[part]) for part in ("before", "quote", "after")) in text
    assert str(found["before"]).endswith("The fox bought a lantern.\n\n")
    assert found["after"] == "\nThe end.\n"
    second = (
        f"/nazx/files/{file}/passage?first_line=5&quote=Line+"  # of many, the one from there on
    )
    _, found = server.raw("GET", second)
    assert found["before"] == "Line 0.\n\nLine 1.\n\n"
    for wrong, expected in (
        ("first_line=1&quote=The+stork", 404),
        ("first_line=x&quote=The+fox", 400),
        ("first_line=1", 400),
    ):
        status, told = server.raw("GET", f"/nazx/files/{file}/passage?{wrong}")
        assert status == expected and "error" in told
    client.files.delete(file)
    assert server.raw("GET", place)[0] == 404


def test_no_quote_takes_long_to_look_for(server: Server, client: openai.OpenAI) -> None:
    file = upload(client, "long.txt", b"a " * 100_000 + b"b\n\n  c" + b" a" * 50_000)
    passage = f"/nazx/files/{file}/passage?quote="
    begun = time.monotonic()
    assert server.raw("GET", passage + "a+" * 5000 + "d")[0] == 404
    status, found = server.raw("GET", passage + "a+b+c+a")
    assert (status, found["quote"]) == (200, "a b\n\n  c a")
    assert time.monotonic() - begun < 5


def test_what_is_sent_by_somebody_who_left_does_not_stay(tmp_path: Path) -> None:
    shelf = Shelf(load_model(tiny_checkpoint(tmp_path), device="cpu"))
    book = Document("book.txt", BOOK, "text")
    coming = shelf.add(Upload("book.txt", len(BOOK), "user_data", book))
    assert [next(coming)] == list(shelf)
    coming.close()
    assert (list(shelf), shelf.num_documents, shelf.num_tokens) == ([], 0, 0)


# Sessions


def test_a_session_goes_on_in_the_terminal_and_back(server: Server, client: openai.OpenAI) -> None:
    file = upload(client, "book.txt", BOOK.encode())
    own = {"session": "work", "files": [file]}
    client.chat.completions.create(**asked("What did the fox buy?"), extra_body={"nazx": own})
    env = {"NAZX_HOME": str(server.home), **PLAIN}
    ask = ("ask", "--session", "work", "--max-tokens", "24", "--json")
    out, err, code = run_nazx(*ask, "And the heron?", env=env)
    assert code == 0, err
    assert json.loads(out)["sources"][0]["file"] == "book.txt"
    own = {"nazx": {"session": "work"}}
    client.chat.completions.create(**asked("Who else?"), extra_body=own)
    out, _, code = run_nazx("sessions", "show", "work", env=env)
    places = [out.index(q) for q in ("What did the fox buy?", "And the heron?", "Who else?")]
    assert code == 0 and places == sorted(places)
    earlier = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=MODEL, messages=earlier + asked()["messages"], extra_body=own
        )
    client.files.delete(file)


def test_a_session_that_is_open_elsewhere_is_a_409(server: Server, client: openai.OpenAI) -> None:
    with Store(server.home / "sessions").open("mine", create=True):
        with pytest.raises(openai.ConflictError) as refused:
            client.chat.completions.create(**asked(), extra_body={"nazx": {"session": "mine"}})
        assert refused.value.code == "session_open"
    own = {"nazx": {"session": "mine"}}
    assert client.chat.completions.create(**asked(max_tokens=3), extra_body=own).choices


def test_sessions_are_listed_and_told(server: Server, client: openai.OpenAI) -> None:
    file = upload(client, "book.txt", BOOK.encode())
    own = {"session": "told by HTTP", "files": [file]}
    answer = client.chat.completions.create(
        **asked("What did the heron buy?"), extra_body={"nazx": own}
    )
    client.files.delete(file)
    cited = answer.choices[0].message.annotations[0].file_citation
    assert cited["document"] == 1
    (info,) = (each for each in told(server, "/nazx/sessions") if each["name"] == own["session"])
    assert (info["turns"], info["documents"], info["tokens"]) == (1, 1, len(BOOK))
    assert (info["open"], info["damaged"]) == (False, False)
    place = "/nazx/sessions/told%20by%20HTTP"
    status, said = server.raw("GET", place)
    assert status == 200
    assert said["documents"] == [{"number": 1, "filename": "book.txt", "tokens": len(BOOK)}]
    (turn,) = said["turns"]  # type: ignore[misc]
    assert turn["answer"] == answer.choices[0].message.content
    assert turn["question"] == "What did the heron buy?" and not turn["interrupted"]
    assert (turn["confidence"], turn["unsure"]) == (None, False)  # it has no reading adapter
    assert turn["doubt"] == ""
    source = turn["sources"][0]
    assert (source["document"], source["quote"]) == (1, "The heron bought a red umbrella.")
    passage = f"passage?first_line={source['first_line']}&quote=The+heron+bought"
    status, found = server.raw("GET", f"{place}/documents/1/{passage}")
    assert (status, found["quote"], found["after"]) == (
        200,
        "The heron bought",
        " a red umbrella.\n",
    )
    for missing in (f"documents/2/{passage}", f"documents/-1/{passage}", f"documents/x/{passage}"):
        assert server.raw("GET", f"{place}/{missing}")[0] == 404
    for name in ("nobody", "..", "%2e%2e%2fx"):
        for way in ("GET", "DELETE"):
            assert server.raw(way, f"/nazx/sessions/{name}")[0] == 404
    with Store(server.home / "sessions").open("told by HTTP", create=False):
        (info,) = (e for e in told(server, "/nazx/sessions") if e["name"] == own["session"])
        assert info["open"]


def test_what_an_answer_rests_on_is_told_first_though_it_lies_within_another(
    tmp_path: Path,
) -> None:
    sources = [
        Passage("a.txt", first, 9, start, stop, f"words {first}")
        for first, start, stop in ((7, 70, 80), (1, 10, 30), (6, 60, 90))
    ]
    turn = Turn("Who?", Message("user", "Who?"), tuple(sources), "Me.", interrupted=False)
    store, tag = Store(tmp_path), ModelTag("scripted", "0" * 64, "0" * 64)
    with store.open("kept", create=True) as file:
        file.save({"main": State(history=History((turn,)))}, "main", (), tag)
    (found,) = saved.told(store, "kept", ())["turns"]  # type: ignore[arg-type]
    assert [each["first_line"] for each in found["sources"]] == [7, 1, 6]


def test_a_document_is_taken_out_of_a_session(server: Server, client: openai.OpenAI) -> None:
    own: dict[str, object] = {"session": "shrinks"}
    own["files"] = [upload(client, f"{n}.txt", f"{n} {BOOK}".encode()) for n in ("one", "two")]
    client.chat.completions.create(**asked("What did the heron buy?"), extra_body={"nazx": own})
    place = "/nazx/sessions/shrinks"
    for missing in ("documents/0", "documents/3", "documents/x"):
        assert server.raw("DELETE", f"{place}/{missing}")[0] == 404
    for name in ("one.txt", "two.txt"):  # the second one then has its number
        status, gone = server.raw("DELETE", f"{place}/documents/1")
        assert (status, gone["filename"], gone["deleted"]) == (200, name, True)
    _, said = server.raw("GET", place)
    assert said["documents"] == [] and len(said["turns"]) == 1  # type: ignore[arg-type]
    answer = client.chat.completions.create(
        **asked("What did the heron buy?"), extra_body={"nazx": {"session": "shrinks"}}
    )
    assert answer.choices[0].message.annotations == []
    for file in own["files"]:  # type: ignore[attr-defined]
        client.files.delete(file)


def test_a_session_is_deleted_unless_it_is_open_elsewhere(
    server: Server, client: openai.OpenAI
) -> None:
    own = {"nazx": {"session": "goes"}}
    client.chat.completions.create(**asked(max_tokens=3), extra_body=own)
    with Store(server.home / "sessions").open("goes", create=False):
        for path in ("goes", "goes/documents/1"):
            assert server.raw("DELETE", f"/nazx/sessions/{path}")[0] == 409
    assert server.raw("DELETE", "/nazx/sessions/goes") == (200, {"name": "goes", "deleted": True})
    assert "goes" not in [each["name"] for each in told(server, "/nazx/sessions")]
    client.chat.completions.create(**asked(max_tokens=3), extra_body=own)
    _, said = server.raw("GET", "/nazx/sessions/goes")
    assert len(said["turns"]) == 1  # type: ignore[arg-type]


def test_a_session_that_goes_on_is_not_begun_anew(tmp_path: Path) -> None:
    lm = ScriptedModel(["One.", "Two.", "Three."])
    store, tag = Store(tmp_path), ModelTag("scripted", "a", "b")
    served = Served(lm, SessionSettings(), store, tag)  # type: ignore[arg-type]
    desk = Desk(served, lambda prompt, generated: None)

    def ask(name: str) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Who?"}]}
        body |= {"nazx": {"session": name}}
        list(desk.chat(chat_request(json.dumps(body).encode(), MODEL), ()))

    ask("work")
    ask("work")
    assert len(lm.contexts) == 1
    with store.open("work", create=False) as file:  # as another program does
        saved = file.load(lm.tokenizer, tag)
        assert saved is not None
        (state,) = saved.branches.values()
        file.save({saved.branch: replace(state, history=History())}, *saved[1:], tag)
    ask("work")
    assert len(lm.contexts) == 2
    assert [turn.answer for turn in store.read("work").turns] == ["Three."]


def test_the_gauge_tells_memory_and_window(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(**asked(max_tokens=4))
    _, gauge = server.raw("GET", "/nazx/gauge")
    memory, context = gauge["memory"], gauge["context"]
    assert isinstance(memory, dict) and 0 < memory["used"] < memory["limit"]
    assert isinstance(context, dict) and 0 < context["window_used"] <= context["window"]
    assert gauge["queue"] == {"waiting": 0, "running": 0}


def answered(
    tmp_path: Path, said: list[str], *stops: str, can_cite: bool = True
) -> tuple[dict[str, Any], Held]:
    """The message that a model gives, which reads in parts if it can cite, and its document."""
    lm = ScriptedModel(said, can_cite=can_cite)
    text = "The otter eats trout in the river every day of the year.\n\n" * 90
    document = TokenizedDocument.build(Document("a.txt", text, "text"), lm.tokenizer)
    held = Held(document, len(text), "user_data")
    tag = ModelTag("scripted", "0" * 64, "0" * 64)
    served = Served(lm, SessionSettings(), Store(tmp_path), tag)  # type: ignore[arg-type]
    question = ChatRequest(Manner(stops=stops), "What does the otter eat?")
    items = [*Desk(served, lambda prompt, generated: None).chat(question, [held])]
    message: dict[str, Any] = Reply(question, "m").whole(items)["choices"][0]["message"]
    return message, held


def test_an_unsure_answer_is_sent_with_another_and_where_that_stands(tmp_path: Path) -> None:
    told, held = answered(tmp_path, ["[1] Trout.|-1.5", *["[1] Blue frogs.|-2"] * Asking().apart])
    other = told["nazx"]["runner_up"]
    assert (told["content"], other["answer"]) == ("Trout.", "Blue frogs.")
    assert 0 < other["confidence"] <= told["nazx"]["confidence"] < 0.5 and told["nazx"]["unsure"]
    assert told["nazx"]["doubt"] == "a guess"
    assert other["citation"].keys() == told["annotations"][0]["file_citation"].keys()
    assert (other["citation"]["file_id"], other["citation"]["filename"]) == (held.id, "a.txt")


@pytest.mark.parametrize(("said", "likely"), [("It eats trout.", True), ("Beans.", False)])
def test_of_a_model_that_names_no_source_the_likely_one_is_sent(
    tmp_path: Path, said: str, likely: bool
) -> None:
    told, _ = answered(tmp_path, [said], can_cite=False)
    assert (told["nazx"]["likely"], told["nazx"]["confidence"]) == (likely, None)
    cited = [each["file_citation"]["quote"] for each in told["annotations"]]
    sentence = "The otter eats trout in the river every day of the year."
    assert (cited == [sentence]) is likely and sentence in cited[0]


def test_an_answer_that_a_stop_ends_has_the_source_of_the_whole(tmp_path: Path) -> None:
    said = ["[1] Fresh trout.|-0.1", *["[1] Blue frogs.|-2"] * Asking().apart]
    whole, _ = answered(tmp_path / "1", [*said])
    cut, _ = answered(tmp_path / "2", [*said], "trout")
    assert (cut["content"], cut["nazx"]["finish"]) == ("Fresh", "stop")
    assert whole["content"] == "Fresh trout." and cut["nazx"] == whole["nazx"]
    ((one,), (other,)) = (told["annotations"] for told in (whole, cut))
    assert one["file_citation"] | {"file_id": ""} == other["file_citation"] | {"file_id": ""}
