"""Cells, which stand for tokens where initial states see more than their own; and their slots."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from models import CONVOLVED, model, random_ids, relative_error

from nazx_cli.bench.models import registry_config
from nazx_cli.config import AttentionConfig, ConfigError, ModelConfig
from nazx_cli.context.cells import Cells, grams
from nazx_cli.context.context import TokenSequence
from nazx_cli.kernels import rows
from nazx_cli.kernels.rows import CellSlots
from nazx_cli.memory.estimate import distinct_cells
from nazx_cli.model.layers import grams_of


def convolved(window: int) -> ModelConfig:
    config = registry_config("nazx-160m")
    return replace(config, attention=AttentionConfig("inattention", initial_window=window))


@pytest.mark.parametrize("window", (2, 3, 4))
def test_cells_tell_the_tokens_that_a_position_sees_however_they_are_cut(window: int) -> None:
    config, largest = convolved(window), registry_config("nazx-160m").vocab_size - 1
    ids = torch.tensor([0, largest, largest, largest, largest, *random_ids(30, 1), 0, 0, 0, 0])
    want = grams_of(ids, window)
    for count in (0, 1, window - 1, window, len(ids)):
        tokens = TokenSequence()
        tokens.insert(0, ids[:count].to(torch.int32), True)
        cells = Cells(tokens, config)
        assert len(cells) == count
        for start in range(count + 1):
            for stop in {start, min(start + 1, count), min(start + 5, count), count}:
                held = cells.slice(start, stop)
                assert torch.equal(grams(held, config), want[start:stop])


def test_slots_of_cells_are_those_of_a_plain_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RECENT_CELLS", 5)
    rng, slots, table = random.Random(3), CellSlots(), {}
    for _ in range(60):
        new = sorted({rng.randrange(1 << 62) for _ in range(rng.choice((0, 1, 1, 3, 20)))})
        new = sorted({*new, *rng.sample(sorted(table), min(len(table), 2))})
        fresh = slots.assign(torch.tensor(new, dtype=torch.int64)).tolist()
        assert fresh == [cell for cell in new if cell not in table]
        table |= {cell: len(table) + i for i, cell in enumerate(fresh)}
        if rng.random() < 0.1:
            kept = rng.sample(range(len(table)), len(table) // 2)
            cell_of = {slot: cell for cell, slot in table.items()}
            slots.keep(torch.tensor(kept, dtype=torch.int64))
            table = {cell_of[slot]: number for number, slot in enumerate(kept)}
        asked = [*table, 1, 1 << 62, 0]
        rng.shuffle(asked)
        found = slots.of(torch.tensor(asked, dtype=torch.int64)).tolist()
        assert found == [table.get(cell, -1) for cell in asked]
        assert len(slots) == len(table)


@pytest.mark.parametrize("quantize", ("int8", "nf4"))
def test_quantized_layers_attend_to_cells_as_over_a_whole_sequence(quantize: str) -> None:
    lm = model("llama", "convolved", quantize=quantize)
    ids = random_ids(31, seed=2)
    want = lm.logits(ids)[-1]
    for layout in lm.layouts:
        context = lm.new_context()
        lm.move(context, layout)
        context.append(ids)
        context.delete(3, 5)
        context.insert(3, ids[3:5])
        assert relative_error(lm.next_logits(context), want) < 0.01, layout


def test_a_vocabulary_whose_cells_cannot_be_numbered_is_refused() -> None:
    from checkpoints import LLAMA, nazx

    data = {**nazx(LLAMA, CONVOLVED), "vocab_size": 3_000_000}
    with pytest.raises(ConfigError, match="initial_window 3"):
        ModelConfig.from_dict(data)


def test_cells_grow_like_those_of_real_english() -> None:
    counted = {  # of 233 novels strung together, means of eight stretches, SmolLM2's tokenizer
        2: {10_000: 6_634, 100_000: 43_232, 1_000_000: 258_608},
        3: {10_000: 8_998, 100_000: 77_117, 1_000_000: 626_705},
        4: {10_000: 9_641, 100_000: 91_354, 1_000_000: 845_564},
    }
    for window, by_length in counted.items():
        for positions, cells in by_length.items():
            assert distinct_cells(positions, convolved(window)) == pytest.approx(cells, rel=0.04)
