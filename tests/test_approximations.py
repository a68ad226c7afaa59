"""Approximations of full attention, each held to loops in float64 written from its definition."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import run_nazx, tiny_checkpoint
from models import model, random_ids, relative_error
from numpy.typing import NDArray
from reading_helpers import alice_text

from nazx_cli.engine.language_model import load_model
from nazx_cli.errors import UsageError
from nazx_cli.evaluation.approximations import approximation_of
from nazx_cli.evaluation.approximations.base import LEAST, MASS, READ, Selecting, Sizes
from nazx_cli.evaluation.perplexity import read_through
from nazx_cli.evaluation.records import AnswerFile
from nazx_cli.names import APPROXIMATIONS

Array = NDArray[np.float64]
HEADS, KV_HEADS, DIM = 4, 2, 8


def softmax_over(q: Array, keys: Array, values: Array, more: Array | float = 0.0) -> Array:
    scores = keys @ q + more
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum() @ values)


def problem(count: int, streams: int, seed: int) -> tuple[torch.Tensor, ...]:
    """q, k, v; neighbouring keys are alike, and some are much looked at."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.randn(streams, HEADS, count, DIM, generator=draw)
    k = torch.randn(streams, KV_HEADS, count, DIM, generator=draw)
    k += (
        2.0
        * torch.randn(streams, KV_HEADS, count // 8 + 1, DIM, generator=draw).repeat_interleave(
            8, 2
        )[:, :, :count]
    )
    return q, k, torch.randn(streams, KV_HEADS, count, DIM, generator=draw)


