"""Whole sequences and next tokens of every attention kind against the float64 reference."""

from __future__ import annotations

import pytest
from models import BASES, checkpoint, model, random_ids, reference, relative_error

from nazx_cli import load_model
from nazx_cli.errors import NazxError, UsageError

KINDS = ("inattention", "convolved", "windowed", "full")
LENGTHS = (1, 2, 7, 11, 12, 13, 31)  # the window is 8, the sinks 3: 11 is the last plain length


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_logits_of_a_sequence_equal_the_reference(base: str, kind: str) -> None:
    lm = model(base, kind)
    ids = random_ids(31, seed=1)
    want = reference(base, kind).logits(ids)
    for length in LENGTHS:
        got = lm.logits(ids[:length])
        assert got.shape == (length, 300)
        assert (got.double() - want[:length]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_next_logits_equal_the_reference_however_the_context_was_built(
    base: str, kind: str
) -> None:
    ids = random_ids(31, seed=2)
    want = reference(base, kind).logits(ids)
    for layout in model(base, kind).layouts:
        lm = model(base, kind, layout=layout)
        stepwise = lm.new_context()
        for length in LENGTHS:
            stepwise.append(ids[len(stepwise) : length])
            at_once = lm.new_context()
            at_once.append(ids[:length])
            for context in (stepwise, at_once):
                got = lm.next_logits(context)
                assert got.shape == (300,)
                assert (got.double() - want[length - 1]).abs().max() < 1e-4, layout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_bfloat16_stays_near_the_reference(base: str, kind: str) -> None:
    ids = random_ids(31, seed=3)
    want = reference(base, kind).logits(ids)
    for layout in model(base, kind).layouts:
        lm = model(base, kind, "bfloat16", layout)
        assert relative_error(lm.logits(ids), want) < 0.04
        context = lm.new_context()
        context.append(ids)
        assert relative_error(lm.next_logits(context), want[-1]) < 0.06, layout


@pytest.mark.parametrize("kind", KINDS)
def test_no_tokens_are_a_clear_error(kind: str) -> None:
    lm = model("llama", kind)
    with pytest.raises(NazxError, match="empty"):
        lm.next_logits(lm.new_context())
    with pytest.raises(NazxError, match="no tokens"):
        lm.logits([])


def test_resident_tokens_do_not_run_through_a_windowed_model() -> None:
    lm = model("llama", "windowed")
    ids, document = random_ids(20, seed=4), random_ids(50, seed=5)
    alone, beside = lm.new_context(), lm.new_context()
    alone.append(ids)
    beside.append(document, resident=True)
    with pytest.raises(NazxError, match="no conversation"):
        lm.next_logits(beside)
    beside.append(ids)
    assert (lm.next_logits(alone) == lm.next_logits(beside)).all()


def test_full_attention_reads_resident_tokens() -> None:
    lm, ids = model("llama", "full"), random_ids(20, seed=6)
    context = lm.new_context()
    context.append(ids[:12], resident=True)
    context.append(ids[12:])
    want = reference("llama", "full").logits(ids)[-1]
    assert (lm.next_logits(context).double() - want).abs().max() < 1e-4


def test_logits_are_differentiable_where_weights_ask_for_it() -> None:
    for kind in KINDS:
        lm = model("neox-sequential", kind)
        weight = lm.decoder.layers[1].qkv.weight.requires_grad_(True)
        lm.logits(random_ids(13, seed=7)).square().mean().backward()
        assert weight.grad is not None
        assert float(weight.grad.abs().sum()) > 0


def test_an_unknown_layout_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="postings"):
        load_model(checkpoint("llama", "inattention")[0], layout="shelves")
    with pytest.raises(UsageError, match="cached"):
        load_model(checkpoint("llama", "windowed")[0], layout="postings")
