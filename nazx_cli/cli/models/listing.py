"""``nazx ls``: the models on this machine; with ``--all`` also those that it can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.shared.opening import named_options
from nazx_cli.cli.shared.options import Json, Report, VramLimit, option
from nazx_cli.ui.phrases import rate_text, size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.catalog.registry import RegistryEntry
    from nazx_cli.catalog.stored import StoredModel
    from nazx_cli.config import ModelConfig
    from nazx_cli.memory.choosing import Fit
    from nazx_cli.memory.machine import Hardware

_HEADINGS = ("NAME", "SIZE", "ATTENTION", "DTYPE", "WHERE")
_OFFERED = ("NAME", "FITS AS", "UP TO", "CONTEXT", "DOWNLOAD", "LICENCE", "GOOD AT")
_FIGURES = (2, 3, 4)
_SPARE = (2, 3, 4, 5, 6)  # what is left out where it is narrow, the last first


def ls(
    context: typer.Context,
    all: Annotated[bool, option("--all", "Also known models that are not here.")] = False,
    *,
    vram_limit: VramLimit = None,
    json: Json = False,
) -> None:
    """List the models on this machine.

    Those that NazX converted, and those in the Hub's cache that it can use as they are. With
    --all those that NazX knows, too: whether they fit this machine, in which precision, how many
    tokens they write in a second at most, and how many a prompt may have; --vram-limit asks that
    of a card of this size.

    Example: nazx ls --all
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.catalog.stored import stored_models

    models = stored_models()
    corrections = [
        ModelRef.parse(model.name).correction() for model in models if model.place == "nazx"
    ]
    note = "\n".join(filter(None, corrections))
    report = Report(json=json)
    if all or "vram_limit" in named_options(context):
        _tell_all(report, models, vram_limit, note)
    elif models:
        table = Table([*map(_row, models)], _HEADINGS, right=(1,))
        report.tell([*map(_facts, models)], table, note=note)
    else:
        report.tell([], note="no model is here yet; next: nazx ls --all, then nazx pull NAME")


def _facts(model: StoredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "present": True,
        "bytes": model.nbytes,
        "attention": model.config.attention.kind if model.config else None,
        "dtype": model.dtype or None,
        "where": model.place,
        "path": str(model.folder),
        "source": model.origin.source if model.origin else None,
        "commit": model.origin.commit if model.origin else None,
        "problem": model.problem or None,
    }


def _row(model: StoredModel) -> tuple[str, ...]:
    if model.config is None:
        kind, dtype = "damaged", f"nazx verify {model.name}"
    else:
        kind, dtype = model.config.attention.kind, model.dtype
    where = "Hub cache" if model.place == "hub" else str(model.folder)
    return model.name, size_text(model.nbytes), kind, dtype, where


def _tell_all(report: Report, models: list[StoredModel], most: int | None, note: str) -> None:
    """The models that are here, and those that are known, and how each runs on this machine."""
    from nazx_cli.catalog.registry import Registry
    from nazx_cli.memory.choosing import fit
    from nazx_cli.memory.machine import this_machine

    machine, registry = this_machine(), Registry.load()

    def fitted(config: ModelConfig | None) -> Fit | None:
        return fit(config, machine, most) if config else None

    facts, rows = [], []
    for model in models:
        entry = registry.find(model.name.partition("@")[0]) if model.place == "nazx" else None
        found = fitted(model.config)
        facts.append(_facts(model) | _entry_facts(entry) | _fit_facts(found, machine))
        rows.append(_offer(model.name, found, "here", entry))
    here = {model.name for model in models}
    for entry in registry.entries.values():
        if entry.name in here:
            continue
        found = fitted(entry.config)
        absent = {"name": entry.name, "present": False, "attention": entry.attention.kind}
        facts.append(absent | _entry_facts(entry) | _fit_facts(found, machine))
        rows.append(_offer(entry.name, found, size_text(entry.download_bytes), entry))
    table = Table(rows, _OFFERED, right=_FIGURES, spare=_SPARE)
    report.tell(facts, table, note="\n".join(filter(None, [_explained(machine, most), note])))


def _entry_facts(entry: RegistryEntry | None) -> dict[str, Any]:
    if entry is None:
        return {}
    return {
        "description": entry.description,
        "good_at": entry.good_at,
        "licence": entry.licence,
        "gated": entry.gated,
        "parameters": entry.parameters,
        "download_bytes": entry.download_bytes,
        "context_length": entry.config.max_positions,
        "recommended_quantization": entry.quantize,
    }


def _fit_facts(found: Fit | None, machine: Hardware) -> dict[str, Any]:
    if found is None:
        return {"fit": None}
    return {
        "fit": {
            "device": machine.device,
            "bytes_per_second": round(machine.bandwidth),
            "limit_bytes": found.plan.limit,
            "fits": found.fits,
            "precision": found.precision,
            "total_bytes": found.plan.estimate.total,
            "context_tokens": found.context,
            "most_tokens_per_second": round(found.speed, 2),
        }
    }


def _offer(name: str, found: Fit | None, size: str, entry: RegistryEntry | None) -> tuple[str, ...]:
    if found is None:
        held, speed, context = "damaged", "-", "-"
    elif found.fits:
        held, speed, context = found.precision, rate_text(found.speed), f"{found.context:,}"
    else:
        held, speed, context = "-", "-", "-"
    licence, good = (entry.licence, entry.good_at) if entry else ("", "")
    if entry and entry.gated:
        licence += ", gated"
    return name, held, speed, context, size, licence, good


def _explained(machine: Hardware, limit: int | None) -> str:
    within = "" if limit is None else f"; at most {size_text(limit)} to be used"
    return (
        f"\nThis machine: {machine}, {size_text(machine.bandwidth)} a second{within}. What fits, "
        "the most tokens that it can write in a second, and how many a prompt may have. "
        "Next: nazx show NAME, nazx pull NAME, or nazx use NAME"
    )
