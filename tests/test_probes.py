"""Probes of long contexts: what is hidden stands where it is said to stand, and a model that knows
where to look is told from one that does not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import cast

import pytest
import torch
from cli_helpers import run_nazx, tiny_checkpoint
from reading_helpers import alice_text, small_tokenizer

from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import DocumentError
from nazx_cli.evaluation.probes import (
    DEPTHS,
    Outcome,
    Prober,
    comes_out_right,
    heat_map,
    lengths_up_to,
    probe,
)
from nazx_cli.evaluation.records import AnswerFile
from nazx_cli.names import PROBES

TOKENIZER = small_tokenizer()
PROBER = Prober(TOKENIZER, alice_text()[:20_000])


class Context:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.resident = 0

    def append(self, ids: list[int], resident: bool = False) -> None:
        self.ids.extend(ids)
        self.resident += len(ids) * resident


class Finder:
    """A model of ``reach`` tokens that foretells what followed the longest earlier end of its
    context; with a reach of 0 it knows nothing."""

    tokenizer = TOKENIZER

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def new_context(self) -> Context:
        return Context()

    def next_logits(self, context: Context) -> torch.Tensor:
        seen = context.ids[-self.reach :] if self.reach else []
        logits = torch.zeros(TOKENIZER.vocab_size)
        for size in range(min(8, len(seen) - 1), 0, -1):
            for at in range(len(seen) - size - 1, -1, -1):
                if seen[at : at + size] == seen[-size:]:
                    logits[seen[at + size]] = 1.0
                    return logits
        return logits


def model(reach: int) -> LanguageModel:
    return cast(LanguageModel, Finder(reach))


def place_in(which: str, length: int, depth: float) -> float:
    """Where in its text what is hidden at ``depth`` first stands."""
    trial = PROBER.trial(which, length, depth, random.Random(length))
    text, answer = TOKENIZER.decode(trial.prompt), TOKENIZER.decode(trial.answer)
    return text.index(answer.strip()) / len(text)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("length", (64, 129, 400))
def test_what_is_hidden_stands_at_its_depth(length: int, depth: float) -> None:
    trial = PROBER.trial("associative", length, depth, random.Random(length))
    assert len(trial.prompt) == length and len(trial.options) == 16
    key = trial.prompt[-1]
    (at,) = [i for i, token in enumerate(trial.prompt[:-1]) if token == key]
    assert trial.prompt[at + 1] == trial.answer[0] and trial.answer[0] in trial.options
    assert at == round(depth * (length - 3))
    for which in ("passkey", "lines"):
        trial = PROBER.trial(which, length, depth, random.Random(length))
        assert length - 16 < len(trial.prompt) <= length + 4
        text, answer = TOKENIZER.decode(trial.prompt), TOKENIZER.decode(trial.answer)
        assert text.count(answer.strip()) == (2 if which == "passkey" else 1)
        first, last = place_in(which, length, 0.0), place_in(which, length, 1.0)
        assert first < 0.15 and last - first > 0.4
        place = (place_in(which, length, depth) - first) / (last - first)
        assert place == pytest.approx(depth, abs=0.15)


@pytest.mark.parametrize("which", PROBES)
def test_a_model_that_looks_back_far_enough_is_right_and_no_other(which: str) -> None:
    for depth in DEPTHS:
        trial = PROBER.trial(which, 300, depth, random.Random(3))
        assert comes_out_right(model(400), trial)
    far = PROBER.trial(which, 300, 0.0, random.Random(3))
    assert not comes_out_right(model(30), far)
    rng = random.Random(1)
    blind = [comes_out_right(model(0), PROBER.trial(which, 100, 0.5, rng)) for _ in range(20)]
    assert sum(blind) < 6 if which == "associative" else not any(blind)


@pytest.mark.parametrize("which", PROBES)
def test_a_probe_may_be_resident_but_for_what_asks(which: str) -> None:
    trial = PROBER.trial(which, 200, 0.5, random.Random(2))
    asked = TOKENIZER.decode(trial.prompt[-trial.asked :])
    assert "pass key is" in asked if which == "passkey" else trial.asked == 1 or "LINE" in asked
    found: list[Context] = []

    class Watched(Finder):
        def new_context(self) -> Context:
            found.append(Context())
            return found[-1]

    assert comes_out_right(cast(LanguageModel, Watched(400)), trial, resident=True)
    assert found[0].resident == len(trial.prompt) - trial.asked


def test_outcomes_make_a_map_and_are_kept(tmp_path: Path) -> None:
    def run(found: LanguageModel) -> list[dict[str, object]]:
        with AnswerFile(tmp_path / "answers.jsonl") as file:
            outcomes = probe(
                "m", "r", found, PROBES, alice_text(), file, longest=200, trials=2, seed=4
            )
            return [each.to_dict() for each in outcomes]

    first = run(model(60))
    assert run(model(0)) == first  # taken from the file: the other model is not asked
    assert len(first) == 3 * 2 * len(DEPTHS) * 2
    kept = [Outcome(**each) for each in first if each["probe"] == "passkey"]  # type: ignore[arg-type]
    found = heat_map(kept)
    assert set(found) == {(n, d) for n in (128, 200) for d in DEPTHS}
    assert found[200, 0.0] == 0.0 and found[200, 1.0] == 1.0


@pytest.mark.parametrize(
    ("most", "want"), ((1, [1]), (128, [128]), (129, [128, 129]), (512, [128, 256, 512]))
)
def test_lengths(most: int, want: list[int]) -> None:
    assert lengths_up_to(most) == want


def test_a_text_too_short_to_hide_anything_in_is_told() -> None:
    with pytest.raises(DocumentError, match="too short"):
        Prober(TOKENIZER, "A hen.")


def test_the_command_shows_a_map_for_each_model_and_probe(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model", window=512)
    book = tmp_path / "book.txt"
    book.write_text(alice_text()[:3000])
    command = ["eval", str(book), "-m", str(folder), "--probe", "associative", "--probe", "lines"]
    out, err, code = run_nazx(*command, "--ctx", "200", "--limit", "1")
    assert code == 0, err
    assert out.count("% right by length and depth, of 10 trials") == 2 and "75%" in out
    out, _, code = run_nazx(*command, "--ctx", "128", "--limit", "1", "--json")
    (first, _) = json.loads(out)["probes"]
    assert code == 0 and len(first["map"]) == 5 and first["probe"] == "associative"
