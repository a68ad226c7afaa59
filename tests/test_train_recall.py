"""The lists that teach recall: pairs, lines, what stands between, how they lie in a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import run_nazx
from numpy.typing import NDArray
from safetensors.torch import load_file
from test_probes import TOKENIZER

from nazx_cli import load_model
from nazx_cli.errors import UsageError
from nazx_cli.evaluation.probes import plain_words
from nazx_cli.training.scratch.recall import recall_lists, with_lists

ALICE = Path(__file__).parent / "data" / "alice.txt"
END = TOKENIZER.vocab_size
WORDS = plain_words(TOKENIZER)
MARK = -1  # stands for text, in which no word of a pair is


def lists(tokens: int, longest: int, text: int = 50) -> list[NDArray[np.int32]]:
    return list(recall_lists(np.full(text, MARK, np.int32), TOKENIZER, tokens, longest, END))


def rows(made: list[NDArray[np.int32]], longest: int) -> list[list[int]]:
    """Those that have lines: every other, where there is room for any."""
    return [each[:-1].tolist() for each in made[1::2]] if longest > 60 else []


@pytest.mark.parametrize(("tokens", "longest"), ((1, 9), (500, 48), (40_001, 400)))
def test_every_pair_of_a_list_comes_up_again(tokens: int, longest: int) -> None:
    made = lists(tokens, longest)
    assert tokens <= sum(map(len, made)) < tokens + longest + 1
    sizes, gaps = set(), set()
    assert all(each.dtype == np.int32 and each[-1] == END for each in made)
    assert max(map(len, made)) <= longest
    for number, each in enumerate(made):
        if number % 2 and longest > 60:
            continue  # of lines: below
        body = [i for i in each[:-1].tolist() if i != MARK]
        gaps.add(len(body) < len(each) - 1)
        pairs = list(zip(body[::2], body[1::2], strict=True))
        kinds = sorted(set(pairs))
        used = [word for pair in kinds for word in pair]
        assert set(used) <= set(WORDS) and len(set(used)) == len(used) and len(kinds) > 1
        rounds = [sorted(pairs[at : at + len(kinds)]) for at in range(0, len(pairs), len(kinds))]
        assert 2 <= len(rounds) <= 16 and all(each == kinds for each in rounds)
        # No text stands within a pair.
        first = np.flatnonzero(np.isin(each[:-1], [pair[0] for pair in kinds]))
        assert all((each[at], each[at + 1]) in set(kinds) for at in first)
        sizes.add(len(kinds))
    if tokens > 10_000:  # short ones, from which it is learnt first, and long ones
        assert gaps == {True, False} and min(sizes) < 4 and max(sizes) > 48


def lines_of(body: list[int]) -> list[tuple[int, ...]]:
    """The lines of a list, once each, taken apart by their repeating; none where they do not."""
    for size in reversed(range(2, 16)):
        each = [tuple(body[at : at + size]) for at in range(0, len(body), size)]
        found = sorted(set(each))
        rounds = [sorted(each[at : at + len(found)]) for at in range(0, len(each), len(found))]
        if 2 <= len(rounds) <= 16 and len(found) > 1 and all(one == found for one in rounds):
            return found
    return []


@pytest.mark.parametrize("longest", (61, 200, 400))
def test_every_line_of_a_list_comes_up_again_with_the_same_around_it(longest: int) -> None:
    frames, values, sizes = set(), set(), set()
    for body in rows(lists(60_000, longest, text=1), longest):
        found = lines_of(body)
        assert found
        if len(found) < 5:
            continue  # by chance so few may come in the same order again: two look like one
        columns = [set(column) for column in zip(*found, strict=True)]
        # Words are told by being all different: what stands before them is always the same.
        at = next(n for n, column in enumerate(columns) if len(column) == len(found))
        assert columns[at] <= set(WORDS) and all(len(column) == 1 for column in columns[:at])
        rest = [n for n in range(at + 1, len(columns)) if len(columns[n]) > 1]
        kinds = set().union(*(columns[n] for n in rest))
        assert len(kinds) <= 10
        frames.add(at)
        values.add(len(rest))
        sizes.add(len(found))
    if longest > 100:
        assert frames == {0, 1, 2, 3} and max(values) == 5
        assert max(sizes) > longest // 20


@pytest.mark.parametrize("text", (0, 1, 3))
def test_there_may_be_little_text_to_stand_between_pairs(text: int) -> None:
    between = [np.count_nonzero(each == MARK) for each in lists(2000, 60, text)]
    assert (max(between) > 0) == (text > 0) and min(between) == 0


def test_lists_stand_among_the_documents_and_change_none() -> None:
    documents = [np.asarray([*range(-9 - n, -5), END], np.int32) for n in range(40)]
    ids = np.concatenate(documents)
    mixed = with_lists(ids, TOKENIZER, 2000, 60, END)
    parts = np.split(mixed, np.flatnonzero(mixed == END) + 1)
    whole = [part for part in parts if len(part) and part[-1] == END and (part[:-1] < -5).all()]
    assert sorted(map(len, whole)) == sorted(map(len, documents))
    places = [number for number, part in enumerate(parts) if len(part) and part[0] < -5]
    assert max(places) - min(places) > len(documents)  # not all before or behind the lists
    assert np.array_equal(mixed, with_lists(ids, TOKENIZER, 2000, 60, END))


def test_too_few_words_or_too_little_room_are_told() -> None:
    with pytest.raises(UsageError, match="too few words"):
        lists(100, 8)


def test_a_tied_model_learns_from_lists_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "run"
    shape = ["--layers", "1", "--width", "32", "--context", "48", "--vocab", "400"]
    few = ["--steps", "2", "--batch-tokens", "100", "--recall", "1", "--tied"]
    command = ["train", str(ALICE), "--attention", "inattention:2", "--out", str(out)]
    _, err, code = run_nazx(*command, *shape, *few)
    assert code == 0, err
    made = out / "inattention-2" / "model"
    config = json.loads((made / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    held = sum(map(torch.numel, load_file(made / "model.safetensors").values()))
    lm = load_model(made)
    assert held == lm.decoder.config.num_parameters
    assert lm.decoder.config.num_parameters == sum(p.numel() for p in lm.decoder.parameters())
    assert "each comes 2 to 16 times" in (made / "README.md").read_text()
