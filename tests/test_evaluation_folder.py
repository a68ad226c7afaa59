"""``nazx eval --given folder``: questions about files among others, whose characters are counted
through all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel, run_nazx, tiny_checkpoint

from nazx_cli.documents.document import Document
from nazx_cli.evaluation.contestants.extracts import ExtractContestant
from nazx_cli.evaluation.contestants.nazx import NazxContestant, Shelf
from nazx_cli.evaluation.data.files import read_data
from nazx_cli.evaluation.data.given import GIVEN
from nazx_cli.session.settings import SessionSettings

PAGE = """<html><head><title>Hats</title></head><body><h1>Red hats</h1><p>The miller had one.</p>
<h2>Blue hats</h2><p>His son had two.</p></body></html>"""
MILL = "The mill stood by the river. " * 40
FORGE = "The smith had a hammer of gold. " * 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions about a page that is a file and about a text that is none; beside the page lies
    another file."""
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "hats.html").write_text(PAGE, encoding="utf-8")
    (pages / "forge.txt").write_text(FORGE, encoding="utf-8")
    records = [
        {"title": "mill", "document": MILL, "questions": [
            {"question": "Where did the mill stand?", "answers": ["by the river"]}]},
        {"file": "pages/hats.html", "sections": [{"id": "son", "lines": [9, 9]}], "questions": [
            {"question": "Who had two?", "answers": ["his son"], "sections": ["son"]}]},
    ]  # fmt: skip
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return file


def test_a_file_is_as_it_was_read_and_right_sections_stand_where_they_say(data: Path) -> None:
    beside = [Document("forge.txt", FORGE, "text")]
    (batch,) = GIVEN["folder"](read_data([data]).stories, "ask", beside)
    assert [each.name for each in batch.documents] == ["mill.txt", "pages/hats.html", "forge.txt"]
    page = batch.documents[1]
    assert page.format == "html" and [place.label for place in page.places][-1] == "Blue hats"
    assert batch.text == MILL + page.text + FORGE
    asked = [each for thread in batch.threads for each in thread]
    assert not asked[0].gold
    ((begin, end),) = asked[1].gold
    assert batch.text[begin:end] == "His son had two."


def test_without_a_question_there_is_no_folder(data: Path) -> None:
    assert not list(GIVEN["folder"]([], "ask", [Document("forge.txt", FORGE, "text")]))


def test_what_is_read_stands_where_it_says_through_all_files(tmp_path: Path) -> None:
    documents = tuple(
        Document(name, text, "text")
        for name, text in (("a", MILL), ("b", "Tom."), ("c", FORGE), ("a", "A second a. " * 9))
    )
    lm = ScriptedModel(["gold"] * 3)
    shelf = Shelf("scripted", lambda: lm, tmp_path)  # type: ignore[arg-type,return-value]
    contestant = NazxContestant(shelf, SessionSettings(read="recall"), {}, "scripted")
    whole = "".join(document.text for document in documents)
    questions = ["What hammer had the smith?", "Where did the mill stand?", "Is there a second a?"]
    found = [reply.passages or () for reply in contestant.converse(documents, questions)]
    for reads in found:
        assert reads and all(whole[each.start : each.stop] == each.text for each in reads)
    assert any("hammer" in each.text and each.start >= len(MILL + "Tom.") for each in found[0])
    last = [each for each in found[2] if each.start >= len(MILL + "Tom." + FORGE)]
    assert last and all("second" in each.text for each in last)


def test_an_extract_is_of_all_files() -> None:
    documents = [Document("a", "One two three.", "text"), Document("b", "Four five.", "text")]
    (reply,) = ExtractContestant("lead", 9).converse(documents, ["Plot?"])
    assert reply.answer == "One two three. Four five."


def test_the_command_asks_about_a_file_among_others(tmp_path: Path, data: Path) -> None:
    model = str(tiny_checkpoint(tmp_path / "model"))
    answers = tmp_path / "answers.jsonl"
    command = ["eval", str(data), "-m", model, "--given", "folder", "--retrieval"]
    command += ["--beside", str(tmp_path / "pages"), "--answers", str(answers)]
    out, err, code = run_nazx(*command)
    assert code == 0, err
    assert "all stories as files of a folder" in out
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    page = next(line for line in lines if line["question"] == "Who had two?")
    whole = MILL + read_data([data]).stories[1].source.text + FORGE  # type: ignore[union-attr]
    for read in page["passages"]:
        assert whole[read["start"] : read["stop"]] == read["text"]
    assert sum("His son had two." in read["text"] for read in page["passages"]) == 1


def test_what_lies_beside_wants_a_folder(tmp_path: Path, data: Path) -> None:
    model = str(tiny_checkpoint(tmp_path / "model"))
    for arguments, word, expected in (
        (["--beside", str(tmp_path)], "add --given folder", 2),
        (["--given", "folder", "--beside", str(tmp_path / "gone")], "there is no file", 1),
    ):
        out, err, code = run_nazx("eval", str(data), "-m", model, *arguments)
        assert code == expected and not out and word in err and len(err.strip().splitlines()) == 1
