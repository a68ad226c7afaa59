"""Does it fit: one plan from a model, its documents and what a person asks for; no torch here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nazx_cli.catalog.registry import AdapterChoice
from nazx_cli.checkpoint.quantized import agreed_kind
from nazx_cli.config import ModelConfig
from nazx_cli.context.cost import Size
from nazx_cli.context.ranks.sharing import ALONE, Share, check_share
from nazx_cli.errors import MemoryLimitError, UsageError
from nazx_cli.kernels import KernelName
from nazx_cli.memory.estimate import (
    Estimate,
    TextSize,
    estimate,
    layer_bytes,
    process_bytes,
    prose,
)
from nazx_cli.quantization.cost import KINDS

CONVERSATION = 4_096
"""Tokens of conversation to make room for where ``--ctx`` does not say."""

CPU_WORK, GPU_WORK = 1e13, 1e15
"""Operations that reading a prompt may take: a minute or so on one core, a few seconds on a GPU."""

LEAST_READ = 2_048
"""Tokens that a prompt may have however large the model is, where its window has as many."""

_LAYOUTS = ("pairs", "postings", "ids")  # that auto chooses from, soonest to a first token first
_LAYOUTS_OF_GRAMS = ("grams", "ids")  # and where initial states see several tokens
_MARGIN = 0.9  # of what a device has free: others use it too


@dataclass(frozen=True)
class LoadOptions:
    """How a person wants a model held.

    dtype     auto, float32, bfloat16 or float16; auto may fall back to int8 and nf4
    quantize  int8 or nf4
    layout    a memory layout, or auto
    limit     bytes to keep to; None: what the device has free, less a margin
    ctx       tokens of conversation to make room for; None: ``CONVERSATION``
    adapters  what is merged into the weights
    by        processes that hold the context together; the limit is each one's
    """

    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    layout: str = "auto"
    limit: int | None = None
    ctx: int | None = None
    adapters: AdapterChoice = field(default_factory=AdapterChoice)
    by: Share = ALONE


@dataclass(frozen=True)
class Machine:
    """What a device gives a model: the type of its arithmetic, bytes that are free, whether
    weights can be quantized, and the kernel, as in ``Size``; ``held`` is what this process holds
    of it already, 0 where that is not counted (on a GPU); ``work`` is how many operations
    reading a prompt may take, ``offloads`` whether layers may stay in host memory, and
    ``embeds_apart`` whether an embedding does, of which each token needs but a row."""

    dtype: str
    free: int = 0
    held: int = 0
    can_quantize: bool = False
    kernel: KernelName = "torch"
    work: float = CPU_WORK
    offloads: bool = False
    embeds_apart: bool = False


@dataclass(frozen=True)
class Plan:
    """How a model is to be held: the arithmetic's ``dtype``, and in ``estimate`` weights, layout,
    kernel and bytes.

    ``estimate`` is the smallest there is where it does not fit ``limit``; ``reason`` tells why
    not, or why this was picked. ``is_first_choice`` where nothing had to be given up. The first
    ``on_device`` layers are on the device, the others in host memory; None: all are on the device.
    With ``host_embedding`` the embedding is in host memory too.
    ``held`` is that of the machine.
    """

    estimate: Estimate
    dtype: str
    limit: int
    fits: bool
    reason: str
    hint: str = ""
    is_first_choice: bool = True
    held: int = 0
    on_device: int | None = None
    host_embedding: bool = False

    @property
    def live(self) -> int | None:
        """Live tokens that there is room for; None where they are not what costs."""
        return self.estimate.size.live

    @property
    def by(self) -> Share:
        """How processes share it."""
        return self.estimate.size.by

    @property
    def layout(self) -> str:
        """The memory layout of contexts."""
        return self.estimate.layout

    @property
    def kernel(self) -> KernelName:
        """What attends to posting lists."""
        return self.estimate.size.kernel

    @property
    def quantize(self) -> str | None:
        """``int8`` or ``nf4`` where the weights are to be quantized."""
        return self.estimate.precision if self.estimate.precision in KINDS else None

    @property
    def width(self) -> int:
        """Bytes of a number of the arithmetic."""
        return _width(self.dtype)

    def check(self) -> Plan:
        """This plan; ``MemoryLimitError`` with the arithmetic where it does not fit."""
        if not self.fits:
            raise MemoryLimitError(self.reason, self.hint)
        return self

    def describe(self) -> str:
        """One line: what was picked and why."""
        return (
            f"{self.estimate.precision} weights, layout {self.layout}: "
            f"{_gb(self.estimate.total)} of {_gb(self.limit)} ({self.reason})"
        )


def plan(config: ModelConfig, documents: TextSize, options: LoadOptions, machine: Machine) -> Plan:
    """The most precise weights that fit and, with them, the fastest layout.

    What was asked for by name stays. ``UsageError`` where the checkpoint is quantized otherwise
    than asked for, or where several processes are to hold a context that they cannot.
    """
    check_share(config, options.by)
    process = process_bytes(machine.held, documents) if machine.held else 0
    # What this process holds already is not free, and in the total.
    limit = machine.held + default_limit(machine.free) if options.limit is None else options.limit
    kind = agreed_kind(config, options.quantize)
    if kind and options.by.split:
        raise UsageError(
            "quantized weights are not split", "leave --quantize or --split-weights out"
        )
    precisions: tuple[str, ...] = (kind,) if kind else (machine.dtype,)
    if not kind and options.dtype == "auto" and machine.can_quantize:
        precisions += KINDS
    size = _context_size(documents, options, config, machine)
    # InAttention needs the embedding of every token of a context; a head needs its own as it is.
    apart = machine.embeds_apart and config.window is not None and not config.tie_embeddings

    def reckon(precision: str, layout: str, size: Size) -> Estimate:
        found = estimate(config, precision, layout, size, _width(machine.dtype), process)
        return _with_embedding_apart(config, found, _width(machine.dtype)) if apart else found

    tried = [
        reckon(precision, layout, size)
        for precision in precisions
        for layout in _layouts(config, options.layout)
    ]
    for found in tried:
        if found.total <= limit:
            first = found is tried[0]
            if not options.ctx and found.size.live is not None:
                longest = _longest_prompt(config, options, machine)
                if options.ctx == 0:  # no conversation: no more than the documents
                    longest = min(longest, size.whole or size.positions)
                found = _roomiest(found, longest, limit, reckon)
            reason = "all fits" if first else f"{_arithmetic(tried[0])} would not fit"
            planned = Plan(found, machine.dtype, limit, True, reason, "", first, machine.held)
            return replace(planned, host_embedding=apart)
    smallest = min(tried, key=lambda found: found.total)
    if machine.offloads and (kept := _offloaded(config, smallest, machine, limit)) is not None:
        return replace(kept, host_embedding=apart)
    reason = f"this does not fit in {_gb(limit)}: {_arithmetic(smallest)}"

    def with_talk(tokens: int) -> int:
        size = _context_size(documents, replace(options, ctx=tokens), config, machine)
        return reckon(smallest.precision, smallest.layout, size).total

    talk = bisect_left(range(1, 1 << 31), True, key=lambda tokens: with_talk(tokens) > limit)
    hint = _advice(config, smallest, talk)
    return Plan(smallest, machine.dtype, limit, False, reason, hint, False, machine.held)


def default_limit(free: int) -> int:
    """The limit where a person names none: what is free, less a margin."""
    return int(free * _MARGIN)


def _context_size(
    documents: TextSize, options: LoadOptions, config: ModelConfig, machine: Machine
) -> Size:
    """Documents and a conversation about them, of which nothing but its length is known."""
    talk = CONVERSATION if options.ctx is None else options.ctx
    positions = documents.tokens + talk
    most = min(positions, config.vocab_size**config.attention.initial_window)
    own = prose(talk, config)
    distinct, vocabulary = min(documents.distinct + own.distinct, most), own.vocabulary
    if vocabulary is not None:
        known = documents.distinct if documents.vocabulary is None else documents.vocabulary
        vocabulary = min(known + vocabulary, positions, config.vocab_size)
    live = None
    if config.window is not None:  # without a conversation it is the documents that are attended to
        live = talk or min(positions, CONVERSATION)
        live = min(live, _longest_prompt(config, options, machine))
    return Size(positions, distinct, live, machine.kernel, vocabulary).share(options.by)


def _roomiest(
    found: Estimate, longest: int, limit: int, reckon: Callable[[str, str, Size], Estimate]
) -> Estimate:
    """``found`` with a prompt of up to ``longest`` tokens, as far as half of what is left has room
    for it. The other half is for documents that are added later, and answers."""

    def with_live(live: int) -> Estimate:
        return reckon(found.precision, found.layout, replace(found.size, live=live))

    least, most = found.size.live or 0, found.total + (limit - found.total) // 2
    longer = range(least + 1, longest + 1)
    more = bisect_left(longer, True, key=lambda live: with_live(live).total > most)
    return with_live(least + more)


def _with_embedding_apart(config: ModelConfig, found: Estimate, width: int) -> Estimate:
    """``found`` with the embedding in host memory."""
    nbytes = config.vocab_size * config.hidden_size * width
    return replace(found, weights=found.weights - nbytes, host=found.host + nbytes)


def _offloaded(config: ModelConfig, found: Estimate, machine: Machine, limit: int) -> Plan | None:
    """As ``found``, with as many of the first layers on the device as fit it; None where not even
    one at a time does, or where attention needs all of them at hand."""
    if config.window is None:
        return None
    layer = layer_bytes(config, found.precision, _width(machine.dtype))
    # A matrix that is copied in stands beside the layers that stay: a layer's bytes are set aside.
    most = config.num_layers - 1
    kept = most - max(0, -(-(found.total - limit) // layer))
    if kept < 0:
        return None
    host = (config.num_layers - kept) * layer
    fitting = replace(found, weights=found.weights - host + layer, host=found.host + host)
    reason = (
        f"{config.num_layers - kept} of {config.num_layers} layers stay in host memory: each token "
        f"moves {_gb(host)} to the device, a second or more for every 10 GB"
    )
    return Plan(fitting, machine.dtype, limit, True, reason, "", False, machine.held, kept)


def _longest_prompt(config: ModelConfig, options: LoadOptions, machine: Machine) -> int:
    """Live tokens that are worth having room for: what the model was trained for, as far as it
    can be read in bearable time, unless a length was asked for."""
    window = config.window or 0
    if options.ctx:
        return window
    return min(window, max(LEAST_READ, readable(config, machine)))


def readable(config: ModelConfig, machine: Machine) -> int:
    """Tokens of a prompt that can be read in the operations that it may take there."""
    return int(machine.work / (2 * config.num_parameters))


def _layouts(config: ModelConfig, wanted: str) -> tuple[str, ...]:
    if wanted != "auto":
        return (wanted,)
    if config.attention.kind != "inattention":
        return ("cached",)
    return _LAYOUTS if config.attention.initial_window == 1 else _LAYOUTS_OF_GRAMS


def _width(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


def _advice(config: ModelConfig, smallest: Estimate, talk: int) -> str:
    """What to do; ``talk`` is how long a conversation fits."""
    enough = f"the smallest limit that works is --vram-limit {_enough(smallest.total)}"
    if config.attention.kind != "windowed" and talk:
        return (
            f"{enough}; with {smallest.precision} weights and layout {smallest.layout} "
            f"{talk:,} tokens of conversation fit: use --ctx {talk}, or a smaller model"
        )
    return f"{enough}; or use a smaller model (nazx ls --all names them)"


def _enough(total: int) -> str:
    """A limit of that many bytes and a little more: two processes do not hold quite the same."""
    step = 10**7
    return f"{-(-(total + step // 2) // step) * step // 10**6}MB"


def _arithmetic(found: Estimate) -> str:
    process = f"process {_gb(found.process)} + " if found.process else ""
    size = found.size
    tokens = f"{size.positions:,}" + (f" of {size.whole:,}" if size.whole else "") + " tokens"
    return (
        f"{process}{found.precision} weights {_gb(found.weights)} + context {_gb(found.context)} "
        f"({tokens}, {found.layout}) + workspace {_gb(found.workspace)} "
        f"= {_gb(found.total)}"
    )


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"
