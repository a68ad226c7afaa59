"""``nazx vram-estimate``: what a model and a context will take, before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from nazx_cli.amounts import parse_bytes
from nazx_cli.cli.shared.documents import Given, IndexOptions
from nazx_cli.cli.shared.options import (
    Files,
    Json,
    ModelName,
    Report,
    Revision,
    count_option,
    option,
)
from nazx_cli.cli.shared.ranks import SharingOptions
from nazx_cli.cli.shared.stdin import piped_text
from nazx_cli.errors import UsageError
from nazx_cli.names import DEFAULT_MODEL, LAYOUTS
from nazx_cli.quantization.cost import KINDS
from nazx_cli.ui.phrases import size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.config import ModelConfig
    from nazx_cli.memory.estimate import Estimate, TextSize
    from nazx_cli.memory.plan import LoadOptions, Plan
    from nazx_cli.ui.terminal.screen import Screen

    Row = tuple[Estimate, dict[str, Plan]]  # what it takes at its fastest; the plan for each card

_CARDS = ("8GB", "12GB", "16GB", "24GB")
_DTYPE = "bfloat16"


@dataclass(frozen=True)
class EstimateOptions:
    """Which model, which context."""

    model: ModelName = DEFAULT_MODEL
    ctx: Annotated[
        int | None,
        count_option("--ctx", "Tokens in the context; with --file: beside the documents."),
    ] = None
    layout: Annotated[
        str,
        option(
            "--layout",
            "InAttention's layout: what the shapes cost under it.",
            choices=tuple(LAYOUTS),
        ),
    ] = "auto"
    distinct: Annotated[
        int | None,
        count_option("--distinct", "Distinct tokens, or cells. Default: as in English prose."),
    ] = None
    adapter: Annotated[
        str | None, option("--adapter", "Folder of a far memory to reckon with.", metavar="FOLDER")
    ] = None
    ranks: Annotated[
        int, count_option("--ranks", "Processes that hold the context together: the first's share.")
    ] = 1


def vram_estimate(
    file: Files = None,
    *,
    options: EstimateOptions,
    sharing: SharingOptions,
    index: IndexOptions,
    vram: Annotated[
        list[str] | None,
        option("--vram", "A card's memory, as 8GB. May be repeated.", metavar="SIZE"),
    ] = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Estimate the memory of a model and a context; loads neither.

    Example: nazx vram-estimate --ctx 100000
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.checkpoint.adapters import with_adapter
    from nazx_cli.checkpoint.quantized import stored_kind
    from nazx_cli.memory.estimate import as_inattention
    from nazx_cli.memory.plan import LoadOptions

    cards = {text: parse_bytes(text) for text in vram or _CARDS}
    model = ModelRef.parse(options.model, revision)
    config = model.config()
    if (memory := model.adapters(options.adapter).far if options.adapter else None) is not None:
        config = with_adapter(config, memory)
    if options.layout != "auto":
        config = as_inattention(config)
    report = Report(json=json)
    if file and options.distinct is not None:
        raise UsageError("--distinct is counted where files are named", "leave --distinct out")
    if file:
        documents = _count(file, index, options.model, revision, config, report.screen)
        talk = options.ctx
    else:
        documents, talk = _all_in_all(options, config), 0
    wanted = LoadOptions(
        dtype=_DTYPE, layout=options.layout, ctx=talk, by=sharing.share(options.ranks)
    )
    stored = stored_kind(config)
    whole = () if sharing.split_weights else KINDS  # what is quantized is not split
    kinds = (stored,) if stored else (None, *whole)
    rows = [_row(config, documents, replace(wanted, quantize=kind), cards) for kind in kinds]
    shown = options, config, documents, rows
    report.tell(_record(*shown), *_lines(*shown), note=model.correction())


def _row(
    config: ModelConfig, documents: TextSize, options: LoadOptions, cards: dict[str, int]
) -> Row:
    from nazx_cli.memory.plan import GPU_WORK, Machine, plan

    card = Machine(_DTYPE, work=GPU_WORK, embeds_apart=True)

    def within(limit: int) -> Plan:
        return plan(config, documents, replace(options, limit=limit), card)

    return within(sys.maxsize).estimate, {card: within(limit) for card, limit in cards.items()}


def _all_in_all(options: EstimateOptions, config: ModelConfig) -> TextSize:
    """The context that ``--ctx`` and ``--distinct`` name, conversation included."""
    from nazx_cli.memory.estimate import TextSize, prose

    tokens = options.ctx or 100_000
    usual = prose(tokens, config)
    most = config.vocab_size**config.attention.initial_window
    distinct = min(options.distinct or usual.distinct, tokens, most)
    return TextSize(tokens, distinct, usual.vocabulary)


def _count(
    files: Sequence[str],
    index: IndexOptions,
    model: str,
    revision: str | None,
    config: ModelConfig,
    screen: Screen,
) -> TextSize:
    """The size of documents, by the model's own tokenizer."""
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.index.shelf import size_of
    from nazx_cli.tokenizer import Tokenizer

    piped = piped_text(screen, wanted=True) if "-" in files else None
    given = Given.look(files, piped, index.index_of(), screen)
    tokenizer = Tokenizer.from_folder(ModelRef.parse(model, revision).fetch())
    return size_of(given.tokenized(tokenizer, in_memory=config.prefers_resident), config)