def star(q: Array, k: Array, v: Array, block: int) -> Array:
    out, count = np.zeros_like(q), q.shape[2]
    last = max(0, math.ceil(count / block) - 1)
    if last and count - last * block < block / 2:
        last -= 1
    for i in range(count):
        mine = min(i // block, last)
        own = [j for j in range(i + 1) if min(j // block, last) == mine]
        anchor = [j for j in range(block) if j < own[0]]
        earlier = range(own[0])
        for h in range(HEADS):
            g = h // (HEADS // KV_HEADS)
            near = anchor + own
            out[0, h, i] = softmax_over(q[0, h, i], k[0, g, near], v[0, g, near])
            keys = np.concatenate((k[0, g, earlier], k[1, g, own]))
            values = np.concatenate((v[0, g, earlier], v[1, g, own]))
            out[1, h, i] = softmax_over(q[1, h, i], keys, values)
    return out


def by_choice(
    q: Array, k: Array, v: Array, choose: Callable[[Array, Array, int], list[int]]
) -> Array:
    """Each head of each query meets the keys that ``choose`` gives for it."""
    out = np.zeros_like(q)
    for h in range(HEADS):
        g = h // (HEADS // KV_HEADS)
        for i in range(q.shape[2]):
            met = choose(q[0, h, i], k[0, g], i)
            out[0, h, i] = softmax_over(q[0, h, i], k[0, g, met], v[0, g, met])
    return out


def by_landmarks(query: Array, keys: Array, i: int, block: int, blocks: int) -> list[int]:
    marks = [
        (float(query @ keys[b * block : (b + 1) * block].mean(0)), b) for b in range(i // block)
    ]
    best = [b for _, b in sorted(marks, reverse=True)[:blocks]]
    return [j for j in range(i + 1) if j // block in (*best, i // block)]


def landmark(q: Array, k: Array, v: Array, block: int, blocks: int) -> Array:
    return by_choice(q, k, v, lambda *of: by_landmarks(*of, block, blocks))


def by_levels(query: Array, keys: Array, i: int, percent: int, sure: bool = False) -> list[int]:
    always = [j for j in range(i + 1) if j < 64 or j // 64 == i // 64]
    known = np.exp(keys[always] @ query).sum()
    left = [j for j in range(64, i + 1) if j // 64 < i // 64]
    for size in (64, 8):
        low, weight = {}, {}
        for c in sorted({j // size for j in left}):
            chunk = keys[c * size : (c + 1) * size]
            low[c] = weight[c] = size * np.exp(chunk.mean(0) @ query)
            if sure:
                box = np.where(query > 0, chunk.max(0), chunk.min(0))
                weight[c] = size * np.exp(box @ query)
        may_go = (100 - percent) / 100 / 2 * (known + sum(low.values()))
        for c in sorted(weight, key=lambda c: weight[c]):
            if weight[c] > may_go:
                break
            may_go -= weight[c]
            left = [j for j in left if j // size != c]
    return always + left


def hip(q: Array, k: Array, v: Array, percent: int, sure: bool = False) -> Array:
    return by_choice(q, k, v, lambda *of: by_levels(*of, percent, sure))


def hip_sure(q: Array, k: Array, v: Array, percent: int) -> Array:
    return hip(q, k, v, percent, sure=True)


def slots(q: Array, k: Array, v: Array, count: int) -> Array:
    out, latest = np.zeros_like(q), count - count // 2
    for g in range(KV_HEADS):
        pool: list[tuple[Array, Array, int]] = []
        for i in range(q.shape[2]):
            if i >= latest:
                key, value = k[0, g, i - latest], v[0, g, i - latest]
                if len(pool) < count // 2:
                    pool.append((key, value, 1))
                else:
                    near = min(range(len(pool)), key=lambda s: np.linalg.norm(pool[s][0] - key))
                    mean, mean_value, n = pool[near]
                    both = ((mean * n + key) / (n + 1), (mean_value * n + value) / (n + 1))
                    pool[near] = (*both, n + 1)
            ring = range(max(0, i - latest + 1), i + 1)
            keys = np.array([*k[0, g, ring], *(each[0] for each in pool)])
            values = np.array([*v[0, g, ring], *(each[1] for each in pool)])
            counts = np.log([1.0] * len(ring) + [each[2] for each in pool])
            for h in range(g * HEADS // KV_HEADS, (g + 1) * HEADS // KV_HEADS):
                out[0, h, i] = softmax_over(q[0, h, i], keys, values, counts)
    return out


ORACLES = {"star": star, "landmark": landmark, "hip": hip, "hip-sure": hip_sure, "slots": slots}


@pytest.mark.parametrize(
    ("text", "count"),
    (
        ("star:16", 87),
        ("star:16", 91),
        ("star:1", 9),
        ("landmark:16:2", 135),
        ("landmark:7:1", 50),
        ("hip:70", 341),
        ("hip:90", 263),
        ("hip-sure:60", 341),
        ("slots:2", 30),
        ("slots:17", 100),
        ("slots:64", 70),
    ),
)
def test_an_approximation_is_what_its_definition_says(text: str, count: int) -> None:
    name, *settings = text.split(":")
    made = approximation_of(text)
    q, k, v = problem(count, made.streams, seed=count)
    want = ORACLES[name](*(x.double().numpy() for x in (q, k, v)), *map(int, settings))
    assert relative_error(made.attended(q, k, v), torch.from_numpy(want)) < 1e-5


@pytest.mark.parametrize("base", ("llama", "neox-parallel"))
@pytest.mark.parametrize(
    "text",
    (
        "star:500",
        "star:45",
        "landmark:64:99",
        "landmark:500:1",
        "hip:100",
        "hip-sure:100",
        "slots:130",
    ),
)
def test_with_room_for_the_whole_text_it_is_full_attention(base: str, text: str) -> None:
    lm, ids = model(base, "full"), torch.tensor(random_ids(130, 5))
    assert relative_error(approximation_of(text).states(lm.decoder, ids), exact(lm, ids)) < 1e-5


@pytest.mark.parametrize("text", ("star:16", "landmark:16:1", "slots:24"))
def test_without_it_is_not(text: str) -> None:
    lm, ids = model("llama", "full"), torch.tensor(random_ids(130, 5))
    found, want = approximation_of(text).states(lm.decoder, ids), exact(lm, ids)
    assert relative_error(found[:16], want[:16]) < 1e-5
    assert relative_error(found[-16:], want[-16:]) > 1e-2


def exact(lm: object, ids: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = lm.attention.sequence(ids)  # type: ignore[attr-defined]
    return states


def test_what_is_kept_by_boxes_has_the_share_asked_for_and_by_means_it_may_not() -> None:
    q, k, _ = (x[0] for x in problem(640, 1, seed=2))
    scores = torch.einsum("ghid,gjd->ghij", q.view(KV_HEADS, -1, 640, DIM), k).flatten(0, 1)
    scores = scores.masked_fill(torch.ones(640, 640, dtype=torch.bool).triu(1), -torch.inf)
    weights = scores.double().softmax(-1)
    least = {}
    for name in ("hip-sure:60", "hip:60"):
        made = approximation_of(name)
        assert isinstance(made, Selecting)
        kept, _ = made.kept(q, scores, made.prepared(k), torch.arange(640))
        assert not kept[..., -1, :].all()
        least[name] = float((weights * kept).sum(-1).min())
    assert least["hip-sure:60"] >= 0.6 > least["hip:60"]


def test_figures_are_shares_of_keys_and_of_attention() -> None:
    made = approximation_of("landmark:16:2")
    q, k, v = problem(128, 1, seed=3)
    made.attended(q, k, v)
    read, mass, least = [], [], []
    for h in range(HEADS):
        for i in range(128):
            read.append((min(i // 16, 2) * 16 + i % 16 + 1 + i // 16) / (i + 1))
            if i % 64 != 63:
                continue
            keys = k[0, h // 2, : i + 1].double()
            weights = (keys @ q[0, h, i].double()).softmax(0)
            marks = keys[: i // 16 * 16].view(-1, 16, DIM).mean(1) @ q[0, h, i].double()
            met = [*marks.topk(2).indices.tolist(), i // 16]
            mass.append(sum(float(weights[b * 16 : b * 16 + 16].sum()) for b in met))
            falling, total = weights.sort(descending=True).values.tolist(), 0.0
            for number, each in enumerate(falling, 1):
                total += each
                if total >= 0.99:
                    least.append(number / (i + 1))
                    break
    want = {READ: np.mean(read), MASS: np.mean(mass), LEAST: np.mean(least)}
    assert made.figures == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_what_is_held_follows_from_what_is_made(name: str) -> None:
    config, made = model("llama", "full").config, approximation_of(name)
    assert str(approximation_of(str(made))) == str(made)
    sizes = Sizes.of(config, 4)
    dense = 1000 * sizes.position
    k = torch.randn(config.num_kv_heads, 1000, config.head_dim)
    assert dense == 2 * config.num_layers * k.numel() * 4
    if isinstance(made, Selecting):
        more = sum(each.numel() for each in made.prepared(k)) * config.num_layers * 4
        assert made.held(sizes, 1000) == dense + more
    elif name == "slots":
        assert made.held(sizes, 256) == made.held(sizes, 10**6) < dense / 3
    else:
        assert made.held(sizes, 1000) == dense


@pytest.mark.parametrize(
    "text",
    ("moon", "star:0", "star:x", "star:1:2", "slots:1", "hip:", "hip:9.5", "landmark:4:-1", ""),
)
def test_settings_that_make_no_sense_are_told_how_they_are_written(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        approximation_of(text)
    name = text.split(":")[0]
    assert (f"write {name}:" if name in APPROXIMATIONS else "star, landmark") in caught.value.hint


def test_the_command_sets_them_beside_full_attention(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model", kind="full")
    book = tmp_path / "book.txt"
    book.write_text(alice_text()[:600])
    command = ["eval", str(book), "-m", str(folder), "--ctx", "200", "--dtype", "float32"]
    ways = ["--approximation", "star:300", "--approximation", "slots:16"]
    answers = ["--answers", str(tmp_path / "answers.jsonl")]
    out, err, code = run_nazx(*command, *ways, *answers)
    assert code == 0, err
    assert "[3] " in out and "slots:16" in out and "[2] - [1]: +0.0000 nats" in out
    assert run_nazx(*command, *ways, *answers)[0] == out  # every figure was kept
    report = json.loads(run_nazx(*command, *ways, *answers, "--json")[0])
    full, star, slots = report["costs"]
    assert full["held"] == star["held"] > slots["held"] == slots["held_far"]
    figures = star["figures"], slots["figures"]
    assert figures[0]["same_token"] == 1 > figures[1]["same_token"] > 0
    assert figures[0]["kl"] == pytest.approx(0, abs=1e-5) and figures[1]["kl"] > 1e-4
    assert full["seconds"] > 0 and 0 < slots["figures"]["keys_read"] < 1
    same, other = report["perplexity_differences"]
    assert same["mean"] == pytest.approx(0, abs=1e-5) and abs(other["mean"]) > 1e-4
    probe = ["--probe", "associative", "--probe", "passkey", "--limit", "1", "--json"]
    report = json.loads(run_nazx(*command, *probe, *ways[:2])[0])
    maps = [[place["right"] for place in each["map"]] for each in report["probes"]]
    assert len(maps) == 4 and maps[:2] == maps[2:]
    assert report["costs"][1]["seconds"] > 0


def test_full_attention_is_computed_once_for_a_stretch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_model(tiny_checkpoint(tmp_path / "model", kind="full"))
    lengths: list[int] = []
    sequence = lm.attention.sequence  # type: ignore[attr-defined]
    monkeypatch.setattr(
        lm.attention, "sequence", lambda ids: (lengths.append(len(ids)), sequence(ids))[1]
    )
    texts = [("a", alice_text()[:300]), ("b", alice_text()[300:700])]
    for text in ("star:300", "slots:16", "star:300"):
        made = approximation_of(text)
        found = read_through(
            "m", text, lm, texts, AnswerFile(None), length=60, stretches=1, approximation=made
        )
        for each in found:
            assert (each.figures["kl"] < 1e-5) == (text == "star:300")
    assert lengths == [60, 60]


def test_what_cannot_be_approximated_is_refused_in_a_line(tmp_path: Path) -> None:
    full = tiny_checkpoint(tmp_path / "full", kind="full")
    windowed = tiny_checkpoint(tmp_path / "windowed")
    book, data = tmp_path / "book.txt", tmp_path / "data.jsonl"
    book.write_text(alice_text()[:600])
    data.write_text(
        json.dumps({"document": "A hat.", "questions": [{"question": "A?", "answers": ["hat"]}]})
    )
    for file, folder, more, says in (
        (book, windowed, (), "--attention full"),
        (book, full, ("--ctx", "100k"), "trained for"),
        (book, full, ("--before", "9"), "far memory of token ids"),
        (book, full, ("--read", "resident"), "--before"),
        (book, full, ("--approximation", "moon"), "moon"),
        (data, full, (), "--perplexity"),
    ):
        command = ("eval", str(file), "-m", str(folder), "--approximation", "star:64", *more)
        out, err, code = run_nazx(*command)
        assert (code, out) == (2, "") and says in err, err
