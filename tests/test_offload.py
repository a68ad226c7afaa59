"""Layers that a device has no room for: what is planned, and that they run as the others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_configs import write_family
from models import checkpoint, model, random_ids

from nazx_cli.catalog.registry import Registry
from nazx_cli.checkpoint.load import load_decoder
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.memory.estimate import TextSize, layer_bytes
from nazx_cli.memory.plan import GPU_WORK, LoadOptions, Machine, plan

IDS = random_ids(20, seed=71)


@pytest.mark.parametrize("on_device", (0, 1, 2, 3))
@pytest.mark.parametrize("base", ("neox-sequential", "llama"))
def test_logits_do_not_depend_on_where_the_layers_are(base: str, on_device: int) -> None:
    folder = checkpoint(base, "full")[0]
    decoder = load_decoder(folder, "cpu", "float32", on_device=on_device)
    lm = LanguageModel("offloaded", decoder, folder)
    whole = model(base, "full")
    assert torch.equal(lm.logits(IDS), whole.logits(IDS))
    one, other = lm.new_context(), whole.new_context()
    for piece in (IDS[:15], IDS[15:16], IDS[16:]):
        one.append(piece)
        other.append(piece)
        # One position of the whole model is run by compiled code, of this one by PyTorch.
        assert (lm.next_logits(one) - whole.next_logits(other)).abs().max() < 1e-4
    held = [all(p.is_meta for p in block.parameters()) for block in decoder.layers]
    assert held == [layer >= on_device for layer in range(3)]


@pytest.mark.parametrize("kind", ("int8", "nf4"))
def test_quantized_layers_are_kept_in_host_memory_too(kind: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "qwen3")
    whole = load_decoder(folder, "cpu", "bfloat16", kind)
    decoder = load_decoder(folder, "cpu", "bfloat16", kind, on_device=1)
    want = LanguageModel("whole", whole, folder).logits(IDS)
    assert torch.equal(LanguageModel("offloaded", decoder, folder).logits(IDS), want)
    for layer, block in enumerate(decoder.layers):
        tensors = (*block.parameters(), *block.buffers())
        assert all(tensor.is_meta == (layer >= 1) for tensor in tensors)


def shapes(name: str, kind: str = "windowed") -> ModelConfig:
    entry = Registry.load().find(name)
    assert entry is not None
    attention = AttentionConfig(kind, 2048, 4) if kind == "windowed" else AttentionConfig(kind)
    return replace(entry.config, attention=attention)


def test_as_many_layers_stay_on_the_device_as_fit() -> None:
    config, gpu = shapes("nazx-2.8b"), Machine("bfloat16", offloads=True)
    layer, seen = layer_bytes(config, "bfloat16", 2), []
    for limit in range(2_000_000_000, 8_000_000_000, 500_000_000):
        found = plan(config, TextSize(), LoadOptions(limit=limit, dtype="bfloat16"), gpu)
        assert found.fits
        assert found.estimate.total <= limit
        if found.on_device is None:
            assert found.estimate.host == 0
            continue
        assert limit - found.estimate.total < layer
        assert found.estimate.host == (config.num_layers - found.on_device) * layer
        assert "stay in host memory" in found.reason
        seen.append(found.on_device)
    assert seen == sorted(seen)
    assert len(set(seen)) > 5


def test_quantizing_comes_before_layers_leave_the_device() -> None:
    gpu = Machine("bfloat16", can_quantize=True, offloads=True)
    found = plan(shapes("nazx-2.8b"), TextSize(), LoadOptions(limit=4_700_000_000), gpu)
    assert (found.estimate.precision, found.on_device) == ("int8", None)
    found = plan(shapes("nazx-2.8b"), TextSize(), LoadOptions(limit=2_000_000_000), gpu)
    assert found.estimate.precision == "nf4"
    assert found.on_device is not None


def test_what_cannot_be_streamed_is_refused() -> None:
    gpu = Machine("bfloat16", offloads=True)
    tight = LoadOptions(limit=300_000_000, dtype="bfloat16")
    assert not plan(shapes("nazx-2.8b"), TextSize(), tight, gpu).fits
    room = LoadOptions(limit=2_000_000_000, dtype="bfloat16")
    assert not plan(shapes("nazx-2.8b", "inattention"), TextSize(), room, gpu).fits
    assert not plan(shapes("nazx-2.8b"), TextSize(), room, Machine("bfloat16")).fits


def test_an_embedding_in_host_memory_gives_the_same_logits(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "mistral")
    want = LanguageModel("whole", load_decoder(folder, "cpu", "float32"), folder).logits(IDS)
    decoder = load_decoder(folder, "cpu", "float32", host_embedding=True)
    assert decoder.embed.place == torch.device("cpu")
    assert torch.equal(LanguageModel("apart", decoder, folder).logits(IDS), want)


def test_a_gpu_needs_no_room_for_an_embedding_that_is_not_the_head_as_well() -> None:
    gpu, plain = Machine("bfloat16", embeds_apart=True), Machine("bfloat16")
    options = LoadOptions(limit=64_000_000_000, dtype="bfloat16")
    untied, tied = shapes("nazx-1b"), shapes("llama-3.2-1b")
    found, whole = plan(untied, TextSize(), options, gpu), plan(untied, TextSize(), options, plain)
    nbytes = untied.vocab_size * untied.hidden_size * 2
    assert (found.host_embedding, found.estimate.host) == (True, nbytes)
    assert found.estimate.total == whole.estimate.total - nbytes
    kept = plan(tied, TextSize(), options, gpu)
    assert kept.estimate.host == 0
    attends = plan(shapes("nazx-1b", "inattention"), TextSize(), options, gpu)
    assert (attends.host_embedding, attends.estimate.host) == (False, 0)


@pytest.mark.parametrize("name", ("llama-3.1-8b", "qwen3-8b"))
def test_eight_billion_weights_fit_a_card_of_eight_gigabytes_in_four_bits(name: str) -> None:
    gpu = Machine("bfloat16", can_quantize=True, embeds_apart=True, work=GPU_WORK)
    found = plan(shapes(name), TextSize(100_000, 7_000), LoadOptions(limit=7_200_000_000), gpu)
    assert found.fits
    assert (found.estimate.precision, found.on_device) == ("nf4", None)
