from __future__ import annotations

from itertools import pairwise

import pytest
from reading_helpers import alice, library_of

from nazx_cli.errors import ContextOverflowError, UsageError
from nazx_cli.names import READ_MODES
from nazx_cli.reading.library import Library
from nazx_cli.reading.mapreduce import NOTHING_FOUND, Partial, blocks, condense, map_reduce
from nazx_cli.reading.passages import Passage, distinct, short_names, source_line, source_record
from nazx_cli.reading.plan import Cost, Selection, mode_for, select, typical_passages
from nazx_cli.reading.summaries.overview import is_overview


def chosen(
    library: Library, question: str, mode: str = "auto", budget: int = 1200
) -> tuple[Passage, ...]:
    return select(library, question, mode=mode_for(mode, False), budget=budget).passages


def dear(passage: Passage) -> int:
    return len(passage) + 12


@pytest.mark.parametrize("mode", ["recall", "tail", "auto"])
@pytest.mark.parametrize("question", ["Who stole the tarts?", "Summarize", "zzzq", ""])
@pytest.mark.parametrize("budget", [13, 14, 40, 99, 130, 500, 1200, 100_000])
def test_a_selection_fits_the_budget_and_stands_in_order(
    mode: str, question: str, budget: int
) -> None:
    passages = select(alice(), question, mode=mode, budget=budget, cost=dear).passages
    assert passages
    assert sum(map(dear, passages)) <= budget
    assert all(a.stop <= b.start for a, b in pairwise(passages))


@pytest.mark.parametrize("mode", ["recall", "tail", "auto"])
def test_there_is_no_selection_without_a_budget(mode: str) -> None:
    assert chosen(alice(), "Who stole the tarts?", mode, 0) == ()
    assert chosen(library_of(), "Who stole the tarts?", mode, 100) == ()


def test_the_window_caps_the_budget() -> None:
    selection = select(alice(), "tarts", mode="recall", budget=5000, window=300)
    assert 0 < sum(map(len, selection.passages)) <= 300


def test_documents_that_fit_are_given_whole() -> None:
    library = library_of("One fish.\n\nTwo fish.", "Red fish.")
    for question in ("Which fish?", "Summarize"):
        assert [p.text for p in chosen(library, question)] == [
            "One fish.\n\nTwo fish.",
            "Red fish.",
        ]


def test_a_small_budget_gets_the_part_that_matches() -> None:
    (passage,) = chosen(alice(), "Why is a raven like a writing-desk?", budget=40)
    assert len(passage) <= 40
    assert "raven" in passage.text


def test_recall_of_a_question_about_nothing_known_still_gives_passages() -> None:
    assert chosen(alice(), "zzzq", "recall")


def test_tail_gives_the_end_cut_to_fit() -> None:
    text = alice().documents[0].text
    (passage,) = chosen(alice(), "anything", "tail", 333)
    assert text.endswith(passage.text)
    assert 300 <= len(passage) <= 333
    assert passage.stop == alice().num_tokens


def test_modes_that_choose_nothing_say_so() -> None:
    everything = {"budget": 100, "window": None}
    assert select(alice(), "q", mode="all", **everything).passages == ()
    for mode in ("auto", "resident"):
        got = select(alice(), "q", mode=mode_for(mode, True), **everything)
        assert got == Selection("resident", ())


def test_auto_comes_to_recall_for_a_model_that_cannot_attend_to_the_document() -> None:
    got = select(alice(), "Who stole the tarts?", mode="auto", budget=500)
    assert (got.mode, got.overview) == ("recall", False)


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(alice(), "q", "skim")
    assert "skim" in caught.value.message
    assert all(mode in caught.value.hint for mode in READ_MODES)


def test_resident_is_refused_where_the_model_was_not_trained_for_it() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(alice(), "q", "resident")
    assert "--read recall" in caught.value.hint


@pytest.mark.parametrize(
    "question",
    [
        "summarize",
        "Summarise this book in three sentences.",
        "Sum up the text",
        "Can you sum the story up?",
        "What is this about?",
        "what's it about",
        "What is Alice about?",
        "Give me an overview",
        "Write an outline of the chapters",
        "What are the main themes?",
        "What happens in this story?",
        "tl;dr",
        "What is in this document?",
        "And what of the topics?",
    ],
)
def test_questions_about_the_whole_are_told(question: str) -> None:
    assert is_overview(alice(), question)


