"""What is measured: models that take in a prompt and go on from it greedily. Ours; ones of a named
model's shapes with random weights; and token ids as texts have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from nazx_cli.bench.results import Row, Spread
from nazx_cli.catalog.registry import Registry
from nazx_cli.checkpoint.recipes import expected_shapes
from nazx_cli.config import AttentionConfig, ModelConfig
from nazx_cli.context.context import Context
from nazx_cli.context.layout import Layout
from nazx_cli.engine.language_model import LanguageModel
from nazx_cli.errors import UsageError
from nazx_cli.kernels import KernelName
from nazx_cli.memory.estimate import TextSize, distinct_cells, distinct_tokens
from nazx_cli.model.decoder import Decoder

_WORDS: dict[KernelName, str] = {"torch": "portable", "native": "compiled", "triton": "triton"}
_SPREAD = 0.02  # of random weights, as GPT-NeoX starts from
_PHRASE = 16  # tokens that come in the same order again
_SHIFT = 2.7  # of rank, as Mandelbrot found it for English


class Engine(Protocol):
    """A model with whatever cache it keeps. Only the cache of the latest prefill need be valid."""

    def prefill(self, ids: Tensor) -> tuple[Any, Tensor]:
        """Run ids (T,) from an empty cache; the cache that they leave, and (V,) logits after the
        last."""

    def decode(self, cache: Any, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in ``cache``."""

    def cache_bytes(self, cache: Any) -> int:
        """Bytes that ``cache`` holds for the positions in it."""


@dataclass(frozen=True)
class Rival:
    """What users would otherwise run; without an ``engine`` where it cannot run here, and then
    ``note`` says why. ``precision`` is that of its weights."""

    name: str
    engine: Engine | None = None
    precision: str = ""
    note: str = ""

    def note_beside(self, precision: str) -> str:
        """``note``, and before it how the weights are held where ours are held otherwise."""
        differ = self.engine is not None and self.precision != precision
        told = f"theirs is {self.precision}, ours {precision}" if differ else ""
        return "; ".join(part for part in (told, self.note) if part)


@dataclass(frozen=True)
class Ours:
    """NazX as an ``Engine``."""

    lm: LanguageModel

    def prefill(self, ids: Tensor) -> tuple[Context, Tensor]:
        """A new context of ids (T,), and the logits after the last of them."""
        context = self.lm.new_context()
        context.append(ids)
        return context, self.lm.next_logits(context)

    def decode(self, cache: Context, token: int, count: int) -> list[int]:
        """``count`` greedy tokens after ``token``, which is not yet in ``cache``."""
        found = []
        for _ in range(count):
            cache.append([token])
            token = int(self.lm.next_logits(cache).argmax())
            found.append(token)
        return found

    def cache_bytes(self, cache: Context) -> int:
        """Everything beyond the model's weights."""
        return cache.nbytes


def kernel_of(lm: LanguageModel) -> str:
    """What computes attention over a layout: the ``compiled`` kernel, the ``triton`` one, or
    PyTorch (``portable``); nothing for models that have no layouts to choose from."""
    if lm.config.attention.kind != "inattention":
        return ""
    return _WORDS[kernel_name(lm)]


def kernel_name(lm: LanguageModel) -> KernelName:
    """The kernel by its own name, as in ``Size``."""
    memory = lm.new_context().memory
    return memory.kernel if isinstance(memory, Layout) else "torch"


def row_of(
    lm: LanguageModel, workload: str, measure: str, tokens: int, ours: Spread, **more: Any
) -> Row:
    """A row of ``lm`` over a layout, in seconds unless ``more``, the row's other fields, says
    otherwise."""
    held = {"unit": "s", "dtype": lm.dtype, "layout": lm.layout, "kernel": kernel_of(lm)}
    return Row(workload, measure, tokens, ours=ours, **(held | more))


def distinct_of(ids: Tensor, config: ModelConfig) -> dict[str, float | int]:
    """How many ids (n,), or cells of them, are distinct, for a row's details."""
    what = "distinct_cells" if config.attention.initial_window > 1 else "distinct_tokens"
    return {what: TextSize.of([ids.numpy()], config).distinct}


def registry_config(name: str) -> ModelConfig:
    """The registry's configuration of ``name``."""
    registry = Registry.load()
    entry = registry.find(name)
    if entry is None:
        raise UsageError(f"no model is called {name!r}", f"choose from {', '.join(registry.names)}")
    return entry.config


def inattention_config(name: str) -> ModelConfig:
    """The same with InAttention."""
    return replace(registry_config(name), attention=AttentionConfig("inattention"))


