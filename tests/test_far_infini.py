"""A compressive far memory: against the formulas in float64, over edits, stopped readings and other
weights, and in use."""

from __future__ import annotations

import json
import math
import random
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import nazx, random_tensors, write_checkpoint
from cli_helpers import run_nazx
from models import BASES, WINDOWED
from reference import Reference
from torch import Tensor

from nazx_cli import load_model
from nazx_cli.checkpoint.adapters.far import write_far_adapter
from nazx_cli.context.context import Context
from nazx_cli.context.cost import FAR_STATES, far_state_bytes
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.model.weights import Weights

RANK, SEGMENT = 3, 5
FAR = {**WINDOWED, "far": "infini", "far_rank": RANK, "far_segment": SEGMENT}


def far_tensors(config: dict[str, Any], gate: float = 0.0) -> dict[str, Tensor]:
    """A memory that makes a difference."""
    generator = torch.Generator().manual_seed(3)
    heads, c = config["num_attention_heads"], config["hidden_size"]
    layers, d = config["num_hidden_layers"], c // heads
    shared = config.get("num_key_value_heads", heads) * d

    def made(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    return {
        "far.gates": gate + made(layers, heads),
        "far.down": made(layers, 3 * RANK, c, scale=c**-0.5),
        "far.query": made(layers, heads * d, RANK),
        "far.key": made(layers, shared, RANK),
        "far.value": made(layers, shared, RANK),
    }


class Oracle(Reference):
    """Token by token and head by head, in float64; ``read`` comes before ``logits``."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super().__init__(config, tensors)
        self.delta = config["attention"]["far_update"] == "delta"
        self._layer, self._states = 0, torch.zeros(0)
        self.read([])

    def read(self, far: list[int]) -> None:
        """Store a far text, nothing else."""
        layers = self.config["num_hidden_layers"]
        shape = layers, self.kv_heads, self.dim
        self.m = torch.zeros(*shape, self.dim, dtype=torch.float64)
        self.z = torch.zeros(*shape, dtype=torch.float64)
        for start in range(0, len(far), SEGMENT):
            self._stores: list[tuple[int, Tensor]] = []
            self.final(far[start : start + SEGMENT])
            for layer, states in self._stores:
                self._store(layer, states)

    def _block(self, layer: int, h: Tensor, initial: Tensor) -> Tensor:
        self._layer = layer
        self._states = self._norm(h, f"{self._prefix(layer)}input_layernorm")
        if hasattr(self, "_stores"):
            self._stores.append((layer, self._states))
        return super()._block(layer, h, initial)

    def _prefix(self, layer: int) -> str:
        return f"{'gpt_neox' if self.neox else 'model'}.layers.{layer}."

    def _added(self, layer: int, part: int, name: str, a: Tensor) -> Tensor:
        """(heads, D) that the memory adds to one of q, k and v at one position."""
        down = self.t["far.down"][layer, part * RANK : (part + 1) * RANK]
        return (self.t[f"far.{name}"][layer] @ (down @ a)).view(-1, self.dim)

    def _sigma(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.exp())

    def _found(self, layer: int, kv: int, x: Tensor) -> Tensor:
        total = x @ self.z[layer, kv]
        return x @ self.m[layer, kv] / total if total > 0 else torch.zeros_like(x)

    def _store(self, layer: int, states: Tensor) -> None:
        _, keys, values = self._qkv(self._prefix(layer), states)
        stored = []
        for i, a in enumerate(states):
            k = self._sigma(keys[i] + self._added(layer, 1, "key", a))
            v = values[i] + self._added(layer, 2, "value", a)
            for kv in range(self.kv_heads):
                old = self._found(layer, kv, k[kv]) if self.delta else torch.zeros_like(v[kv])
                stored.append((kv, k[kv], v[kv] - old))
        for kv, one_key, one_value in stored:
            self.m[layer, kv] += torch.outer(one_key, one_value)
            self.z[layer, kv] += one_key

    def _attend(self, i: int, q: Tensor, turned: list[Tensor], v: Tensor) -> Tensor:
        own = super()._attend(i, q, turned, v).view(self.heads, self.dim)
        asked = self._sigma(q + self._added(self._layer, 0, "query", self._states[i]))
        out = []
        for head in range(self.heads):
            gate = 1 / (1 + math.exp(-float(self.t["far.gates"][self._layer, head])))
            found = self._found(self._layer, head * self.kv_heads // self.heads, asked[head])
            out.append(gate * found + (1 - gate) * own[head])
        return torch.cat(out)


def made(
    folder: Path, base: str = "llama", update: str = "linear", gate: float = 0.0
) -> tuple[LanguageModel, Oracle]:
    config = nazx(BASES[base], {**FAR, "far_update": update})
    tensors = {**random_tensors(config), **far_tensors(config, gate)}
    return load_model(write_checkpoint(folder, config, tensors)), Oracle(config, tensors)


def ids_of(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(300) for _ in range(count)]


def off(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def about(lm: LanguageModel, resident: list[int], live: list[int]) -> Context:
    context = lm.new_context()
    context.append(resident, resident=True)
    context.append(live)
    return context


def read(lm: LanguageModel, context: Context) -> list[int]:
    """Reads; how far it was before each segment."""
    return [done for done, _ in lm.read(context)]


@pytest.mark.parametrize("update", ("linear", "delta"))
@pytest.mark.parametrize("base", ("llama", "neox-sequential"))
def test_what_is_retrieved_is_what_the_formulas_say(tmp_path: Path, base: str, update: str) -> None:
    rng = random.Random(base + update)
    lm, oracle = made(tmp_path / "m", base, update)
    live = ids_of(rng, 14)  # more than window and sinks
    plain = oracle.logits(live)[-1]
    for count in (0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 2):
        resident = ids_of(rng, count)
        oracle.read(resident)
        want = oracle.logits(live)
        context = about(lm, resident, [])
        for at, token in enumerate(live):
            context.append([token])
            assert off(lm.next_logits(context), want[at]) < 2e-4
        assert off(lm.next_logits(about(lm, resident, live)), want[-1]) < 2e-4  # in one go
        rows = lm.logits(live, resident or None)
        assert off(rows, want) < 2e-4
        assert not count or off(want[-1], plain) > 1e-2


@pytest.mark.parametrize("update", ("linear", "delta"))
def test_edits_in_any_order_leave_what_a_fresh_reading_does(tmp_path: Path, update: str) -> None:
    rng = random.Random(update)
    lm, _ = made(tmp_path / "m", update=update)
    fresh, _ = made(tmp_path / "fresh", update=update)
    resident, live = ids_of(rng, 23), ids_of(rng, 6)
    context = about(lm, resident, live)
    for turn in range(14):
        at = rng.choice((len(resident), rng.randrange(len(resident) + 1)))
        if turn % 3 == 2:
            stop = min(len(resident), at + rng.randrange(9))
            context.delete(at, stop)
            del resident[at:stop]
        else:
            new = ids_of(rng, rng.randrange(12))
            context.insert(at, new, resident=True)
            resident[at:at] = new
        again = about(fresh, resident, live)
        fresh_memory = fresh.decoder.far
        assert fresh_memory is not None and fresh_memory.states is not None
        fresh_memory.states.forget()
        assert off(lm.next_logits(context), fresh.next_logits(again)) < 1e-6


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    rng = random.Random(1)
    lm, _ = made(tmp_path / "m")
    one, other = ids_of(rng, 4 * SEGMENT + 2), ids_of(rng, 2 * SEGMENT)
    assert read(lm, about(lm, one, [])) == [0, 5, 10, 15, 20]
    assert read(lm, about(lm, one, [])) == []
    context = about(lm, [*one, *other], ids_of(rng, 3))
    assert read(lm, context) == [20, 25, 30]  # what was appended, and the segment it begins in
    lm.next_logits(context)
    assert read(lm, context) == []
    context.append(ids_of(rng, 3))
    assert read(lm, context) == []
    assert read(lm, about(lm, one, [])) == []  # as after an undo
    changed = [*one[:-1], (one[-1] + 1) % 300]
    assert read(lm, about(lm, changed, [])) == [20]
    assert read(lm, about(lm, [*other, *one], []))[0] == 0  # in another order all of it


def test_a_reading_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = random.Random(2)
    lm, oracle = made(tmp_path / "m")
    resident, live = ids_of(rng, 9 * SEGMENT), ids_of(rng, 4)
    reading = lm.read(about(lm, resident, live))
    assert [next(reading)[0] for _ in range(4)] == [0, 5, 10, 15]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    del reading
    context = about(lm, resident, live)
    assert read(lm, context)[0] == 15
    oracle.read(resident)
    assert off(lm.next_logits(context), oracle.logits(live)[-1]) < 2e-4


def test_bytes_are_the_same_for_any_length(tmp_path: Path) -> None:
    rng = random.Random(3)
    lm, _ = made(tmp_path / "m")
    memory = lm.decoder.far
    assert memory is not None
    state = 3 * 2 * 8 * (8 + 1) * 4  # layers, key/value heads, D, D + 1, float32
    assert far_state_bytes(lm.config) == state
    held = []
    for count in (SEGMENT, 40 * SEGMENT, 400 * SEGMENT):
        context = about(lm, ids_of(rng, count), [1, 2])
        lm.next_logits(context)
        held.append(context.memory.nbytes)
        assert memory.nbytes <= FAR_STATES * state
    assert len(set(held)) == 1
    context.delete(0, 400 * SEGMENT)
    lm.next_logits(context)
    assert context.memory.nbytes == held[0] - state


def test_states_are_void_with_other_weights(tmp_path: Path) -> None:
    rng = random.Random(4)
    lm, oracle = made(tmp_path / "m")
    resident, live = ids_of(rng, 2 * SEGMENT), ids_of(rng, 4)
    context = about(lm, resident, live)
    lm.next_logits(context)
    block = lm.decoder.layers[1]
    block.out.weight = torch.nn.Parameter(2 * block.out.weight, requires_grad=False)
    oracle.t["model.layers.1.self_attn.o_proj.weight"] *= 2
    oracle.read(resident)
    assert read(lm, about(lm, resident, live)) == [0, 5]
    assert off(lm.next_logits(about(lm, resident, live)), oracle.logits(live)[-1]) < 2e-4


def test_logits_and_contexts_say_what_the_last_texts_are_whatever_was_read_between(
    tmp_path: Path,
) -> None:
    rng = random.Random(6)
    lm, oracle = made(tmp_path / "m")
    texts, live = [ids_of(rng, 7 * SEGMENT) for _ in range(4)], ids_of(rng, 5)
    contexts = [about(lm, text, live) for text in texts]  # more states than are kept
    for _ in range(2):
        for text, context in zip(texts, contexts, strict=True):
            oracle.read(text)
            want = oracle.logits(live)[-1]
            assert off(lm.next_logits(context), want) < 2e-4
            context.append([1])
            context.delete(len(context) - 1, len(context))


def test_a_memory_that_comes_and_goes_counts_as_other_weights(tmp_path: Path) -> None:
    base, far = adapter(tmp_path)
    lm = load_model(base, adapter=far)
    rng, seen = random.Random(7), Weights(lm.decoder)
    resident, live = ids_of(rng, 2 * SEGMENT), ids_of(rng, 4)
    context, digests = about(lm, resident, live), [seen.digest]
    found = [lm.next_logits(context)]
    lm.attend_far(False)
    digests.append(seen.digest)
    found.append(lm.next_logits(context))  # rows that were computed beside the memory are void
    lm.attend_far(True)
    digests.append(seen.digest)
    assert read(lm, context) == []
    found.append(lm.next_logits(context))
    assert digests[0] == digests[2] != digests[1]
    assert off(found[0], found[2]) < 1e-6
    assert off(found[1], load_model(base).next_logits(about(lm, [], live))) < 1e-6
    assert off(found[1], found[0]) > 1e-2


def test_with_closed_gates_the_model_is_what_it_was(tmp_path: Path) -> None:
    rng = random.Random(5)
    lm, _ = made(tmp_path / "m", gate=-12.0)
    config = nazx(BASES["llama"], WINDOWED)
    plain = load_model(write_checkpoint(tmp_path / "plain", config, random_tensors(config)))
    live = ids_of(rng, 9)
    want = plain.next_logits(about(plain, [], live))
    assert off(lm.next_logits(about(lm, ids_of(rng, 12), live)), want) < 1e-3


# As an adapter, and in a session


def adapter(folder: Path) -> tuple[Path, Path]:
    """The folders of a model that reads in windows, and of a memory for it."""
    attention = {**WINDOWED, "local_window": 600}
    config = nazx(BASES["llama"], attention, max_position_embeddings=4096)
    base = write_checkpoint(folder / "base", config)
    far = {**attention, **{key: FAR[key] for key in FAR if key.startswith("far")}}
    whole = nazx(BASES["llama"], {**far, "far_update": "delta"}, max_position_embeddings=4096)
    tensors = {**random_tensors(whole), **far_tensors(whole)}
    lm = load_model(write_checkpoint(folder / "whole", whole, tensors))
    memory = lm.decoder.far
    assert memory is not None
    notes = {"base": "tiny", "state_bytes": far_state_bytes(lm.config)}
    write_far_adapter(
        folder / "far",
        lm.config.attention,
        memory,
        base="tiny",
        notes=notes,
        card="# Card",
        dtype=torch.float32,
    )
    return base, folder / "far"


def test_show_verify_and_the_estimate_know_what_it_holds(tmp_path: Path) -> None:
    base, far = adapter(tmp_path)
    facts = json.loads(run_nazx("show", str(far), "--json")[0])
    assert (facts["far"], facts["far_update"], facts["far_segment"]) == ("infini", "delta", SEGMENT)
    assert facts["state_bytes"] == 3 * 2 * 8 * 9 * 4
    assert run_nazx("verify", str(far))[2] == 0
    asked = ("vram-estimate", "-m", str(base), "--ctx", "5000", "--json")
    plain, more = (
        json.loads(run_nazx(*asked, *extra)[0])["rows"][0]
        for extra in ((), ("--adapter", str(far)))
    )
    assert more["context_bytes"] - plain["context_bytes"] == facts["state_bytes"]
    assert more["weights_bytes"] - plain["weights_bytes"] >= FAR_STATES * facts["state_bytes"]
    told = run_nazx(*asked[:-1], "--adapter", str(far))[0]
    assert "keys and values and the far memory's state" in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"far_update": "none"}, "far_update"),
        ({"far_segment": 0}, "far_segment"),
        ({"far_rank": RANK + 1}, "far.down"),
    ],
)
def test_a_broken_config_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    base, far = adapter(tmp_path)
    path = far / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelUnavailableError, match=said):
        load_model(base, adapter=far)


def test_a_session_goes_on_without_a_second_reading(tmp_path: Path, isolated_home: Path) -> None:
    base, far = adapter(tmp_path)
    book = tmp_path / "book.txt"
    book.write_text("The goose laid an egg. " * 20)
    asked = ("chat", "-m", str(base), "--adapter", str(far), "--read", "resident")
    session = ("--session", "s", "--max-tokens", "3", "--no-gauge")
    _, told, code = run_nazx(*asked, *session, "--file", str(book), stdin="What?\n")
    assert code == 0, told
    assert "tokens, one after the other" in told
    saved = isolated_home / "sessions" / "s.far"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    _, told, code = run_nazx(*asked, *session, stdin="/undo\nWhat?\n")
    assert code == 0, told
    assert "one after the other" not in told
    saved.write_bytes(saved.read_bytes()[:-7])  # damaged: read again
    _, told, code = run_nazx(*asked, *session, stdin="What?\n")
    assert code == 0, told
    assert "one after the other" in told
    _, told, code = run_nazx("sessions", "rm", "s", "--yes")
    assert code == 0, told
    assert not saved.exists()
