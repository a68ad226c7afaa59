"""``nazx eval`` and its runner: answers that are kept, runs that go on, what a person sees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ScriptedModel, run_nazx, tiny_checkpoint

from nazx_cli.cli.judge.runs import _Teller
from nazx_cli.cli.judge.table import show
from nazx_cli.documents.document import Document
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.evaluation.contestants.base import Reply, fingerprint, model_identity
from nazx_cli.evaluation.contestants.extracts import PassagesContestant
from nazx_cli.evaluation.contestants.nazx import NazxContestant, Shelf
from nazx_cli.evaluation.contestants.peers import PASSAGES, PeerContestant
from nazx_cli.evaluation.data.stories import Question, Section, Story
from nazx_cli.evaluation.records import AnswerFile, Record
from nazx_cli.evaluation.report import make_report, rows
from nazx_cli.evaluation.runner import Progress, Run, evaluate
from nazx_cli.session.citation import Quotation
from nazx_cli.session.events import Answer
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings
from nazx_cli.ui.terminal.screen import Screen

TEXT = "The miller had a red hat. " * 12 + "His son was called Tom. " * 12


def story(number: int, count: int = 2, *, chat: bool = False) -> Story:
    questions = tuple(
        Question(f"Question {j}?", ("red hat",), sections=("1",)) for j in range(count)
    )
    return Story(f"story {number}", (Section("1", f"{number} {TEXT}"),), questions, chat)


@dataclass
class Echo:
    """A contestant that says what it is told to and counts what it is asked; ``stop`` ends it
    like Ctrl-C after so many answers."""

    label: str = "echo"
    identity: Mapping[str, Any] = field(default_factory=lambda: {"model": "echo"})
    kinds: frozenset[str] = frozenset({"answer"})
    stop: int | None = None
    says: str = "a red hat"
    asked: list[str] = field(default_factory=list)

    def converse(self, documents: Sequence[Document], questions: Sequence[str]) -> Iterator[Reply]:
        for question in questions:
            if len(self.asked) == self.stop:
                raise KeyboardInterrupt
            self.asked.append(f"{documents[0].name} {question}")
            yield Reply(self.says, seconds=0.5)


def run_of(contestant: Echo, given: str = "story", turns: str = "auto") -> Run:
    return Run(contestant, given, turns, contestant.label)


def ask(contestant: Echo, path: Path | None, stories: Sequence[Story]) -> list[Record]:
    with AnswerFile(path) as file:
        return [record for _, record in evaluate([run_of(contestant)], stories, file)]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path, stories = tmp_path / "answers.jsonl", [story(1), story(2), story(3)]
    first = Echo(stop=3)
    with pytest.raises(KeyboardInterrupt):
        ask(first, path, stories)
    assert len(path.read_text().splitlines()) == 3
    second = Echo()
    records = ask(second, path, stories)
    assert len(records) == 6 and len(second.asked) == 3
    assert set(first.asked) & set(second.asked) == set()
    third = Echo()
    assert ask(third, path, stories) == records and third.asked == []


def test_a_line_cut_off_by_a_kill_is_dropped_and_answered_anew(tmp_path: Path) -> None:
    path, stories = tmp_path / "answers.jsonl", [story(1)]
    whole = ask(Echo(), path, stories)
    data = path.read_bytes()
    for cut in (len(data) - 1, len(data) - 40, data.index(b"\n") + 5):
        path.write_bytes(data[:cut])
        again = Echo()
        assert ask(again, path, stories) == whole and len(again.asked) == 1
        assert path.read_bytes() == data


def test_other_settings_models_documents_and_turns_before_are_other_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    ask(Echo(), path, [story(1)])
    other = Echo(identity={"model": "other"})
    ask(other, path, [story(1)])
    assert len(other.asked) == 2
    moved = Echo()
    ask(moved, path, [story(9)])
    assert len(moved.asked) == 2
    talk = Echo()
    with AnswerFile(path) as file:
        list(evaluate([run_of(talk, turns="chat")], [story(1)], file))
    assert len(talk.asked) == 2, "the second turn follows another one"
    again = Echo()
    with AnswerFile(path) as file:
        list(evaluate([run_of(again, turns="chat")], [story(1)], file))
    assert again.asked == []


def test_references_corrected_since_are_the_ones_that_count(tmp_path: Path) -> None:
    path, before = tmp_path / "answers.jsonl", story(1, 1)
    ask(Echo(), path, [before])
    corrected = Story(
        before.title, before.sections, (Question("Question 0?", ("a blue hat",), sections=("1",)),)
    )
    (record,) = ask(Echo(stop=0), path, [corrected])
    assert record.references == ("a blue hat",)


@pytest.mark.parametrize("content", ['{"question": "Who?"}\n', "some text", "[]\n"])
def test_a_file_of_something_else_is_never_added_to(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError):
        AnswerFile(path)
    assert path.read_text() == content


def test_a_file_that_cannot_be_written_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(NazxError):
        AnswerFile(tmp_path / "none" / "answers.jsonl")


def test_progress_counts_questions_and_those_found(tmp_path: Path) -> None:
    path, told = tmp_path / "answers.jsonl", list[Progress]()
    ask(Echo(), path, [story(1)])
    with AnswerFile(path) as file:
        list(evaluate([run_of(Echo())], [story(1), story(2)], file, told.append))
    assert (told[0].done, told[0].total) == (0, 4)
    assert (told[-1].done, told[-1].total, told[-1].found) == (4, 4, 2)
    assert [p.done for p in told] == sorted(p.done for p in told)


def test_differences_are_paired_by_question(tmp_path: Path) -> None:
    stories = [story(i) for i in range(4)]
    good, bad = Echo(), Echo("bad", {"model": "bad"}, says="blue")
    with AnswerFile(None) as file:
        answered = list(evaluate([run_of(bad), run_of(good)], stories, file))
    first, second = make_report(answered)
    assert first.differences == {} and first.figures["f1"].mean == 0
    assert second.differences["f1"].mean == second.figures["f1"].mean == 1
    assert second.differences["f1"].low is None, "all alike: no interval"
    assert second.differences["f1"].questions == 8
    names = [measure.name for measure in rows((first, second))]
    assert "f1" in names and "failed" not in names and "cited" not in names


def shelf_of(lm: ScriptedModel, folder: Path) -> Shelf:
    return Shelf("scripted", lambda: lm, folder)  # type: ignore[arg-type,return-value]


def test_each_question_is_asked_in_a_conversation_of_its_own(tmp_path: Path) -> None:
    lm = ScriptedModel(["one", "two", "three"])
    contestant = NazxContestant(shelf_of(lm, tmp_path), SessionSettings(), {}, "scripted")
    document = Document("a.txt", TEXT, "text")
    (first,) = contestant.converse((document,), ["Who is Tom?"])
    (second,) = contestant.converse((document,), ["What hat?"])
    assert [first.answer, second.answer] == ["one", "two"]
    assert "Who is Tom" not in lm.prompts[1]
    replies = list(NazxContestant(shelf_of(lm, tmp_path), SessionSettings(), {}, "x").converse(
        (document,), ["Who is Tom?"]
    ))  # fmt: skip
    assert replies[0].answer == "three" and replies[0].passages
    for read in replies[0].passages or ():
        assert TEXT[read.start : read.stop] == read.text


def test_turns_of_a_chat_know_those_before(tmp_path: Path) -> None:
    lm = ScriptedModel(["one", "two"], window=8192)
    contestant = NazxContestant(shelf_of(lm, tmp_path), SessionSettings(), {}, "scripted")
    replies = list(contestant.converse([Document("a.txt", TEXT, "text")], ["Who is Tom?", "Why?"]))
    assert [reply.answer for reply in replies] == ["one", "two"]
    assert "Who is Tom?" in lm.prompts[1] and "one" in lm.prompts[1]


def test_retrieval_alone_reads_and_says_nothing(tmp_path: Path) -> None:
    lm = ScriptedModel([])
    contestant = NazxContestant(
        shelf_of(lm, tmp_path), SessionSettings(), {}, "scripted", answers=False
    )
    for _ in range(2):
        (reply,) = contestant.converse([Document("a.txt", TEXT, "text")], ["Who is Tom?"])
        assert reply.answer is None and reply.passages and lm.prompts == []


def test_a_question_that_does_not_fit_counts_as_not_answered(tmp_path: Path) -> None:
    lm = ScriptedModel([], window=256)
    contestant = NazxContestant(shelf_of(lm, tmp_path), SessionSettings(), {}, "scripted")
    (reply,) = contestant.converse([Document("a.txt", TEXT, "text")], ["Who? " * 200])
    assert reply.answer == "" and "tokens" in reply.error


def test_adapters_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    lm = ScriptedModel(["One."])
    folder = tiny_checkpoint(tmp_path / "model")
    seen = set()
    for name, weights in (("", b""), ("one", b"1"), ("other", b"2")):
        adapter = tmp_path / "adapters" / name
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(weights)
        adapters = [adapter] if name else []
        shelf = Shelf("scripted", lambda: lm, folder, adapters)  # type: ignore[arg-type,return-value]
        reader = NazxContestant(shelf, SessionSettings(), {}, "scripted")
        passages = PassagesContestant(reader, 30)
        peer = PeerContestant("peer", PASSAGES, reader, lambda: pytest.fail("asked"), 30)
        seen |= {fingerprint(each.identity) for each in (reader, passages, peer)}
    assert len(seen) == 9


def test_checkpoints_are_told_apart_by_what_is_in_their_weights(tmp_path: Path) -> None:
    names = []
    for at in range(2):
        folder = tiny_checkpoint(tmp_path / str(at))
        if at:
            weights = folder / "model.safetensors"
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)
        names.append(model_identity(folder))
    assert names[0] != names[1] == model_identity(tmp_path / "1")


def test_citation_and_confidence_of_an_answer_are_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Session.ask

    def ask_cited(self: Session, question: str) -> Iterator[Any]:
        for event in real(self, question):
            if isinstance(event, Answer):
                quotations = (Quotation(event.sources[-1], "a red hat"),)
                event = replace(event, quotations=quotations, confidence=0.75)
            yield event

    monkeypatch.setattr(Session, "ask", ask_cited)
    lm = ScriptedModel(["a red hat", "blue"])
    contestant = NazxContestant(shelf_of(lm, tmp_path), SessionSettings(), {}, "scripted")
    run = Run(contestant, "story", "ask", "scripted")
    with AnswerFile(None) as file:
        answered = list(evaluate([run], [story(1)], file))
    text = f"1 {TEXT}"
    for _, record in answered:
        assert record.cites and record.cited is not None and record.confidence == 0.75
        assert text[record.cited.start : record.cited.stop] == record.cited.text
    (column,) = make_report(answered)
    assert column.figures["cited"].mean == column.figures["citation_holds"].mean == 1
    assert column.calibration is not None and column.calibration.error == pytest.approx(0.25)
    out = StringIO()
    show([column], Screen(out, StringIO()))
    assert "citations: passage holds the answer" in out.getvalue()
    assert "0.7-0.8" in out.getvalue() and "calibration error 0.250" in out.getvalue()


DATA = {
    "title": "the miller",
    "sections": [{"id": "1", "text": TEXT}, {"id": "2", "text": "Nothing else. " * 20}],
    "questions": [
        {"question": "What hat?", "answers": ["red"], "sections": ["1"], "tags": {"type": "a"}},
        {"question": "Who is Tom?", "answers": ["his son"], "sections": ["1"]},
        {"question": "How old is he?", "unanswerable": True},
    ],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [DATA, {**DATA, "title": "another"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tiny_checkpoint(tmp_path / "model"))


def test_a_table_with_a_column_for_each_way(tmp_path: Path, data: Path, model: str) -> None:
    answers = tmp_path / "answers.jsonl"
    command = ["eval", str(data), "-m", model, "--given", "section", "--given", "book"]
    command += ["--max-tokens", "4", "--answers", str(answers), "--dtype", "float32"]
    out, err, code = run_nazx(*command)
    assert code == 0, err
    assert "6 questions from 2 documents" in out
    assert "right section given" in out and "all stories in one book" in out
    assert "answers: token F1" in out and "difference to [1]" in out
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == 12
    assert {"question", "references", "answer", "passages", "cited", "seconds"} <= lines[0].keys()
    again, err, code = run_nazx(*command)
    assert code == 0 and again == out and "12 of the answers were there already" in err
    assert len(answers.read_text().splitlines()) == 12


def test_json_and_tags(data: Path, model: str) -> None:
    command = ["eval", str(data), "-m", model, "--retrieval", "--limit", "4", "--json"]
    out, _, code = run_nazx(*command, "--by", "type", "--turns", "ask", "--given", "book")
    found = json.loads(out)
    assert code == 0 and found["complete"] is True
    (run,) = found["runs"]
    assert run["questions"] == 4 and "f1" not in run["figures"]
    figure = run["figures"]["held"]
    assert 0 <= figure["mean"] <= 1 and {"low", "high", "documents"} <= figure.keys()
    assert set(run["groups"]) <= {"a", "(none)"}


def test_mistakes_are_told_in_a_line(tmp_path: Path, data: Path) -> None:
    empty = tmp_path / "none.jsonl"
    empty.write_text(json.dumps({**DATA, "questions": []}))
    for arguments, word in (
        ([str(empty)], "no question"),
        ([str(tmp_path / "missing")], "cannot read"),
        ([str(data), "-m", str(tmp_path / "nothing")], "next:"),
    ):
        out, err, code = run_nazx("eval", *arguments)
        assert code and not out and word in err and len(err.strip().splitlines()) == 1


def test_a_missing_rouge_library_is_told_with_what_to_type(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nazx_cli.evaluation.words.find_spec", lambda name: None)
    _, err, code = run_nazx("eval", str(data))
    assert code == 1 and "pip install 'nazx[eval]'" in err


def test_ctrl_c_shows_what_is_done(
    tmp_path: Path, data: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = Session.ask, [0]

    def ask_twice(self: Session, question: str) -> Any:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return real(self, question)

    monkeypatch.setattr(Session, "ask", ask_twice)
    answers = tmp_path / "answers.jsonl"
    out, err, code = run_nazx(
        "eval", str(data), "-m", model, "--max-tokens", "2", "--answers", str(answers)
    )
    assert code == 130 and "2 questions from 1 document" in out
    assert "goes on from" in err and len(answers.read_text().splitlines()) == 2


def test_a_device_is_no_file_for_answers() -> None:
    with pytest.raises(UsageError, match="/dev/zero is no file"):
        AnswerFile(Path("/dev/zero"))


def test_a_disk_that_is_full_is_told_once_and_not_again_when_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Any:
        return open("/dev/full", "ab")  # noqa: PTH123

    monkeypatch.setattr("nazx_cli.evaluation.records._open", full)
    with (
        pytest.raises(NazxError, match=r"cannot keep answers in .*No space left"),
        AnswerFile(tmp_path / "answers.jsonl") as file,
    ):
        file.add([{"run": "a", "item": "b"}])


def test_the_time_left_leaves_out_what_the_first_answer_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, told = [0.0], StringIO()
    monkeypatch.setattr("nazx_cli.cli.judge.runs.time.monotonic", lambda: at[0])
    with AnswerFile(None) as file, _Teller(Screen(StringIO(), told), file) as teller:
        for done in range(4):  # three hundred seconds of loading, then twenty an answer
            at[0] = 300.0 + 20 * done if done else 0.0
            teller.update(Progress(done, 10, 0, "x"))
    assert "1 of 10 (x)" in told.getvalue()
    assert "3 of 10, about 2 min left (x)" in told.getvalue()
