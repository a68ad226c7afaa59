"""Extracts, other libraries and perplexity, each against a reference of its own."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import ScriptedModel, make_tokenizer, run_nazx, tiny_checkpoint

from nazx_cli.documents.document import Document
from nazx_cli.engine.language_model import load_model
from nazx_cli.evaluation.contestants.extracts import (
    ExtractContestant,
    PassagesContestant,
    centrality,
    lead,
    lexrank,
)
from nazx_cli.evaluation.contestants.nazx import NazxContestant, Shelf
from nazx_cli.evaluation.contestants.peers import FIRST, PASSAGES, PeerContestant
from nazx_cli.evaluation.perplexity import read_through, summarize
from nazx_cli.evaluation.records import AnswerFile
from nazx_cli.reading.sentences import sentences
from nazx_cli.reading.summaries.extract import DAMPING
from nazx_cli.session.settings import SessionSettings

WORDS = ("king", "queen", "castle", "forest", "wolf", "the", "of", "river", "stone", "mill")


def dense_lexrank(lines: list[str]) -> np.ndarray:
    """The matrix of cosines and its eigenvector, as the paper writes them."""
    counts = [Counter(w for w in line.lower().split() if w not in ("the", "of")) for line in lines]
    vocabulary = sorted({word for each in counts for word in each})
    held = {word: sum(word in each for each in counts) for word in vocabulary}
    x = np.array(
        [[c[w] * (math.log(len(lines) / held[w]) + 1) for w in vocabulary] for c in counts]
    ).reshape(len(lines), -1)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    matrix = x @ x.T
    matrix[norms[:, 0] == 0] = 1
    matrix /= matrix.sum(1, keepdims=True)
    walk = DAMPING / len(lines) + (1 - DAMPING) * matrix
    values, vectors = np.linalg.eig(walk.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    return vector / vector.sum()


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_lexrank_is_the_eigenvector_of_the_dense_matrix(count: int) -> None:
    draw = random.Random(count)
    for _ in range(20):
        lines = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(count)]
        found = centrality(lines)
        assert found.sum() == pytest.approx(1)
        np.testing.assert_allclose(found, dense_lexrank(lines), atol=1e-7)


def test_sentences_end_where_people_end_them() -> None:
    text = 'He ran. "Stop!" she cried. Then\nhe stopped.\n\nA title\n\nThe end'
    assert sentences(text) == [
        "He ran.",
        '"Stop!" she cried.',
        "Then he stopped.",
        "A title",
        "The end",
    ]
    assert sentences("") == [] and sentences(" \n ") == []


def test_extracts_keep_to_their_length_and_take_one_sentence_at_least() -> None:
    text = "The wolf ate. The wolf ran far. A stone lay there. The wolf ran home."
    assert lead(text, 7) == "The wolf ate. The wolf ran far."
    assert lead(text, 1) == "The wolf ate." and lead("", 5) == "" == lexrank("", 5)
    assert len(lexrank(text, 8).split()) <= 8
    assert "stone" not in lexrank(text, 11)
    assert lexrank(text, 1) in sentences(text)


def test_extracts_answer_requests_for_a_summary_alone() -> None:
    contestant = ExtractContestant("lead", 3)
    assert contestant.kinds == {"summary"}
    document = Document("a", "One two three. Four five six.", "text")
    replies = list(contestant.converse([document], ["Plot?", "Again?"]))
    assert [reply.answer for reply in replies] == ["One two three."] * 2


TEXT = "The miller had a red hat. " * 60 + "His son was called Tom. " * 60


def reader(tmp_path: Path, window: int = 1024) -> tuple[NazxContestant, Shelf]:
    lm = ScriptedModel([], window=window)
    shelf = Shelf("scripted", lambda: lm, tmp_path)  # type: ignore[arg-type,return-value]
    return NazxContestant(shelf, SessionSettings(max_tokens=64), {}, "x", answers=False), shelf


def test_passages_themselves_are_an_extract_of_what_is_read(tmp_path: Path) -> None:
    found, _ = reader(tmp_path)
    text = Document("a.txt", TEXT, "text")
    (reply,) = PassagesContestant(found, 20).converse([text], ["Sum up"])
    assert reply.answer and len(reply.answer.split()) <= 20 and reply.passages
    assert set(reply.answer.split()) <= set(TEXT.split())


class Parrot:
    """An engine that says ``text`` and remembers what it was given."""

    name = "parrot"

    def __init__(self, text: str) -> None:
        tokenizer = make_tokenizer()
        self.said = [*tokenizer.encode(text), min(tokenizer.stop_ids)]
        self.prompts: list[str] = []

    def prefill(self, ids: torch.Tensor) -> tuple[None, torch.Tensor]:
        self.prompts.append(make_tokenizer().decode(ids.tolist(), skip_special=False))
        self.left = list(self.said)
        logits = torch.zeros(300)
        logits[self.left.pop(0)] = 1
        return None, logits

    def decode(self, cache: None, token: int, count: int) -> list[int]:
        return [self.left.pop(0) for _ in range(count)]


def test_a_peer_gets_the_passages_that_we_read(tmp_path: Path) -> None:
    found, shelf = reader(tmp_path)
    parrot = Parrot("a hat")
    peer = PeerContestant("parrot", PASSAGES, found, lambda: parrot, 64)
    document = Document("a.txt", TEXT, "text")
    replies = list(peer.converse([document], ["Who is Tom?", "What hat?"]))
    assert [reply.answer for reply in replies] == ["a hat"] * 2
    assert replies[0].finish == "stop" and replies[0].tokens == 5
    for reply, prompt in zip(replies, parrot.prompts, strict=True):
        assert reply.passages == found.find([document], reply_question(prompt)).reads
        assert all(read.text.strip() in prompt for read in reply.passages or ())
    lm = shelf.lm
    assert all(len(lm.tokenizer.encode_markup(p)) <= 1024 - 64 for p in parrot.prompts)


def reply_question(prompt: str) -> str:
    return "What hat?" if "What hat?" in prompt else "Who is Tom?"


def test_a_peer_that_cuts_off_gets_the_first_tokens_and_no_more_than_we_do(tmp_path: Path) -> None:
    found, _ = reader(tmp_path)
    parrot = Parrot("x" * 100)
    peer = PeerContestant("parrot", FIRST, found, lambda: parrot, 64)
    document = Document("a.txt", TEXT, "text")
    (reply,) = peer.converse([document], ["Who is Tom?"])
    (read,) = reply.passages or ()
    assert read.start == 0 and TEXT.startswith(read.text) and 700 < len(read.text) < 960
    assert reply.finish == "length" and reply.tokens == 64
    short = Document("b.txt", "Tom.", "text")
    (reply,) = peer.converse([short], ["Who is Tom?"])
    assert reply.passages and reply.passages[0].text == "Tom."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "model", window=512)


@pytest.mark.parametrize("length", [1, 2, 129, 300])
def test_perplexity_is_that_of_the_losses_one_by_one(folder: Path, length: int) -> None:
    lm = load_model(folder)
    text = TEXT[:700]
    ids = lm.tokenizer.encode(text)
    want: dict[int, list[float]] = {}
    for start in range(0, len(ids) - 1, length):
        piece = ids[start : start + length]
        log = torch.log_softmax(lm.logits(piece).double(), -1)
        for position in range(1, len(piece)):
            low = 0 if position < 128 else 2 ** int(math.log2(position))
            want.setdefault(low, []).append(-float(log[position - 1, piece[position]]))
    with AnswerFile(None) as file:
        stretches = list(read_through("m", "r", lm, [("t", text)], file, length=length))
    ranges = summarize(stretches)
    assert [each.start for each in ranges] == sorted(want)
    for each in ranges:
        losses = want[each.start]
        assert each.tokens == len(losses)
        assert each.perplexity.mean == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_perplexity_of_plain_text_and_of_stories(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(TEXT[:900])
    answers = tmp_path / "answers.jsonl"
    command = ["eval", str(path), "-m", str(folder), "--ctx", "300", "--answers", str(answers)]
    out, err, code = run_nazx(*command)
    assert code == 0, err
    assert "perplexity of 1 text" in out and "256-511" in out
    again, err, _ = run_nazx(*command)
    assert again == out and "3 of the answers were there already" in err
    assert len(answers.read_text().splitlines()) == 3
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"document": TEXT[:400], "summary": "A hat."}))
    out, _, code = run_nazx(
        "eval", str(data), "-m", str(folder), "--perplexity", "--limit", "1", "--json"
    )
    (found,) = json.loads(out)["perplexity"]
    assert code == 0 and found["ranges"][0]["start"] == 0


def test_rivals_have_columns_beside_ours(tmp_path: Path, folder: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"title": "t", "document": TEXT, "summary": "A hat and Tom."}))
    command = ["eval", str(data), "-m", str(folder), "--max-tokens", "3", "--dtype", "float32"]
    for rival in ("lead", "lexrank", "passages", "transformers", "transformers-first"):
        command += ["--against", rival]
    out, err, code = run_nazx(*command)
    assert code == 0, err
    assert "summaries: ROUGE-2" in out and "[6] transformers with the document's first" in out


def test_transformers_says_what_we_say_on_the_same_prompt(tmp_path: Path, folder: Path) -> None:
    data, answers = tmp_path / "data.jsonl", tmp_path / "answers.jsonl"
    questions = [{"question": q, "answers": ["Tom"]} for q in ("Who is the son?", "What hat?")]
    data.write_text(json.dumps({"title": "t", "document": TEXT[:500], "questions": questions}))
    command = ["eval", str(data), "-m", str(folder), "--max-tokens", "12", "--dtype", "float32"]
    command += ["--repeat-penalty", "1", "--against", "transformers", "--answers", str(answers)]
    _, err, code = run_nazx(*command)
    assert code == 0, err
    said = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [line["answer"] for line in said[:2]] == [line["answer"] for line in said[2:]]
    assert all(line["answer"] for line in said)