def random_decoder(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> Decoder:
    """A decoder with random weights: how fast it is does not depend on what they are."""
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder = decoder.to(dtype).to_empty(device="cpu")
    if config.tie_embeddings:
        decoder.head.weight = decoder.embed.weight
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        _fill(name, parameter.requires_grad_(False), generator)
    return decoder.eval()


def weight_bytes(lm: LanguageModel) -> int:
    """Bytes of everything that the model's weights take in this process's memory."""
    every: Iterator[Tensor] = chain(lm.decoder.parameters(), lm.decoder.buffers())
    if lm.decoder.is_split:
        from torch.distributed.tensor import DTensor

        every = (each.to_local() if isinstance(each, DTensor) else each for each in every)
    tensors = {each.data_ptr(): each for each in every}
    return sum(tensor.nbytes for tensor in tensors.values())


def random_tensors(
    config: ModelConfig, dtype: torch.dtype, vectors: torch.dtype | None = None, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Random weights by their names in a checkpoint; norms and biases of type ``vectors``."""
    generator = torch.Generator().manual_seed(seed)
    for name, shape in expected_shapes(config).items():
        tensor = torch.empty(shape, dtype=vectors if vectors and len(shape) == 1 else dtype)
        _fill(name, tensor, generator)
        yield name, tensor


def _fill(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    """Fill a weight in place: matrices at random, norms with 1, biases with 0."""
    if tensor.dim() > 1:
        tensor.normal_(0.0, _SPREAD, generator=generator)
    else:
        tensor.fill_(1.0 if name.endswith("weight") else 0.0)


def zipf_ids(vocab_size: int, count: int, seed: int = 0) -> Tensor:
    """(count,) int32 ids by Zipf's law: the token of rank r is drawn with p ~ 1 / r."""
    return _drawn(_shares(vocab_size, 1.0, 0.0), count, seed)


def prose_ids(vocab_size: int, count: int, seed: int = 0) -> Tensor:
    """(count,) int32 ids with as many distinct ones as English prose of that length has.

    p ~ 1 / (r + 2.7)^s, Mandelbrot's form of Zipf's law, with s such that the distinct ids to
    be expected are ``memory.estimate.distinct_tokens``.
    """
    wanted = distinct_tokens(count, vocab_size)
    low, high = 0.0, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        shares = _shares(vocab_size, middle, _SHIFT)
        expected = float(-torch.expm1(count * torch.log1p(-shares)).sum())
        low, high = (middle, high) if expected > wanted else (low, middle)
    return _drawn(_shares(vocab_size, low, _SHIFT), count, seed)


def prose_like(config: ModelConfig, count: int, seed: int = 0) -> Tensor:
    """(count,) int32 ids with as many distinct ones, or cells where initial states of ``config``
    see more than one token, as English prose of that length has.

    Drawn one by one, tokens hardly ever come in the same order again, as they do in texts: the ids
    are phrases of ``prose_ids``, as many different ones as give so many cells, repeated in turn.
    """
    ids = prose_ids(config.vocab_size, count, seed)
    if config.attention.initial_window == 1:
        return ids
    phrases = ids[: count // _PHRASE * _PHRASE].view(-1, _PHRASE)
    order = torch.randperm(len(phrases), generator=torch.Generator().manual_seed(seed))

    def of(different: int) -> Tensor:
        return torch.cat((phrases[order % different].flatten(), ids[phrases.numel() :]))

    wanted = distinct_cells(count, config)
    few, many = 1, max(1, len(phrases))
    while many - few > max(1, many // 50):
        middle = (few + many) // 2
        enough = TextSize.of([of(middle).numpy()], config).distinct >= wanted
        few, many = (few, middle) if enough else (middle, many)
    return of(many)


def _shares(vocab_size: int, exponent: float, shift: float) -> Tensor:
    """(V,) float64 probabilities by rank."""
    ranks = torch.arange(1, vocab_size + 1, dtype=torch.float64)
    shares = (ranks + shift) ** -exponent
    return shares / shares.sum()


def _drawn(shares: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    edges = shares.cumsum(0)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) * edges[-1]
    ids = torch.searchsorted(edges, drawn).clamp_(max=len(shares) - 1)
    return ids.to(torch.int32)


DISTRIBUTIONS: dict[str, Callable[[ModelConfig, int], Tensor]] = {
    "Zipf": lambda config, count: zipf_ids(config.vocab_size, count),
    "prose": prose_like,
}
"""``Zipf``: p ~ 1 / rank; ``prose``: as many distinct tokens, or cells, as English has."""
