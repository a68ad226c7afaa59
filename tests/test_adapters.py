"""Adapters: PEFT's format both ways, merging, and refusing what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, write_checkpoint
from cli_helpers import run_nazx
from models import random_ids, relative_error
from safetensors.torch import load_file, save_file
from training_models import fresh, with_random_additions

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters import verify_adapter
from nazx_cli.checkpoint.adapters.lora import LoraPair, adapted, read_adapter, write_adapter
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.recipes import recipes
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError, UsageError
from nazx_cli.training.lora import LoraSettings, begin_from, pairs

IDS = random_ids(50, seed=4)


def trained(folder: Path, base: str, settings: LoraSettings | None = None) -> tuple[Path, Path]:
    """A model's folder, and an adapter for it with random additions."""
    lm = fresh(folder / base, base)
    adapted = with_random_additions(lm, settings or LoraSettings(4, 8.0))
    made = folder / f"{base}-adapter"
    write_adapter(
        made,
        pairs(adapted),
        alpha=(settings or LoraSettings(4, 8.0)).alpha,
        base="tiny",
        notes={"answers": "cited"},
        card="# Card\n",
        dtype=torch.float32,
    )
    torch.save(lm.logits(IDS), folder / "want.pt")
    return folder / base, made


@pytest.mark.parametrize("base", ("llama", "neox-sequential"))
@pytest.mark.parametrize("targets", ((), ("all-but-first",)))
def test_merged_logits_are_those_of_training(
    tmp_path: Path, base: str, targets: tuple[str, ...]
) -> None:
    if targets:
        targets = ("v_proj", "up_proj") if base == "llama" else ("query_key_value",)
    model, adapter = trained(tmp_path, base, LoraSettings(3, 5.0, targets))
    want = torch.load(tmp_path / "want.pt")
    lm = load_model(model, adapter=adapter)
    assert (lm.logits(IDS) - want).abs().max() < 1e-4
    assert (load_model(model).logits(IDS) - want).abs().max() > 1e-2
    assert lm.cites


@pytest.mark.parametrize("wanted", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("base", ("llama", "neox-sequential"))
def test_matrices_are_merged_in_float32_in_their_places(
    tmp_path: Path, base: str, wanted: torch.dtype
) -> None:
    targets = ("v_proj",) if base == "llama" else ("query_key_value",)
    model, where = trained(tmp_path, base, LoraSettings(3, 5.0, targets))
    config, adapter = ModelConfig.from_folder(model), read_adapter(where)
    plain = Checkpoint.open(model)
    merged = adapted(plain, config, adapter)
    added = 0
    for recipe in recipes(config):
        out = recipe.read(merged, wanted=wanted)
        assert out.dtype == wanted and tuple(out.shape) == recipe.shape
        parts = []
        for name, _ in recipe.sources:
            pair = adapter.pairs.get(name.removesuffix(".weight"))
            part = plain.read(name).double()
            if pair is not None and name.endswith(".weight"):
                part += 5 / 3 * pair.up.double() @ pair.down.double()
                added += 1
            parts.append(part)
        want = recipe.arrange(parts) if recipe.arrange else parts[0]
        assert relative_error(out, want) < (1e-6 if wanted == torch.float32 else 4e-3)
        assert (
            recipe.read(merged).dtype
            == torch.cat([merged.read(name) for name, _ in recipe.sources]).dtype
        )
    assert added == config.num_layers


@pytest.mark.parametrize("base", ("llama", "neox-sequential"))
def test_peft_gives_the_same_logits_with_our_adapter(tmp_path: Path, base: str) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model, adapter = trained(tmp_path, base)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, adapter).eval()
    with torch.no_grad():
        want = theirs(torch.tensor([IDS])).logits[0]
    assert (load_model(model, adapter=adapter).logits(IDS) - want).abs().max() < 1e-4


