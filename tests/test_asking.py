"""Which passages are put to a reading model at a time: the best together, and each apart."""

from __future__ import annotations

import pytest
from cli_helpers import ScriptedModel
from reading_helpers import FACTS

from nazx_cli.documents.document import Document
from nazx_cli.reading.library import Library
from nazx_cli.reading.plan import groups
from nazx_cli.reading.recall import rank
from nazx_cli.session.events import Answer
from nazx_cli.session.parts import Asking
from nazx_cli.session.session import Session


def animals(text: str) -> Library:
    return Library.build([Document("animals.txt", text, "text")], ScriptedModel([]).tokenizer)


def test_the_best_passages_stand_together_and_each_apart() -> None:
    library, question = animals("\n\n".join(FACTS * 6)), "What does the otter eat?"
    together, *apart = groups(library, question, together=3, apart=5, budget=10_000)
    order = rank(library, question, 5).order.tolist()
    assert apart == [(library.passages[at],) for at in order]
    assert sum(map(len, together)) == sum(len(library.passages[at]) for at in order[:3])
    assert [p.start for p in together] == sorted(p.start for p in together)
    sizes = sorted(len(library.passages[at]) for at in order)
    first, *short = groups(library, question, together=3, apart=5, budget=sizes[2])
    assert sum(map(len, first)) <= sizes[2]
    assert short == [group for group in apart if len(group[0]) <= sizes[2] and group != first]
    assert groups(library, question, together=3, apart=5, budget=0) == []


@pytest.mark.parametrize(("together", "wanted"), [(1, [1, 1]), (2, [2]), (3, [2])])
def test_documents_of_few_passages_are_put_whole(together: int, wanted: list[int]) -> None:
    library = animals("Otters eat. " * 13)
    assert len(library.passages) == 2

    def counted(question: str, budget: int) -> list[int]:
        found = groups(library, question, together=together, apart=3, budget=budget)
        return [round(sum(map(len, group)) / 78) for group in found]

    assert counted("otters", 156) == wanted
    assert counted("pike", 155) == [1] * min(together, 2)  # no word of it, and no room for all


def test_an_adapter_says_how_many_passages_its_model_reads_at_a_time() -> None:
    lm = ScriptedModel(["[2] Trout.|-0.1"], can_cite=True)
    lm.notes = {"asking": {"together": 4, "apart": 0}}
    chat = Session(lm, animals("\n\n".join(FACTS * 6)))  # type: ignore[arg-type]
    answer = list(chat.ask("What does the otter eat in the river?"))[-1]
    assert isinstance(answer, Answer) and answer.text == "Trout."
    (prompt,) = lm.prompts
    assert 2 <= len(answer.sources) <= 4
    assert all(f"[{number}]" in prompt for number in range(1, len(answer.sources) + 1))
    assert answer.confidence is not None and answer.cited is not None


@pytest.mark.parametrize(
    ("notes", "together", "apart"),
    [
        ({}, 3, 10),
        ({"asking": {"together": 6, "apart": 0}}, 6, 0),
        ({"asking": {"together": 1, "apart": 12}}, 1, 12),
        ({"asking": {"together": 0, "apart": 3}}, 3, 10),
        ({"asking": {"together": 6, "apart": -1}}, 3, 10),
        ({"asking": {"together": "many", "apart": 0}}, 3, 10),
        ({"asking": 6}, 3, 10),
        ({"asking": {"together": 6}}, 3, 10),
    ],
)
def test_notes_that_make_no_sense_leave_it_as_usual(
    notes: dict[str, object], together: int, apart: int
) -> None:
    asking = Asking.of(notes)
    assert (asking.together, asking.apart) == (together, apart)
    assert asking.first == 1 + min(together, apart)
