"""How far a model is through its prompt, told while it runs."""

from __future__ import annotations

import pytest
import torch
from cli_helpers import ScriptedModel
from models import model, random_ids

from nazx_cli.documents.document import Document
from nazx_cli.engine.generator import Opening
from nazx_cli.engine.pace import Pace
from nazx_cli.reading.library import Library
from nazx_cli.session.events import Delta, Event, Running
from nazx_cli.session.session import Session


@pytest.mark.parametrize("count", (17, 700, 1500))
def test_a_contexts_prompt_is_counted_to_its_end(count: int) -> None:
    lm = model("llama", "windowed")
    context = lm.new_context()
    context.append(random_ids(count, seed=3))
    pace = Pace.of_context(lm.decoder, context)
    assert pace() == (0, count)
    lm.next_logits(context)
    assert pace() == (count, count)
    context.append(random_ids(5, seed=4))
    more = Pace.of_context(lm.decoder, context)
    assert more() == (0, 5)
    lm.next_logits(context)
    assert more() == (5, 5)


def test_what_is_begun_anew_is_counted_from_where_it_differs() -> None:
    lm = model("llama", "windowed")
    context = lm.new_context()
    context.append([1, 2, 3, 4, 5, 6])
    lm.next_logits(context)
    context.truncate_live(3)
    context.append([9, 9])
    assert Pace.of_context(lm.decoder, context)() == (0, 2)
    context.truncate_live(3)  # of what is all there the last one runs again
    assert Pace.of_context(lm.decoder, context)() == (0, 1)


def test_it_grows_while_the_layers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model("llama", "windowed")
    context = lm.new_context()
    context.append(random_ids(200, seed=5))
    pace, told = Pace.of_context(lm.decoder, context), []
    block = type(lm.decoder.layers[0])
    residual = block.residual

    def watched(self: torch.nn.Module, h: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        told.append(pace()[0])
        return residual(self, h, attended)

    monkeypatch.setattr(block, "residual", watched)
    lm.next_logits(context)
    assert told == sorted(told) and told[0] == 0 and 0 < told[-1] < 200


@pytest.mark.parametrize("kind", ("inattention", "windowed", "full"))
def test_where_nothing_has_to_run_there_is_nothing_to_tell(kind: str) -> None:
    lm = model("llama", kind)
    context = lm.new_context()
    assert Pace.of_context(lm.decoder, context)() == (0, 0)
    if kind == "inattention":
        context.append(random_ids(50, seed=6))
        assert Pace.of_context(lm.decoder, context)() == (0, 0)


@pytest.mark.parametrize("first", (None, 1, 2, 4))
def test_prompts_side_by_side_count_what_they_share_once(first: int | None) -> None:
    lm = model("llama", "full")
    begin, ends = random_ids(20, seed=7), (3, 9, 1, 30)
    prompts = [[*begin, 40 + at, *random_ids(end, seed=at)] for at, end in enumerate(ends)]
    pace = Pace.of_prompts(lm.decoder, prompts, first)
    counts = [20 + end + 1 for end in ends]
    shared = [sum(counts[:first]) - 20 * (len(counts[:first]) - 1)]
    rest = counts[first:] if first else []
    if rest:
        shared.append(sum(rest) - 20 * (len(rest) - 1))
    assert pace() == (0, shared[0])
    opening = Opening(7, first=first, enough=2.0)  # never sure enough: all are put
    lm.answer_each(prompts, max_tokens=1, opening=opening)
    assert pace() == (sum(shared), sum(shared))


def test_both_ways_of_answering_tell_it_before_the_answer() -> None:
    for can_cite in (False, True):
        lm = ScriptedModel(["[1] Trout.|-0.1"] * 20, can_cite=can_cite)
        document = Document("a.txt", "The otter eats trout. " * 60, "text")
        chat = Session(lm, Library.build([document], lm.tokenizer))  # type: ignore[arg-type]
        events: list[Event] = list(chat.ask("What does the otter eat?"))
        kinds = [type(event) for event in events]
        assert kinds.count(Running) == 1
        assert kinds.index(Running) < kinds.index(Delta)
