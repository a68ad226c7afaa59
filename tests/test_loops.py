"""Answers that go round in circles: told from lists, songs, tables and code, and cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from cli_helpers import ScriptedModel, make_tokenizer
from models import model
from reading_helpers import alice_text, small_tokenizer

from nazx_cli.context.context import Context
from nazx_cli.documents.document import Document
from nazx_cli.engine.generator import Step, generate
from nazx_cli.engine.lookup import LogitsAhead
from nazx_cli.engine.loops import Repeats
from nazx_cli.engine.sampling import Sampling
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Answer, Finding
from nazx_cli.session.session import Session
from nazx_cli.session.settings import SessionSettings

NAMES = ("Ann", "Bob", "Cy", "Dee", "Eve", "Flo", "Gus", "Hal", "Ida", "Jo", "Kit", "Lou", "Max")
GIFTS = [f"{n} {gift} dancing" for n, gift in enumerate(("owls", "hens", "mice", "cats", "pigs"))]
CHORUS = (
    "Row, row, row your boat\nGently down the stream\nMerrily, merrily, merrily\nLife is a dream"
)
PARAGRAPH = (
    "The book is about a man who lives in a wood. He is kind. In the end he finds a home.\n\n"
)
GOOD = {
    "list": "\n".join(f"{n}. The house of {name} is red." for n, name in enumerate(NAMES, 1)),
    "table": "| Name | Age | Member |\n|---|---|---|\n"
    + "".join(f"| {name} | 12 | Yes |\n" for name in NAMES),
    "song": "\n\n".join(f"{name} rose at dawn\nand went away\n{CHORUS}" for name in NAMES),
    "growing song": "\n".join(
        f"On day {n} of the feast my true love sent to me\n" + "\n".join(GIFTS[n::-1])
        for n in range(5)
    ),
    "chorus twice": f"{CHORUS}\n{CHORUS}\nThat was the song.",
    "code": "\n".join(f"    assert square({n}) == {n * n}\n    assert done" for n in range(40)),
    "signs": "".join(
        f">>> def area(width, height): return width {sign} height\nSyntaxError: that is none\n"
        for sign in ("++ +", "*", "/", "%", "**", "//", "^", "<<", ">>", "&")
    ),
    "numbers": "\n".join(" ".join("1" if i == j else "0" for j in range(10)) for i in range(10)),
    "digits": "3.14159265358979323846264338327950288419716939937510582097494459",
    "book": alice_text()[:20_000],
}
BAD = {
    "paragraph": PARAGRAPH,
    "sentence": "He was a good man. ",
    "phrase": "and the king ",
    "word": "very ",
    "unspaced": "王様は森へ行きました。女王は家にいました。",
    "two in turn": "The king is old. The queen is young. ",
}


def follow(text: str) -> tuple[Repeats, str]:
    """What comes of ``text``, token by token, and the part of it that was looked at."""
    repeats, stream, seen = Repeats(), small_tokenizer().stream(), ""
    for token in small_tokenizer().encode(text):
        seen += stream.push(token)
        repeats.push(token, seen)
        if repeats.is_loop:
            break
    return repeats, seen


@pytest.mark.parametrize("kind", GOOD)
def test_what_has_something_new_between_its_repeats_is_no_loop(kind: str) -> None:
    repeats, seen = follow(GOOD[kind])
    assert not repeats.is_loop
    assert seen == GOOD[kind]


@pytest.mark.parametrize("kind", BAD)
def test_a_loop_ends_after_a_few_copies_and_keeps_the_first(kind: str) -> None:
    before = "Once upon a time. "
    repeats, seen = follow(before + BAD[kind] * 200)
    assert repeats.is_loop
    assert len(seen) < 500
    assert len(before) <= repeats.begin < len(before) + len(BAD[kind]) + 40


@pytest.mark.parametrize("character", ["龘", "ॐ", "🧜"])
def test_no_part_of_a_character_is_kept(character: str) -> None:
    text = "Here it is: " + character * 200
    repeats, seen = follow(text)
    assert repeats.is_loop
    kept = small_tokenizer().encode(text)[: repeats.kept]
    assert small_tokenizer().decode(kept) == seen[: repeats.begin].rstrip("\ufffd")
    assert "\ufffd" not in small_tokenizer().decode(kept)


def test_items_that_differ_by_their_number_alone_are_a_loop() -> None:
    repeats, seen = follow("\n".join(f"{n}. The man loves his son." for n in range(1, 99)))
    assert repeats.is_loop
    assert seen[: repeats.begin].strip() == "1. The man loves his son."


def test_what_is_held_back_comes_when_something_new_follows() -> None:
    repeats, seen = follow(PARAGRAPH + PARAGRAPH)
    assert seen[: repeats.begin].strip() == PARAGRAPH.strip()
    text = PARAGRAPH + PARAGRAPH + "But the wolf"
    repeats, _ = follow(text)
    assert repeats.begin == len(text)


def saying(text: str) -> LogitsAhead:
    """Logits of a model that says ``text``, a byte a token."""
    ids = iter(make_tokenizer().encode(text))

    def logits(_: Context, drafts: Sequence[int]) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(ids)]), 300).float()

    return logits


def answer(text: str, context: Context, max_tokens: int) -> list[Step]:
    sampling, stops = Sampling(), frozenset[int]()
    return list(generate(saying(text), make_tokenizer(), context, max_tokens, sampling, stops))


@pytest.mark.parametrize("kind", ("windowed", "inattention", "full"))
def test_a_loop_is_cut_from_text_and_context(kind: str) -> None:
    context = model("llama", kind).new_context()
    context.append([5, 6, 7])
    steps = answer(PARAGRAPH * 9, context, 900)
    assert steps[-1].finish == "loop"
    assert len(steps) < 3.5 * len(PARAGRAPH)
    assert "".join(step.delta for step in steps) == steps[-1].text
    assert steps[-1].text.strip() == PARAGRAPH.strip()
    assert context.ids.tolist() == [5, 6, 7, *make_tokenizer().encode(steps[-1].text)]
    assert model("llama", kind).next_logits(context).isfinite().all()


@pytest.mark.parametrize("kind", ("chorus twice", "song"))
def test_all_of_a_text_with_refrains_is_shown(kind: str) -> None:
    text = GOOD[kind][:600]
    context = model("llama", "windowed").new_context()
    steps = answer(text, context, len(make_tokenizer().encode(text)))
    assert steps[-1].finish == "length"
    assert "".join(step.delta for step in steps) == steps[-1].text == text


class CirclingModel(ScriptedModel):
    """Says each of its answers by the engine, over and over."""

    def generate(self, ctx: Context, *, max_tokens: int, **more: Any) -> Iterator[Step]:
        self.prompts.append(self.tokenizer.decode(ctx.live_ids))
        said, sampling = saying(self.answers.pop(0) * 99), Sampling()
        return generate(said, self.tokenizer, ctx, max_tokens, sampling, frozenset())


def test_what_is_said_of_each_part_of_the_documents_is_cut_too() -> None:
    lm = CirclingModel(["He is kind. "] * 60, window=1200)
    tale = "\n\n".join(f"{name} met the man. " + "It rained all day. " * 20 for name in NAMES)
    library = Library.build([Document("tale.txt", tale, "text")], lm.tokenizer)
    settings = SessionSettings(max_tokens=300, read="all")
    events = list(Session(lm, library, settings).ask("How is the man?"))  # type: ignore[arg-type]
    findings = [event.text for event in events if isinstance(event, Finding)]
    assert len(findings) > 3
    assert set(findings) == {"He is kind."}
    assert lm.prompts[-1].count("He is kind.") == 1
    assert isinstance(events[-1], Answer)
    assert (events[-1].text, events[-1].finish) == ("He is kind.", "loop")
