"""Keeping to a memory limit: a plan for this machine before loading, and as a context grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from weakref import WeakKeyDictionary

from nazx_cli.checkpoint.load import resolve_device, resolve_dtype
from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context
from nazx_cli.context.cost import Size
from nazx_cli.errors import MemoryLimitError
from nazx_cli.kernels import choose_kernel
from nazx_cli.memory.estimate import TextSize, estimate
from nazx_cli.memory.plan import CPU_WORK, GPU_WORK, LoadOptions, Machine, Plan, plan
from nazx_cli.memory.probe import read_memory
from nazx_cli.model import offload
from nazx_cli.model.attention import check_layout
from nazx_cli.ranks import local_size

_SHRINKING = ("tables", "states", "pairs", "postings", "grams", "ids")
_OF_CELLS = ("grams",)  # layouts that are smaller only where initial states see several tokens
_RECOUNT = 1024  # appended tokens after which a context's distinct tokens are counted again


def plan_here(
    config: ModelConfig, documents: TextSize, options: LoadOptions, held: int | None = None
) -> Plan:
    """``memory.plan.plan`` for a device of this machine and what works on it.

    ``held`` is what the process holds on a CPU beside models and contexts; None: all it does now.

    ``UsageError`` for a device, type or layout that there is not.
    """
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    if options.layout != "auto":
        check_layout(config, options.layout)
    reading = read_memory(str(device))
    # Processes that hold a context together share a machine's memory, but no GPU.
    sharing = local_size() if options.by.ranks > 1 and device.type == "cpu" else 1
    whole = not options.by.split  # what is split is on the device, as it is
    machine = Machine(
        str(dtype).removeprefix("torch."),
        reading.free // sharing,
        held=0 if device.type != "cpu" else reading.used if held is None else held,
        can_quantize=whole and options.quantize is None and bool(find_spec("bitsandbytes")),
        kernel=choose_kernel(config, device, dtype),
        work=CPU_WORK if device.type == "cpu" else GPU_WORK,
        offloads=whole and device.type == "cuda" and offload.is_installed(),
        embeds_apart=whole and device.type == "cuda",
    )
    return plan(config, documents, options, machine)


class MemoryLimit:
    """Holds the contexts of one model to the limit of its plan, weights included; of contexts over
    several processes this one's share.

    A context that would cross it moves to a smaller layout, which gives the same logits.
    """

    def __init__(self, config: ModelConfig, plan: Plan) -> None:
        self._limit = plan.limit
        self._by = plan.by
        self._config = config
        self._kernel = plan.kernel
        precision = plan.estimate.precision
        self._estimate = partial(
            estimate,
            config,
            precision,
            quantized_width=plan.width,
            process=plan.estimate.process,
        )
        self._shrinks = config.attention.kind == "inattention"
        self._counted: WeakKeyDictionary[Context, TextSize] = WeakKeyDictionary()

    def enforce(self, context: Context, move: Callable[[Context, str], None]) -> None:
        """Call before logits are computed; ``move`` changes a context's layout.

        ``MemoryLimitError`` where not even the smallest layout fits.
        """
        if not self._shrinks:
            return
        size = self._size(context)
        if self._estimate(context.layout, size).total <= self._limit:
            return
        several = self._config.attention.initial_window > 1
        order = [layout for layout in _SHRINKING if several or layout not in _OF_CELLS]
        at = order.index(context.layout) if context.layout in order else 0
        for layout in order[at + 1 :]:
            if self._estimate(layout, size).total <= self._limit:
                move(context, layout)
                return
        needed = self._estimate("ids", size).total
        raise MemoryLimitError(
            f"the context has grown to {size.positions:,} tokens, which need "
            f"{needed / 1e9:.2f} GB; the limit is {self._limit / 1e9:.2f} GB",
            "drop a document, or raise --vram-limit",
        )

    def _size(self, context: Context) -> Size:
        length = len(context)
        counted = self._counted.get(context)
        if counted is None or abs(length - counted.tokens) >= _RECOUNT:
            counted = TextSize.of([context.tokens.slice(0, length).numpy()], self._config)
            self._counted[context] = counted
        return replace(counted, tokens=length).as_context(self._kernel).share(self._by)