@pytest.mark.parametrize("rslora", (False, True))
def test_an_adapter_that_peft_wrote_is_merged(tmp_path: Path, rslora: bool) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = write_checkpoint(tmp_path / "model", LLAMA)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(
        r=5,
        lora_alpha=7,
        target_modules=["q_proj", "v_proj", "down_proj"],
        use_rslora=rslora,
        rank_pattern={"v_proj": 3},
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        want = theirs(torch.tensor([IDS])).logits[0]
    lm = load_model(model, adapter=tmp_path / "adapter")
    assert (lm.logits(IDS) - want).abs().max() < 1e-4
    assert not lm.cites


def test_an_adapter_is_merged_before_quantizing(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model, adapter = trained(tmp_path, "llama")
    merged = load_model(model, adapter=adapter)
    whole = fresh(tmp_path / "llama")
    for mine, theirs in zip(whole.decoder.parameters(), merged.decoder.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    from nazx_cli.training.full import write_full

    write_full(tmp_path / "whole", whole.decoder, model)
    want = load_model(tmp_path / "whole", quantize="int8").logits(IDS)
    assert torch.equal(load_model(model, quantize="int8", adapter=adapter).logits(IDS), want)


def test_the_reading_adapter_is_merged_while_documents_are_asked_about(tmp_path: Path) -> None:
    model, adapter = trained(tmp_path, "llama")
    want = torch.load(tmp_path / "want.pt")
    lm = load_model(model)
    plain = lm.logits(IDS)
    assert not lm.about_documents(True)
    lm.reader = adapter
    assert lm.about_documents(True) and lm.cites
    assert (lm.logits(IDS) - want).abs().max() < 1e-4
    assert not lm.about_documents(True)
    assert lm.about_documents(False) and not lm.cites
    assert torch.equal(lm.logits(IDS), plain)


def test_training_goes_on_from_an_adapter(tmp_path: Path) -> None:
    for base in ("llama", "neox-sequential"):
        model, adapter = trained(tmp_path, base)
        lm = fresh(model, base)
        adapted = with_random_additions(lm, LoraSettings(4, 8.0), seed=9)
        begin_from(adapted, [read_adapter(adapter)])
        assert (lm.logits(IDS) - torch.load(tmp_path / "want.pt")).abs().max() < 1e-5
        other = with_random_additions(fresh(model, base), LoraSettings(4, 32.0))
        begin_from(other, [read_adapter(adapter)])  # adds as much, at another scale
        for (_, mine), (_, theirs) in zip(pairs(other), pairs(adapted), strict=True):
            assert torch.allclose(mine.up * 8.0, theirs.up * 2.0)


def test_training_begins_from_the_mean_of_several_adapters(tmp_path: Path) -> None:
    model = fresh(tmp_path / "model").folder
    kept = []
    for seed in (1, 2, 3):
        adapted = with_random_additions(fresh(model), LoraSettings(4, 4.0 * seed), seed=seed)
        folder = tmp_path / str(seed)
        write_adapter(folder, pairs(adapted), alpha=4.0 * seed, base="b", notes={}, card="")
        kept.append(read_adapter(folder))
    adapted = with_random_additions(fresh(model), LoraSettings(4, 8.0), seed=9)
    begin_from(adapted, kept)
    for module, pair in pairs(adapted):
        down = sum(each.pairs[module].down.double() for each in kept) / 3
        up = sum(each.pairs[module].up.double() * each.scales[module] for each in kept) / 3
        assert (pair.down - down).abs().max() < 1e-3  # they are kept in bfloat16
        assert (2.0 * pair.up - up).abs().max() < 1e-3
    with pytest.raises(UsageError, match="has rank 4") as caught:
        begin_from(with_random_additions(fresh(model), LoraSettings(2, 4.0)), kept)
    assert caught.value.hint == "add --rank 4"
    some = with_random_additions(fresh(model), LoraSettings(4, 8.0, ("q_proj",)))
    write_adapter(tmp_path / "some", pairs(some), alpha=8.0, base="b", notes={}, card="")
    with pytest.raises(UsageError, match="different layers"):
        begin_from(adapted, [kept[0], read_adapter(tmp_path / "some")])


def refusal(model: Path, adapter: Path) -> str:
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(model, adapter=adapter)
    assert caught.value.hint
    return caught.value.message


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, adapter = trained(tmp_path, "llama")
    other = write_checkpoint(tmp_path / "wide", {**LLAMA, "intermediate_size": 96})
    assert "does not fit" in refusal(other, adapter) and "96" in refusal(other, adapter)
    neox = fresh(tmp_path / "neox", "neox-sequential").folder
    assert "has no layer model.layers.0" in refusal(neox, adapter)
    assert "is no adapter" in refusal(model, model)


def test_what_is_damaged_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    model, adapter = trained(tmp_path, "llama")
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    config = json.loads((adapter / "adapter_config.json").read_text())
    for key, value in (("peft_type", "IA3"), ("use_dora", True), ("bias", "all")):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        assert "adapter_config.json cannot be used" in refusal(model, adapter)
    (adapter / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refusal(model, adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    name = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != name}, weights)
    assert "only half" in refusal(model, adapter)
    save_file({**tensors, "base_model.model.extra": torch.ones(1)}, weights)
    assert "no part of a LoRA adapter" in refusal(model, adapter)
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "truncated" in refusal(model, adapter)
    weights.unlink()
    assert "cannot read" in refusal(model, adapter)


def test_verifying_reads_every_number(tmp_path: Path) -> None:
    _, adapter = trained(tmp_path, "llama")
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert verify_adapter(adapter) == (len(tensors) // 2, sum(t.numel() for t in tensors.values()))
    bad = LoraPair(torch.full((2, 48), torch.nan), torch.zeros(48, 2))
    write_adapter(
        adapter, [("model.layers.0.self_attn.o_proj", bad)], alpha=1, base="", notes={}, card=""
    )
    with pytest.raises(ModelUnavailableError, match="no numbers"):
        verify_adapter(adapter)


def test_none_means_the_model_as_it_is(tmp_path: Path) -> None:
    model, adapter = trained(tmp_path, "llama")
    lm = load_model(model, adapter="none")
    assert lm.adapter is None and lm.reader is None
    assert load_model(model, adapter=adapter).adapter is not None


def test_show_and_verify_take_adapters(tmp_path: Path) -> None:
    _, adapter = trained(tmp_path, "llama")
    out, err, code = run_nazx("verify", str(adapter))
    assert code == 0 and "21 matrices" in out, err
    out, err, code = run_nazx("show", str(adapter), "--json")
    facts = json.loads(out)
    assert code == 0 and facts["rank"] == 4 and facts["answers"] == "cited", err
    assert facts["parameters"] == read_adapter(adapter).num_parameters
    out, _, code = run_nazx("show", str(adapter))
    assert code == 0 and "down_proj" in out
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    _, err, code = run_nazx("verify", str(adapter))
    assert code == 5 and "truncated" in err
    out, _, code = run_nazx("show", "nazx-smol-135m")
    assert code == 0 and "reading adapter" in out
