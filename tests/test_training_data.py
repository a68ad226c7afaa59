"""What is trained on: the session's own prompts, passages that recall gives, right citations."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_helpers import make_tokenizer

from nazx_cli.errors import DocumentError, UsageError
from nazx_cli.evaluation.data.stories import SUMMARY, Question, Section, Story
from nazx_cli.reading.plan import groups
from nazx_cli.session.citation import NOT_SAID, parse
from nazx_cli.session.parts import Asking
from nazx_cli.session.prompt import user_message
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render
from nazx_cli.training.packing import Pack
from nazx_cli.training.tuning.asking import (
    Asker,
    end_of_answer,
    first_sentences,
    sentence,
    with_pronoun,
)
from nazx_cli.training.tuning.books import Book, books, found, split_held
from nazx_cli.training.tuning.data import HELD_TOKENS, Source, held_stories, make_packs

TOKENIZER = make_tokenizer()
THINGS = ("lantern", "violin", "compass", "kettle", "mirror", "ladder", "anchor", "basket")
PLACES = ("harbour", "orchard", "tower", "cellar", "chapel", "bridge", "forest", "market")
FILLER = "Nobody in the village spoke of it, and the evening went by as evenings do there. "


def story(number: int) -> Story:
    """A story of eight sections, each with a thing at a place, and a question to each."""
    sections, questions = [], []
    for at, (thing, place) in enumerate(zip(THINGS, PLACES, strict=True)):
        name = f"{thing}{number}"
        text = f"{FILLER * 2}The princess found the {name} in the old {place}. {FILLER * 2}"
        sections.append(Section(str(at), text))
        questions.append(
            Question(
                f"Where did the princess find the {name}?",
                (f"in the old {place}",),
                sections=(str(at),),
                evidence=f"The princess found the {name} in the old {place}.",
            )
        )
    questions.append(Question("Who ate the moon?", (), sections=("3",)))
    questions.append(Question("Summarize.", (FILLER * 3,), SUMMARY))
    return Story(f"Story {number}", tuple(sections), tuple(questions))


STORIES = [story(number) for number in range(8)]


@pytest.fixture(scope="module")
def packs() -> list[Pack]:
    return list(Asker(TOKENIZER, 4000, random.Random(1), Asking()).packs(STORIES * 3, "test"))


def rows(packs: list[Pack]) -> Iterator[tuple[str, str]]:
    """Prompt and answer of every branch, as text."""
    for pack in packs:
        for branch in pack.branches:
            prompt = TOKENIZER.decode([*pack.prefix, *branch.prompt], skip_special=False)
            yield prompt, TOKENIZER.decode(branch.answer, skip_special=False)


def shown(prompt: str) -> dict[int, str]:
    """The numbered passages of a prompt."""
    parts = [part for part in prompt.split("\n\n") if part.startswith("[")]
    return {int(part[1 : part.index("]")]): part for part in parts}


def test_a_citation_names_the_passage_that_has_the_answer(packs: list[Pack]) -> None:
    cited = 0
    for prompt, answer in rows(packs):
        said = parse(answer.removesuffix("<|im_end|>"))
        if said.number is None:
            continue
        passages = shown(prompt)
        assert said.number in passages
        thing = prompt.rsplit("find the ", 1)[1].split("?")[0]
        if f"the {thing} in the old" in passages[said.number]:
            cited += 1
        else:  # a passage boundary runs through the sentence
            assert said.text.rstrip(".").split()[-1] in prompt
    assert cited > 50


def test_what_is_not_shown_is_not_said(packs: list[Pack]) -> None:
    refused = 0
    for prompt, answer in rows(packs):
        if NOT_SAID not in answer or "find the" not in prompt:
            continue
        refused += 1
        thing = prompt.rsplit("find the ", 1)[1].split("?")[0]
        assert f"found the {thing} in the old" not in prompt
    assert refused > 5


@pytest.mark.parametrize("asking", [Asking(), Asking(together=6, apart=0)])
def test_what_no_section_answers_is_taught_to_be_refused(asking: Asking) -> None:
    """A page's questions without an answer may name no section: none of it answers them."""

    def page(number: int) -> Story:
        made = story(number)
        asked = (*made.questions[:4], Question(f"Who ate the lantern{number} at dawn?", ()))
        return Story(made.title, made.sections, asked)

    asker = Asker(TOKENIZER, 4000, random.Random(2), asking)
    pages = [page(number) for number in range(8)] * 4
    said = [said for asked, said in rows(list(asker.packs(pages, "t"))) if "at dawn?" in asked]
    assert len(said) > 3
    assert all(NOT_SAID in answer for answer in said)


def test_shares_are_those_of_use(packs: list[Pack]) -> None:
    answers = [answer for _, answer in rows(packs)]
    refusals = sum(NOT_SAID in answer for answer in answers) / len(answers)
    assert 0.03 < refusals < 0.4
    numbers = {parse(answer).number for answer in answers}
    assert {1, 2} <= numbers
    assert any("overview" in pack.kind for pack in packs)
    counts = [len(shown(prompt)) for prompt, _ in rows(packs)]
    assert min(counts) >= 1 and max(counts) <= 10 and sum(c > 1 for c in counts) > len(counts) / 3