def _longest(config: ModelConfig, row: Row) -> dict[str, int]:
    """For each card; none where a window bounds what is attended to, and memory does not."""
    from nazx_cli.memory.estimate import longest_context

    best, plans = row
    if config.attention.kind == "windowed":
        return {}
    return {
        card: longest_context(config, best, plan.limit, plan.width) for card, plan in plans.items()
    }


def _record(
    options: EstimateOptions, config: ModelConfig, documents: TextSize, rows: Sequence[Row]
) -> dict[str, Any]:
    first = rows[0][0]
    return {
        "model": options.model,
        "ranks": options.ranks,
        "parameters": config.num_parameters,
        "attention": config.attention.to_dict(),
        "layout": first.layout,
        "tokens": documents.tokens,
        "distinct_tokens": documents.distinct,
        "attended_tokens": _attended(config, first),
        "conversation_tokens": max(0, _whole(first) - documents.tokens),
        "rows": [
            {
                "precision": e.precision,
                "weights_bytes": e.weights,
                "context_bytes": e.context,
                "dense_cache_bytes": e.dense,
                "workspace_bytes": e.workspace,
                "host_bytes": e.host,
                "total_bytes": e.total,
                "fits": {card: plan.fits for card, plan in plans.items()},
                "layouts": {card: plan.layout for card, plan in plans.items() if plan.fits},
                "longest_context": _longest(config, (e, plans)),
            }
            for e, plans in rows
        ],
    }


def _lines(
    options: EstimateOptions, config: ModelConfig, documents: TextSize, rows: Sequence[Row]
) -> Iterator[str | Table]:
    first, cards = rows[0]
    kind = config.attention.kind
    held = f"layout {first.layout}" if kind == "inattention" else f"{kind} attention"
    talk = max(0, _whole(first) - documents.tokens)
    window = config.attention.initial_window
    cells = f" cells of {window}" if window > 1 else ""
    yield (
        f"{options.model}: {config.num_parameters:,} weights, {held}, "
        f"{documents.tokens:,} tokens ({documents.distinct:,} distinct{cells})"
        + (f" and {talk:,} of conversation" if talk else "")
        + (f"; the share of the first of {options.ranks} processes" if options.ranks > 1 else "")
        + "\n"
    )
    yield Table(
        [
            (
                e.precision,
                *map(size_text, (e.weights, e.context, e.dense, e.workspace, e.total)),
                *(_verdict(plan, e) for plan in plans.values()),
            )
            for e, plans in rows
        ],
        ("precision", "weights", "context", "dense KV cache", "workspace", "total", *cards),
        right=range(1, 6),
    )
    if first.host:
        held = size_text(first.host)
        yield f"\nThe embedding ({held}) stays in host memory: a token needs but a row of it."
    if kind == "windowed":
        yield f"\n{_window(config, _whole(first), _attended(config, first))}"
        return
    yield "\nlongest context, in tokens:\n"
    yield Table(
        [
            (
                e.precision,
                *(f"{n:,}" if n else "-" for n in _longest(config, (e, plans)).values()),
            )
            for e, plans in rows
        ],
        ("precision", *cards),
        right=range(1, 1 + len(cards)),
    )


def _whole(estimate: Estimate) -> int:
    """Tokens of the context, of which one process may hold but a share."""
    return estimate.size.whole or estimate.size.positions


def _attended(config: ModelConfig, estimate: Estimate) -> int:
    """How many of a context's tokens the model attends to at once."""
    from nazx_cli.context.cost import live_positions

    if config.attention.kind != "windowed":
        return _whole(estimate)
    return min(_whole(estimate), live_positions(config, estimate.size))


def _window(config: ModelConfig, tokens: int, attended: int) -> str:
    """What becomes of the tokens of a context for which a window is too short."""
    from nazx_cli.memory.estimate import index_bytes

    if attended == tokens:
        return f"All {tokens:,} tokens fit the window and are attended to."
    rest, attention = tokens - attended, config.attention
    state = " and the far memory's state" if attention.far_segment else ""
    far = "" if attention.far == "none" else "for the far memory under --read resident, else "
    return (
        f"The window takes {attended:,} tokens: the context is their keys and values{state}. The "
        f"other {rest:,} are held as ids, {far}for passages to be brought into the window, and "
        f"take {size_text(4 * rest)} of it; their index takes up to "
        f"{size_text(index_bytes(rest))} of host memory."
    )


def _verdict(plan: Plan, whole: Estimate) -> str:
    """``fits``, the smaller layout or the shorter prompt with which it fits, or ``-``."""
    if not plan.fits:
        return "-"
    if plan.live != whole.size.live:
        return f"{plan.live:,} tokens"
    return "fits" if plan.is_first_choice else plan.layout
