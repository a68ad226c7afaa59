"""What the tests of session, command line and chat share: a small tokenizer, a scripted model,
and a tiny checkpoint that the real engine runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from typer.testing import CliRunner

from nazx_cli.cli.app import app
from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context
from nazx_cli.engine.generator import Candidate, Opening, Stats, Step
from nazx_cli.engine.grounding import Grounding
from nazx_cli.engine.sampling import Sampling
from nazx_cli.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def backend() -> Backend:
    """A byte-level tokenizer: one token a byte, and the special tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: at for at, letter in enumerate(alphabet)}
    tokenizer = Backend(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    return tokenizer


def make_tokenizer(template: str | None = CHATML) -> Tokenizer:
    """The byte-level tokenizer as a checkpoint's."""
    tokenizer = backend()
    stop = tokenizer.token_to_id("<|im_end|>")
    assert stop is not None
    return Tokenizer(
        tokenizer,
        template,
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
        frozenset({stop}),
    )


class _NoMemory:
    nbytes = 0

    def edited(self, at: int, removed: int, added: int) -> None:
        pass


def _config(window: int, kind: str) -> ModelConfig:
    return ModelConfig.from_dict(tiny_config(window, kind))


@dataclass
class ScriptedModel:
    """A language model that says what it is told to; ``prompts`` keeps what it was given.

    ``cut`` raises KeyboardInterrupt after so many tokens of an answer.
    """

    answers: list[str]
    tokenizer: Tokenizer = field(default_factory=make_tokenizer)
    window: int | None = 2048
    reads_resident: bool = False
    far: None = None
    ranks: int = 1
    name: str = "scripted"
    kind: str = "windowed"
    cut: int | None = None
    can_cite: bool = False
    cites: bool = False
    writes_summaries: bool = True
    published_sampling: Sampling | None = None
    notes: dict[str, object] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    max_tokens: list[int] = field(default_factory=list)
    grounded: list[bool] = field(default_factory=list)

    @property
    def config(self) -> ModelConfig:
        return _config(self.window or 64, self.kind)

    @property
    def decoder(self) -> SimpleNamespace:
        return SimpleNamespace(rows_run=0, config=self.config)

    @property
    def can_read_resident(self) -> bool:
        return self.reads_resident

    @property
    def prefers_resident(self) -> bool:
        return self.reads_resident

    def attend_far(self, wanted: bool) -> None:
        pass

    def read(self, context: Context) -> Iterator[tuple[int, int]]:
        yield from ()

    def readings(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def take_readings(self, readings: Mapping[str, torch.Tensor]) -> None:
        pass

    def about_documents(self, asked: bool) -> bool:
        return False

    def new_context(self) -> Context:
        self.contexts.append(Context(_NoMemory(), self.tokenizer.vocab_size))
        return self.contexts[-1]

    def _hear(self, ctx: Context, max_tokens: int, grounding: Grounding | None) -> None:
        """Keep what it was asked."""
        self.prompts.append(self.tokenizer.decode(ctx.live_ids, skip_special=False))
        self.max_tokens.append(max_tokens)
        self.grounded.append(grounding is not None)

    def generate(
        self,
        ctx: Context,
        *,
        max_tokens: int,
        sampling: Sampling,
        stop_ids: frozenset[int] | None = None,
        grounding: Grounding | None = None,
    ) -> Iterator[Step]:
        self._hear(ctx, max_tokens, grounding)
        ids = [*self.tokenizer.encode(self.answers.pop(0)), min(self.tokenizer.stop_ids)]
        stream = self.tokenizer.stream()
        text = ""
        for at, token in enumerate(ids):
            if at == self.cut:
                raise KeyboardInterrupt
            stop = token in self.tokenizer.stop_ids
            finish = "stop" if stop else "length" if at + 1 == max_tokens else None
            if not stop:
                ctx.append([token])
            delta = "" if stop else stream.push(token)
            text += delta
            yield Step(token, text, delta, finish, Stats(len(ctx), 4 * len(ctx), at, 0.01, 100.0))
            if finish:
                return

    @property
    def reader_notes(self) -> dict[str, object]:
        """``notes``, and that answers count by how sure the model is to answer at all and of its
        words, less a little for each part before."""
        weights = {"constant": 1.0, "opens": 1.0, "mean": 1.0, "rank": -0.1}
        return {"choice": {"weights": weights, "refuse": 0.1, "refuse_one": 0.1}, **self.notes}

    def answer_each(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop_ids: frozenset[int] | None = None,
        opening: Opening | None = None,
        grounding: Grounding | None = None,
    ) -> list[Candidate]:
        """The answers that were scripted, ``TEXT|MEAN``: each token has that log-probability; those
        that ``opening`` leaves of them."""
        found: list[Candidate] = []
        most, first, enough = len(prompts), len(prompts), 1.0
        if opening is not None:
            most, first = opening.most or most, opening.first or first
            enough = opening.enough
        for number, ids in enumerate(prompts):
            if number == first and max(each.logprobs[0] for each in found) >= math.log(enough):
                break
            self.prompts.append(self.tokenizer.decode(ids, skip_special=False))
            self.max_tokens.append(max_tokens)
            self.grounded.append(grounding is not None)
            text, _, mean = self.answers.pop(0).partition("|")
            tokens = tuple(self.tokenizer.encode(text))
            finish = "stop" if len(tokens) < max_tokens else "length"
            tokens = tokens[:max_tokens]
            told = (float(mean),) * (len(tokens) + 1)
            found.append(Candidate(tokens, told, finish, number, 0))
        found = [replace(each, put=len(found)) for each in found]
        likeliest = sorted(found, key=lambda each: -each.logprobs[0])[:most]
        return sorted(likeliest, key=lambda each: each.prompt)


def tiny_config(window: int = 1024, kind: str = "windowed") -> dict[str, object]:
    """A decoder of the Llama family with next to no weights."""
    attention: dict[str, object] = {"kind": kind}
    if kind == "windowed":
        attention |= {"local_window": window - 4, "sink_tokens": 4, "far": "none"}
    return {
        "model_type": "nazx",
        "base_model_type": "llama",
        "attention": attention,
        "vocab_size": 256 + len(SPECIALS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": window,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "eos_token_id": 258,
    }


def write_birds(folder: Path) -> Path:
    """``folder``, made, with a file about each of three birds."""
    folder.mkdir()
    for name in ("crane", "heron", "stork"):
        text = f"The {name} stood in the reeds.\n\nIt was a {name} of great age.\n\n" * 40
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def tiny_checkpoint(
    folder: Path, *, window: int = 1024, kind: str = "windowed", template: str | None = CHATML
) -> Path:
    """Write a random checkpoint that the real engine runs; it favours printable letters."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(window, kind)
    (folder / "config.json").write_text(json.dumps(config))
    backend().save(str(folder / "tokenizer.json"))
    settings: dict[str, object] = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(_tensors(), str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    embedding = random(256 + len(SPECIALS), 32)
    # Without this, half of what the model says would be no UTF-8.
    letters = backend().encode("abcdefghijklmnopqrstuvwxyz ").ids
    quiet = torch.ones(len(embedding), dtype=torch.bool)
    quiet[letters] = False
    embedding[quiet] *= 0.05
    tensors = {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(32)}
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": random(32, 32),
            f"{prefix}self_attn.k_proj.weight": random(16, 32),
            f"{prefix}self_attn.v_proj.weight": random(16, 32),
            f"{prefix}self_attn.o_proj.weight": random(32, 32),
            f"{prefix}mlp.gate_proj.weight": random(48, 32),
            f"{prefix}mlp.up_proj.weight": random(48, 32),
            f"{prefix}mlp.down_proj.weight": random(32, 48),
            f"{prefix}input_layernorm.weight": torch.ones(32),
            f"{prefix}post_attention_layernorm.weight": torch.ones(32),
        }
    return tensors


def run_nazx(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> tuple[str, str, int]:
    """Run in this process; stdout, stderr, exit code."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout, result.stderr, result.exit_code