def test_a_model_that_is_asked_once_is_taught_what_it_will_be_shown() -> None:
    book = Book(STORIES[:4], TOKENIZER, random.Random(0))
    asker = Asker(TOKENIZER, 4000, random.Random(0), Asking(together=4, apart=0))
    same, swapped = 0, 0
    asked = [each for each in book.asked if each.question.kind != SUMMARY]
    for each in asked:
        given = asker._passages(book, asker._choose(book, [each]))
        text = each.question.text
        (best,) = groups(book.library, text, together=4, apart=0, budget=4000)
        same += given == best
        swapped += given != best and len(set(given) & set(best)) > 0
    assert same > 0.6 * len(asked)
    assert same + swapped < len(asked), "now and then the right section alone"


def test_prompts_are_the_sessions_own() -> None:
    book = Book([STORIES[0]], TOKENIZER, random.Random(0))
    passages = book.passages([0, 2], merged=True)
    asker = Asker(TOKENIZER, 4000, random.Random(0), Asking())
    prompt, answer = asker._row("Where is it?", passages, "[1] Here.")
    assert prompt == render(TOKENIZER, [user_message("Where is it?", passages)])
    assert answer == [*TOKENIZER.encode("[1] Here."), *end_of_answer(TOKENIZER)]
    whole = render(
        TOKENIZER,
        [user_message("Where is it?", passages), Message("assistant", "[1] Here.")],
        add_generation_prompt=False,
    )
    assert whole[: len(prompt) + len(answer)] == [*prompt, *answer]


def test_second_questions_say_she(packs: list[Pack]) -> None:
    second = [(p, a) for p, a in rows([x for x in packs if "follow-up" in x.kind])]
    assert second
    for prompt, _ in second:
        assert prompt.rstrip().rsplit("answer: ", 1)[1].startswith("Where did she find the")
        assert "the princess" in prompt.split("Passages from")[0]


def test_passages_are_judged_by_what_they_hold() -> None:
    book = Book(STORIES[:3], TOKENIZER, random.Random(0))
    asked = next(a for a in book.asked if a.question.text.endswith("compass1?"))
    begin, end = asked.evidence[0]
    assert book.text[begin:end] == "The princess found the compass1 in the old tower."
    holding = book.holding(asked.evidence)
    judged = found(book, asked, "In the old tower.", book.passages(holding, merged=False))
    assert judged.held and not judged.absent and judged.number is not None
    far = [i for i in range(len(book.places)) if abs(i - holding[0]) > 12][:2]
    judged = found(book, asked, "In the old tower.", book.passages(far, merged=False))
    assert not judged.held and judged.number is None


def test_a_book_is_put_together_from_all_stories() -> None:
    seen = [s.title for book in books(STORIES, TOKENIZER, random.Random(3)) for s in book.stories]
    assert sorted(seen) == sorted(s.title for s in STORIES)
    for book in books(STORIES, TOKENIZER, random.Random(3)):
        for (begin, end), passage in zip(book.places, book.library.passages, strict=True):
            assert book.text[begin:end] == passage.text


def test_the_same_stories_are_held_out_in_every_run() -> None:
    train, held = split_held(STORIES * 4, 3)
    _, other = split_held(list(reversed(STORIES * 4)), 3)
    assert {s.key for s in held} == {s.key for s in other}
    assert not {s.key for s in held} & {s.key for s in train}
    assert split_held(STORIES, 0) == (STORIES, [])