@pytest.mark.parametrize(
    "question",
    [
        "Who stole the tarts?",
        "Summarize the trial of the Knave",
        "Sum up the trial of the Knave",
        "What did the sums that Alice did come to?",
        "What is the Caterpillar's advice about?",
        "What happens to the baby?",
        "Why did the Dormouse tell a story?",
        "Who is the captain of the Nautilus?",
        "Who is Captain Nemo?",
        "Zxqv blorf?",
    ],
)
def test_questions_about_a_part_are_told(question: str) -> None:
    assert not is_overview(alice(), question)


def test_an_overview_draws_on_the_whole_document() -> None:
    selection = select(alice(), "Summarize", mode="auto", budget=1200)
    assert selection.overview
    tenths = {p.start * 10 // alice().num_tokens for p in selection.passages}
    assert len(tenths) >= 8
    assert sum(map(len, selection.passages)) > 800


def test_an_overview_draws_on_every_document() -> None:
    texts = [f"The {word} was seen near the old mill by the river. " * 60 for word in "abcdefg"]
    library = library_of("A long one about ships and the sea. " * 2000, *texts)
    for budget in (450, 1200):
        passages = chosen(library, "What are these about?", budget=budget)
        assert {p.document for p in passages} == {d.name for d in library.documents}
        assert sum(map(len, passages)) <= budget


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 50, 100_000])
def test_typical_passages_are_distinct_and_as_many_as_asked(count: int) -> None:
    got = typical_passages(alice(), count)
    assert len(set(got)) == len(got) == min(count, len(alice().passages))
    assert got == sorted(got)


def test_blocks_hold_everything_within_the_budget() -> None:
    library = library_of(alice().documents[0].text[:30_000], "A short one.")
    for budget in (150, 1000, 10**6):
        parts = blocks(library, budget, dear)
        passages = [p for part in parts for p in part]
        assert [p.start for p in passages] == [0, *(p.stop for p in passages[:-1])]
        assert passages[-1].stop == library.num_tokens
        assert all(sum(map(dear, part)) <= budget for part in parts)
        assert len({p.document for p in parts[-1]}) == 1
    assert len(parts) == 2


def one_by_one(library: Library, budget: int, cost: Cost) -> list[tuple[Passage, ...]]:
    """Blocks that take in a passage for as long as they can."""
    found: list[tuple[Passage, ...]] = []
    for passage in library.passages:
        longer = library.merged([*found[-1], passage]) if found else []
        if len(longer) == 1 and cost(longer[0]) <= budget:
            found[-1] = (longer[0],)
        else:
            found.append((passage,))
    return found


@pytest.mark.parametrize("share", [0.98, 1.0, 1.3])
def test_blocks_are_as_few_as_fit_and_found_with_few_looks(share: float) -> None:
    whole = alice().documents[0].text
    library = library_of(whole[:60_000], "", "A short one.", whole[60_000:60_300], whole[-40_000:])
    looked: list[int] = []

    def cost(passage: Passage) -> int:
        looked.append(len(passage))
        return 12 + int(share * len(passage))

    for budget in (200, 777, 4000, 10**6):
        looked.clear()
        found = blocks(library, budget, cost)
        assert sum(looked) < 6 * library.num_tokens
        assert found == one_by_one(library, budget, cost)
    assert blocks(library_of(), 100, cost) == []


def test_a_budget_too_small_for_a_passage_is_an_overflow() -> None:
    with pytest.raises(ContextOverflowError):
        blocks(alice(), 20)


def test_every_block_is_asked_in_order_with_progress() -> None:
    asked: list[int] = []
    told: list[tuple[int, int]] = []

    def ask(question: str, passages: tuple[Passage, ...]) -> str:
        assert question == "Why?"
        asked.append(passages[0].start)
        return f" answer {len(asked)}\n"

    parts = list(
        map_reduce(
            "Why?",
            blocks(alice(), 8000),
            ask,
            on_progress=lambda done, of: told.append((done, of)),
        )
    )
    assert asked == sorted(asked)
    assert [p.text for p in parts] == [f"answer {i}" for i in range(1, len(parts) + 1)]
    assert [(p.index, p.of) for p in parts] == [(i, len(parts)) for i in range(1, len(parts) + 1)]
    assert told == [(i, len(parts)) for i in range(len(parts) + 1)]


