"""Generation: against a naive loop, streaming, stops, limits, interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_helpers import run_nazx, tiny_checkpoint
from models import model, random_ids
from safetensors.torch import load_file, save_file

from nazx_cli.context.live_cache import LiveCache
from nazx_cli.engine.generator import Step
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.engine.sampling import Sampling

KINDS = ("inattention", "windowed", "full")


def _naive(lm: LanguageModel, ids: list[int], count: int) -> list[int]:
    """Greedy decoding that runs the whole sequence for every token."""
    out = list(ids)
    for _ in range(count):
        out.append(int(lm.logits(out)[-1].argmax()))
    return out[len(ids) :]


def _generate(lm: LanguageModel, ids: list[int], **options: object) -> list[Step]:
    context = lm.new_context()
    context.append(ids)
    options.setdefault("stop_ids", frozenset())
    return list(lm.generate(context, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", (1, 6, 17))
def test_greedy_tokens_equal_the_naive_loop(kind: str, length: int) -> None:
    ids = random_ids(length, seed=30)
    for layout in model("llama", kind).layouts:
        lm = model("llama", kind, layout=layout)
        got = [step.token for step in _generate(lm, ids, max_tokens=20)]
        assert got == _naive(lm, ids, 20)


def test_the_same_seed_gives_the_same_text() -> None:
    lm, ids = model("llama", "windowed"), random_ids(5, seed=31)
    texts = []
    for seed in (7, 7, 8):
        sampling = Sampling(temperature=1.5, seed=seed)
        texts.append(_generate(lm, ids, max_tokens=30, sampling=sampling)[-1].text)
    assert texts[0] == texts[1] != texts[2]


def test_steps_tell_what_was_generated() -> None:
    lm, ids = model("neox-sequential", "inattention"), random_ids(9, seed=32)
    context = lm.new_context()
    context.append(ids)
    steps = list(lm.generate(context, max_tokens=12, stop_ids=frozenset()))
    tokens = [step.token for step in steps]
    assert context.ids.tolist() == ids + tokens
    assert "".join(step.delta for step in steps) == steps[-1].text == lm.tokenizer.decode(tokens)
    assert [step.finish for step in steps] == [None] * 11 + ["length"]
    assert [step.stats.generated for step in steps] == list(range(1, 13))
    assert [step.stats.context_tokens for step in steps] == list(range(10, 22))
    assert steps[-1].stats.context_bytes == context.nbytes
    assert steps[-1].stats.first_token_seconds > 0
    assert steps[-1].stats.tokens_per_second > 0


def test_a_stop_token_ends_the_answer_and_stays_out_of_the_context() -> None:
    lm, ids = model("llama", "windowed"), random_ids(9, seed=33)
    tokens = [step.token for step in _generate(lm, ids, max_tokens=10)]
    stop = tokens[4]
    context = lm.new_context()
    context.append(ids)
    steps = list(lm.generate(context, max_tokens=10, stop_ids=frozenset({stop})))
    until = tokens.index(stop)
    assert [step.token for step in steps] == tokens[: until + 1]
    assert steps[-1].finish == "stop"
    assert context.ids.tolist() == ids + tokens[:until]


def test_stopping_to_iterate_keeps_what_was_said() -> None:
    lm, ids = model("llama", "windowed"), random_ids(9, seed=34)
    whole = [step.token for step in _generate(lm, ids, max_tokens=8)]
    context = lm.new_context()
    context.append(ids)
    for step in lm.generate(context, max_tokens=8, stop_ids=frozenset()):
        if step.stats.generated == 3:
            break
    assert context.ids.tolist() == ids + whole[:3]
    rest = [s.token for s in lm.generate(context, max_tokens=5, stop_ids=frozenset())]
    assert rest == whole[3:]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_inside_a_layer_leaves_a_context_that_still_works(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = random_ids(20, seed=35)
    for layout in model("llama", kind).layouts:
        lm = model("llama", kind, layout=layout)
        context = lm.new_context()
        context.append(ids[:15])
        lm.next_logits(context)
        context.append(ids[15:])
        block = lm.decoder.layers[1]
        with monkeypatch.context() as patch:
            patch.setattr(type(block), "residual", _interrupting(type(block).residual, block))
            with pytest.raises(KeyboardInterrupt):
                lm.next_logits(context)
        assert context.ids.tolist() == ids
        assert (lm.next_logits(context) - lm.logits(ids)[-1]).abs().max() < 1e-4


def _interrupting(real, at):  # type: ignore[no-untyped-def]
    def residual(self, h, attended):  # type: ignore[no-untyped-def]
        if self is at:
            raise KeyboardInterrupt
        return real(self, h, attended)

    return residual


def _characters(text: str, lm: LanguageModel) -> Iterator[str]:
    stream = lm.tokenizer.stream()
    for token in lm.tokenizer.encode(text):
        yield stream.push(token)
    yield stream.flush()


@pytest.mark.parametrize(
    "text", ("plain", "naïve café", "日本語と한국어", "👩‍👩‍👧 🏳️‍🌈!", "a\n\n  b\t", "")
)
def test_streamed_text_never_holds_half_a_character(text: str) -> None:
    lm = model("llama", "windowed")
    pieces = list(_characters(text, lm))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_text_are_shown_as_replacement_characters_in_the_end() -> None:
    lm = model("llama", "windowed")
    broken = lm.tokenizer.encode("é")[:1]
    stream = lm.tokenizer.stream()
    assert stream.push(broken[0]) == ""
    assert stream.flush() == "\ufffd"


def test_a_repeat_penalty_breaks_a_loop() -> None:
    lm, ids = model("llama", "windowed"), [5] * 20
    plain = [s.token for s in _generate(lm, ids, max_tokens=30)]
    sampling = Sampling(repeat_penalty=5.0)
    varied = [s.token for s in _generate(lm, ids, max_tokens=30, sampling=sampling)]
    assert len(set(varied)) > len(set(plain))


def test_the_live_prefix_is_never_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, ids = model("llama", "windowed"), random_ids(30, seed=36)
    ran: list[int] = []
    real = LiveCache.commit

    def counting(self: LiveCache, ids: torch.Tensor) -> None:
        ran.append(len(ids))
        real(self, ids)

    monkeypatch.setattr(LiveCache, "commit", counting)
    context = lm.new_context()
    context.append(random_ids(40, seed=37), resident=True)
    context.append(ids[:6])
    lm.next_logits(context)
    context.append(ids[6:10])
    lm.next_logits(context)
    context.insert(0, random_ids(7, seed=38), resident=True)  # documents do not run
    context.append(ids[10:11])
    lm.next_logits(context)
    context.truncate_live(8)
    context.append([1, 2])
    lm.next_logits(context)
    assert ran == [6, 4, 1, 2]


def test_a_windowed_cache_stays_bounded_and_right_far_past_the_window() -> None:
    lm = model("llama", "windowed")
    ids = random_ids(1500, seed=39)
    context = lm.new_context()
    context.append(ids[:600])
    lm.next_logits(context)
    sizes = []
    for start in range(600, 1500, 90):
        context.append(ids[start : start + 90])
        got = lm.next_logits(context)
        assert (got - lm.logits(ids[: start + 90])[-1]).abs().max() < 1e-4
        sizes.append(context.memory.keys.numel())
    assert sizes[-1] == sizes[2]
    context.truncate_live(1450)
    assert (lm.next_logits(context) - lm.logits(ids[:1450])[-1]).abs().max() < 1e-4
    context.truncate_live(700)  # further back than the cache remembers
    assert (lm.next_logits(context) - lm.logits(ids[:700])[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_damaged_weights_end_in_one_line_that_names_verify(tmp_path: Path, value: float) -> None:
    folder = tiny_checkpoint(tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    out, err, code = run_nazx("ask", "--model", str(folder), "Who?")
    assert (out, code) == ("", 1)
    assert "nazx verify" in err and len(err.strip().splitlines()) <= 2
    _, err, code = run_nazx("verify", str(folder))
    assert code != 0 and "model.layers.1.mlp.up_proj.weight" in err


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_logits_of_the_cpu(kind: str) -> None:
    from nazx_cli import load_model

    cpu = model("neox-sequential", kind)
    ids = random_ids(40, seed=40)
    for layout in cpu.layouts:
        gpu = load_model(cpu.folder, device="cuda", layout=layout)
        context = gpu.new_context()
        context.append(ids[:30])
        gpu.next_logits(context)
        context.append(ids[30:])
        torch.testing.assert_close(
            gpu.next_logits(context).cpu(), cpu.logits(ids)[-1], atol=1e-3, rtol=1e-3
        )