def test_files_of_all_kinds_become_packs(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    records = [
        {
            "title": s.title,
            "sections": [{"id": x.id, "text": x.text} for x in s.sections],
            "questions": [
                {"question": q.text, "answers": list(q.answers), "sections": list(q.sections)}
                for q in s.questions[:8]
            ],
        }
        for s in STORIES
    ]
    questions.write_text("".join(json.dumps(each) + "\n" for each in records))
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    chat.write_text(
        json.dumps({"messages": turns})
        + "\n"
        + json.dumps({"messages": [*turns, {"role": "user", "content": "?"}]})
        + "\n"
    )
    dolly = tmp_path / "dolly.jsonl"
    dolly.write_text(json.dumps({"instruction": "Name a fruit.", "response": "A pear."}) + "\n")
    text = tmp_path / "text.txt"
    text.write_text(FILLER * 30)
    names = [f"{questions}=1", f"{chat}", f"{dolly}=3", f"{text}=2"]
    sources = [Source.parse(name) for name in names]
    made = make_packs(sources, TOKENIZER, longest=2000, asking=Asking(), held_share=0)
    kinds = {pack.kind.rpartition("/")[2] for pack in made.train}
    assert {"questions", "chat", "dolly", "text"} <= kinds
    assert sum(pack.kind.endswith("dolly") for pack in made.train) == 3
    hello = [p for p in made.train if p.kind.endswith("chat")]
    end = end_of_answer(TOKENIZER)
    assert all(list(p.branches[0].answer) == [*TOKENIZER.encode("Hello."), *end] for p in hello)
    plain = [p for p in made.train if p.kind.endswith("text")]
    ids = [i for p in plain[: len(plain) // 2] for b in p.branches for i in (*b.prompt, *b.answer)]
    assert sorted(ids) == sorted(TOKENIZER.encode(FILLER * 30))
    assert max(pack.longest for pack in made.train) <= 2000
    again = make_packs(sources, TOKENIZER, longest=2000, asking=Asking(), held_share=0)
    assert again.train == made.train


def chat_line(answer: str) -> str:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"


def test_chats_are_as_long_as_prompts_may_be(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(chat_line("Hello.") + chat_line("word " * 300) + chat_line("word " * 500))

    def packs(longest: int) -> list[Pack]:
        sources = [Source(file)]
        made = make_packs(sources, TOKENIZER, longest=longest, asking=Asking(), held_share=0)
        return made.train

    assert [len(packs(longest)) for longest in (100, 2000, 4000)] == [1, 2, 3]
    with pytest.raises(UsageError, match=r"no chat of .*chats\.jsonl fits 5 tokens"):
        packs(5)


@pytest.mark.parametrize("broken", ['{"messages": [', '{"question": "Who?"}', "[1]"])
def test_a_line_that_is_no_chat_is_named(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(chat_line("Hello.") + '{"messages": ["hi", 3]}\n' + broken + "\n")
    with pytest.raises(DocumentError, match=r"chats\.jsonl:3 is no chat"):
        make_packs([Source(file)], TOKENIZER, longest=100, asking=Asking())


def test_stories_are_held_out_beside_chats_and_texts(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(chat_line("Hello."))
    (tmp_path / "text.txt").write_text(FILLER)
    record = {
        "sections": [{"id": "1", "text": "The fox bought a lantern."}],
        "questions": [{"question": "What did it buy?", "answers": ["a lantern"]}],
    }
    lines = [json.dumps({"title": f"Tale {number}", **record}) for number in range(20)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    sources = [Source(tmp_path / n) for n in ("chats.jsonl", "text.txt", "questions.jsonl")]
    held = held_stories(sources, 3)
    made = make_packs(sources, TOKENIZER, longest=500, asking=Asking(), held_share=3)
    assert held == made.stories and 0 < len(held) < 20


@pytest.mark.parametrize("files", (1, 6))
def test_what_is_judged_by_stays_small(tmp_path: Path, files: int) -> None:
    """Else each check of much data would take as long as the training between two."""
    sources = [Source(tmp_path / f"{number}.txt") for number in range(files)]
    for source in sources:
        source.path.write_text("x" * 90_000)  # a token each
    made = make_packs(sources, TOKENIZER, longest=2000, asking=Asking(), held_share=2)
    judged, taught = (sum(pack.tokens for pack in packs) for packs in (made.held, made.train))
    if files == 1:
        assert judged > 40_000  # all that is held out
    else:
        assert HELD_TOKENS - 2000 < judged <= HELD_TOKENS
        assert taught < files * 60_000  # what is not judged by is not taught either
        assert {pack.kind for pack in made.held} == {pack.kind for pack in made.train}


def test_wrong_files_and_counts_are_told(tmp_path: Path) -> None:
    assert Source.parse("a=b.jsonl").path == Path("a=b.jsonl")
    assert Source.parse("a.jsonl=0.5").times == 0.5
    with pytest.raises(UsageError, match="no number of times"):
        Source.parse("a.jsonl=0")
    with pytest.raises(DocumentError, match="cannot read"):
        make_packs([Source(tmp_path / "none.jsonl")], TOKENIZER, longest=100, asking=Asking())
    (tmp_path / "odd.jsonl").write_text('{"nothing": 1}\n')
    with pytest.raises(DocumentError):
        make_packs([Source(tmp_path / "odd.jsonl")], TOKENIZER, longest=100, asking=Asking())


@pytest.mark.parametrize(
    ("question", "want"),
    (
        ("Why did the old king weep?", ("the old king", "Why did he weep?")),
        ("What was the princess doing?", ("the princess", "What was she doing?")),
        ("What did the robbers take?", ("the robbers", "What did they take?")),
        ("Who was Hans?", None),
        ("Why did the kingdom fall?", None),
    ),
)
def test_a_pronoun_stands_for_the_subject(question: str, want: tuple[str, str] | None) -> None:
    assert with_pronoun(question) == want


def test_answers_are_sentences() -> None:
    assert sentence(" the  old tower ") == "The old tower."
    assert sentence("Really?") == "Really?"
    assert sentence(" . ") == ""
    assert first_sentences("One. Two is longer. Three.", 20) == "One. Two is longer."
    assert first_sentences("no end " * 50, 30) == ""
