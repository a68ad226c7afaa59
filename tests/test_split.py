"""Weights over several processes: real ones, over gloo on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo  # before processes are forked: torch imports it at its first use
from checkpoints import LLAMA, nazx, write_checkpoint
from family_configs import FAMILIES, write_family
from models import WINDOWED, checkpoint, model, random_ids, relative_error
from rank_helpers import group_of

from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import Share
from nazx_cli.engine.language_model import LanguageModel, load_planned
from nazx_cli.errors import UsageError
from nazx_cli.memory.estimate import TextSize, weight_bytes
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.model import split
from nazx_cli.ranks import Group


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with group_of(2) as found:
        yield found


def loaded(folder: Path, group: Group | None, dtype: str = "float32") -> LanguageModel:
    options = LoadOptions("cpu", dtype, by=Share(split=group is not None))
    return load_planned("tiny", folder, TextSize(), options, group)


def converse(lm: LanguageModel) -> list[torch.Tensor]:
    """Logits after a prompt, a token, and a message in the place of the prompt's end."""
    context, found = lm.new_context(), []
    for at, count in ((0, 30), (30, 1), (20, 30)):
        context.delete(at, len(context))
        context.append(random_ids(count, seed=at))
        found.append(lm.next_logits(context).clone())
    return found


def off(lm: LanguageModel, other: LanguageModel) -> float:
    pairs = zip(converse(lm), converse(other), strict=True)
    return max(float((found - want).abs().max()) for found, want in pairs)


@pytest.mark.parametrize("kind", ("full", "windowed"))
def test_logits_equal_those_of_one_process(group: Group, kind: str) -> None:
    folder = checkpoint("llama", kind)[0]
    assert off(loaded(folder, group), model("llama", kind)) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_of_every_family_that_can_be_split(group: Group, tmp_path: Path, name: str) -> None:
    folder = write_family(tmp_path, name)
    try:
        lm = loaded(folder, group)
    except UsageError as error:
        assert "split" in error.message and ModelConfig.from_folder(folder).family in error.message
        return
    assert off(lm, loaded(folder, None)) < 1e-4


def test_in_16_bits_and_with_a_vocabulary_that_does_not_divide(
    group: Group, tmp_path: Path
) -> None:
    config = nazx({**LLAMA, "vocab_size": 301, "tie_word_embeddings": False}, WINDOWED)
    folder = write_checkpoint(tmp_path / "m", config)
    alone = loaded(folder, None)
    assert off(loaded(folder, group), alone) < 1e-4
    rounded = converse(loaded(folder, group, "bfloat16"))
    errors = map(relative_error, rounded, converse(alone))
    assert max(errors) < 0.06


def test_a_process_holds_its_part_of_matrices_and_of_keys(group: Group) -> None:
    lm, alone = loaded(checkpoint("llama", "full")[0], group), model("llama", "full")
    held = sum(
        each.to_local().nbytes if isinstance(each, split.DTensor) else each.nbytes
        for each in lm.decoder.parameters()
    )
    assert held == weight_bytes(lm.config, "float32", 4, parts=2)
    contexts = []
    for each in (lm, alone):
        contexts.append(each.new_context())
        contexts[-1].append(random_ids(100, seed=1))
        each.next_logits(contexts[-1])
    bytes_ = [context.memory.keys.nbytes for context in contexts]  # type: ignore[attr-defined]
    assert 2 * bytes_[0] == bytes_[1]
