"""``nazx vram-estimate``: what a model and a context will take, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.options import Files, Json, Revision, option

if TYPE_CHECKING:
    from nazx_cli.config import ModelConfig
    from nazx_cli.memory.estimate import Estimate

_CARDS = ("8GB", "12GB", "16GB", "24GB")
_PRECISIONS = ("bfloat16", "int8", "nf4")


@dataclass(frozen=True)
class EstimateOptions:
    """Which model, which context."""

    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, org/repo or folder.", metavar="NAME")
    ] = "nazx-1b"
    ctx: Annotated[
        int | None,
        option("--ctx", "Tokens in the context. Default: 100000, or the documents.", min=1),
    ] = None
    layout: Annotated[
        str,
        option("--layout", "InAttention's layout: what the shapes cost under it.", metavar="NAME"),
    ] = "auto"
    distinct: Annotated[
        int | None,
        option("--distinct", "Distinct tokens. Default: as in English prose.", min=1),
    ] = None


def vram_estimate(
    file: Files = None,
    *,
    options: EstimateOptions,
    vram: Annotated[
        list[str] | None,
        typer.Option("--vram", help="A card's memory, as 8GB. May be repeated.", metavar="SIZE"),
    ] = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Estimate the memory of a model and a context; loads neither.

    Example: nazx vram-estimate --ctx 100000
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.cli.options import OutputOptions, make_screen
    from nazx_cli.context.cost import LAYOUT_BYTES, Size
    from nazx_cli.errors import UsageError
    from nazx_cli.memory.estimate import as_inattention, distinct_tokens, estimate
    from nazx_cli.memory.units import parse_bytes

    cards = {text: parse_bytes(text) for text in vram or _CARDS}
    config = ModelRef.parse(options.model, revision).config()
    if options.layout != "auto":
        if options.layout not in LAYOUT_BYTES:
            raise UsageError(
                f"there is no layout {options.layout!r}",
                f"choose auto or one of {', '.join(LAYOUT_BYTES)}",
            )
        config = as_inattention(config)
    positions, distinct = options.ctx or 100_000, options.distinct
    if file:
        positions, distinct = _count(file, options.model, revision)
    if distinct is None:
        distinct = distinct_tokens(positions, config.vocab_size)
    size = Size(positions, min(distinct, positions, config.vocab_size))
    layout = _layout(config, options.layout)
    found = [estimate(config, precision, layout, size) for precision in _PRECISIONS]
    screen = make_screen(OutputOptions(json=json))
    if json:
        screen.data(_record(options.model, config, found, cards))
    else:
        screen.line(_table(options.model, config, found, cards))


def _layout(config: ModelConfig, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "postings" if config.attention.kind == "inattention" else "cached"


def _count(files: Sequence[str], model: str, revision: str | None) -> tuple[int, int]:
    """Tokens and distinct tokens of documents, by the model's own tokenizer."""
    import numpy as np

    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.documents.gather import gather
    from nazx_cli.tokenizer import Tokenizer

    documents = gather(files).documents
    tokenizer = Tokenizer.from_folder(ModelRef.parse(model, revision).fetch())
    ids = np.concatenate([tokenizer.encode_document(d.text).ids for d in documents])
    return len(ids), len(np.unique(ids))


def _longest(
    config: ModelConfig, found: Sequence[Estimate], cards: dict[str, int]
) -> list[dict[str, int]]:
    from nazx_cli.memory.estimate import longest_context

    return [
        {
            card: longest_context(config, e.precision, e.layout, limit)
            for card, limit in cards.items()
        }
        for e in found
    ]


def _record(
    name: str, config: ModelConfig, found: Sequence[Estimate], cards: dict[str, int]
) -> dict[str, Any]:
    size = found[0].size
    return {
        "model": name,
        "parameters": config.num_parameters,
        "attention": config.attention.to_dict(),
        "layout": found[0].layout,
        "tokens": size.positions,
        "distinct_tokens": size.distinct,
        "rows": [
            {
                "precision": e.precision,
                "weights_bytes": e.weights,
                "context_bytes": e.context,
                "dense_cache_bytes": e.dense,
                "workspace_bytes": e.workspace,
                "total_bytes": e.total,
                "fits": {card: e.total <= limit for card, limit in cards.items()},
                "longest_context": longest,
            }
            for e, longest in zip(found, _longest(config, found, cards), strict=True)
        ],
    }


def _table(name: str, config: ModelConfig, found: Sequence[Estimate], cards: dict[str, int]) -> str:
    from nazx_cli.ui.phrases import columns, size_text

    size = found[0].size
    kind = config.attention.kind
    held = f"layout {found[0].layout}" if kind == "inattention" else f"{kind} attention"
    rows = [["weights", "", "context", "dense KV cache", "workspace", "total", *cards]]
    for e in found:
        sizes = [size_text(n) for n in (e.weights, e.context, e.dense, e.workspace, e.total)]
        fits = ["fits" if e.total <= limit else "-" for limit in cards.values()]
        rows.append([e.precision, *sizes, *fits])
    inverse = [["longest context", *cards]]
    for e, longest in zip(found, _longest(config, found, cards), strict=True):
        inverse.append([e.precision, *(f"{n:,}" if n else "-" for n in longest.values())])
    return "\n".join(
        (
            f"{name}: {config.num_parameters:,} weights, {held}, "
            f"{size.positions:,} tokens ({size.distinct:,} distinct)",
            "",
            columns(rows, right=range(1, 6)),
            "",
            columns(inverse, right=range(1, 1 + len(cards))),
        )
    )