def test_an_interrupt_keeps_what_was_answered() -> None:
    def ask(question: str, passages: tuple[Passage, ...]) -> str:
        if passages[0].start > 0:
            raise KeyboardInterrupt
        return "first"

    parts = map_reduce("q", blocks(alice(), 8000), ask)
    assert next(parts).text == "first"
    with pytest.raises(KeyboardInterrupt):
        next(parts)


def partials(*texts: str) -> list[Partial]:
    return [Partial(i, len(texts), (alice().passages[i],), text) for i, text in enumerate(texts, 1)]


def count(text: str) -> int:
    return len(text.split())


def never(question: str, group: tuple[Partial, ...]) -> str:
    raise AssertionError("nothing needed merging")


def test_partials_that_fit_are_kept_as_they_are() -> None:
    parts = partials("one two", "three")
    assert condense("q", parts, budget=3, count=count, merge=never) == tuple(parts)


@pytest.mark.parametrize(
    "nothing",
    ["", NOTHING_FOUND, "nothing found", "The text does not mention it.", "No information.", "N/A"],
)
def test_partials_that_found_nothing_are_dropped(nothing: str) -> None:
    parts = partials(nothing, "the Knave", nothing)
    assert condense("q", parts, budget=99, count=count, merge=never) == (parts[1],)
    assert condense("q", parts[:1], budget=99, count=count, merge=never) == ()


def test_partials_that_say_the_same_become_one_that_has_the_passages_of_all() -> None:
    parts = partials("The Knave.", "a tart", "the knave", "a cake")
    got = condense("q", parts, budget=99, count=count, merge=never)
    assert [each.text for each in got] == ["The Knave.", "a tart", "a cake"]
    assert got[0].passages == (*parts[0].passages, *parts[2].passages)


@pytest.mark.parametrize("text", ["No.", "Nothing could stop the Queen.", "None of the jurors."])
def test_real_answers_are_not_taken_for_nothing(text: str) -> None:
    assert partials(text)[0].found


@pytest.mark.parametrize("number", [1, 2, 3, 9, 50])
@pytest.mark.parametrize("length", [1, 7, 40])
def test_condensing_ends_within_the_budget_and_keeps_sources(number: int, length: int) -> None:
    def merge(question: str, group: tuple[Partial, ...]) -> str:
        assert len(group) > 1
        assert sum(count(p.text) for p in group) <= 20
        return "word " * length

    parts = partials(*["word " * length] * number)
    got = condense("q", parts, budget=20, count=count, merge=merge)
    assert got
    assert sum(count(p.text) for p in got) <= 20
    assert [s for p in got for s in p.passages] == [s for p in parts for s in p.passages]
    assert [p.index for p in got] == sorted(p.index for p in got)


def test_sources_name_file_lines_and_first_words() -> None:
    library = library_of("\n\nThe Queen of Hearts,\nshe made some tarts, all on a day.\n\n")
    (passage,) = library.passages
    assert source_line(passage) == "a.txt:3-4  “The Queen of Hearts, she made some tarts,…”"
    record = source_record(passage)
    assert record["file"] == "a.txt"
    assert (record["first_line"], record["last_line"]) == (3, 4)
    assert record["text"] == "The Queen of Hearts,\nshe made some tarts, all on a day."
    (short,) = library_of("Hello there").passages
    assert source_line(short) == "a.txt:1  “Hello there”"


def test_a_passage_within_another_counts_as_one() -> None:
    spans = [("a.txt", 0, 9), ("a.txt", 2, 5), ("b.txt", 2, 5), ("a.txt", 0, 9), ("a.txt", 5, 12)]
    passages = [Passage(name, 1, 1, start, stop, "words") for name, start, stop in spans]
    assert [number for number, _ in distinct(passages)] == [1, 3, 5]


def test_a_path_is_named_by_its_last_part_where_no_other_ends_in_it() -> None:
    names = ["x/a.txt", "y/a.txt", "y/b.txt", "c.txt"]
    passages = [Passage(name, 1, 1, 0, 9, "words") for name in names]
    assert list(short_names(passages).values()) == ["x/a.txt", "y/a.txt", "b.txt", "c.txt"]
