"""``nazx ls``, ``nazx show`` and ``nazx rm``: the models on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.options import Json, Revision, option
from nazx_cli.cli.report import ModelName, Report
from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.catalog.registry import RegistryEntry
    from nazx_cli.catalog.stored import Removal, StoredModel

_HEADINGS = ("NAME", "SIZE", "ATTENTION", "DTYPE", "WHERE")


def ls(
    all: Annotated[bool, option("--all", "Also known models that are not here.")] = False,
    *,
    json: Json = False,
) -> None:
    """List the models on this machine.

    Those that NazX converted, and those in the Hub's cache that it can use as they are.

    Example: nazx ls --all
    """
    from nazx_cli.catalog.registry import Registry
    from nazx_cli.catalog.stored import stored_models
    from nazx_cli.ui.phrases import columns

    models = stored_models()
    names = {model.name for model in models}
    entries = Registry.load().entries.values() if all else ()
    absent = [entry for entry in entries if entry.name not in names]
    facts = [*map(_facts, models), *map(_absent_facts, absent)]
    rows = [*map(_row, models), *map(_absent_row, absent)]
    if rows:
        Report(json=json).tell(facts, columns([_HEADINGS, *rows], right=(1,)))
    else:
        Report(json=json).tell(facts, note="no model is here yet; next: nazx pull nazx-smol-135m")


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


def _absent_facts(entry: RegistryEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "present": False,
        "description": entry.description,
        "attention": entry.attention.kind,
        "parameters": entry.config.num_parameters,
    }


def _row(model: StoredModel) -> tuple[str, ...]:
    from nazx_cli.ui.phrases import size_text

    if model.config is None:
        kind, dtype = "damaged", f"nazx verify {model.name}"
    else:
        kind, dtype = model.config.attention.kind, model.dtype
    where = "Hub cache" if model.place == "hub" else str(model.folder)
    return model.name, size_text(model.nbytes), kind, dtype, where


def _absent_row(entry: RegistryEntry) -> tuple[str, ...]:
    return entry.name, "-", entry.attention.kind, "-", f"nazx pull {entry.name}"


def show(
    name: ModelName,
    *,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Show what a model is.

    Architecture, tokens, files, size and source. Uses no network: a model that is not here is
    shown from what NazX knows of it.

    Example: nazx show nazx-1b
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.ui.phrases import columns

    facts = ModelRef.parse(name, revision).describe()
    Report(json=json).tell(facts, columns(_lines(facts)))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("name", facts["name"])]
    if "description" in facts:
        lines.append(("description", facts["description"]))
    lines += _model_lines(facts)
    lines.append(("chat template", "yes" if facts["chat_template"] else "no"))
    return lines + (_file_lines(facts) if facts["present"] else _absent_lines(facts))


def _model_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    heads = f"{facts['heads']} heads of {facts['head_dim']}"
    if facts["kv_heads"] != facts["heads"]:
        heads += f", {facts['kv_heads']} for keys and values"
    tied = "tied" if facts["tied_embeddings"] else "separate"
    rope = facts["rope"]
    scaled = f", {rope['kind']} scaling by {rope['factor']:g}" if "factor" in rope else ""
    return [
        ("architecture", f"{facts['family']}, {facts['layers']} layers"),
        ("parameters", f"{facts['parameters']:,}"),
        ("width", f"{facts['hidden_size']:,}, inner {facts['intermediate_size']:,}"),
        ("attention", f"{_attention(facts['attention'])}; {heads}"),
        ("positions", f"{facts['max_positions']:,}"),
        ("RoPE", f"theta {rope['theta']:g}, {rope['dim']} dimensions of a head{scaled}"),
        ("vocabulary", f"{facts['vocab_size']:,}, embeddings {tied}"),
    ]


def _attention(attention: dict[str, Any]) -> str:
    if attention["kind"] != "windowed":
        return str(attention["kind"])
    return f"windowed, {attention['local_window']:,} and {attention['sink_tokens']} sinks"


def _file_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from nazx_cli.ui.phrases import size_text

    source = facts["source"] or "unknown"
    if facts["commit"]:
        source += f" at {facts['commit'][:12]}"
    files = [(name, size) for name, size in facts["files"].items()]
    return [
        ("stop tokens", " ".join(facts["stop_tokens"]) or "none"),
        ("dtype", facts["dtype"]),
        ("source", source),
        ("size", size_text(facts["bytes"])),
        ("folder", facts["path"]),
        *(("" if at else "files", f"{name}  {size:,}") for at, (name, size) in enumerate(files)),
    ]


def _absent_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("sources", ", ".join(facts["sources"])),
        ("here", f"no; next: nazx pull {facts['name']}"),
    ]


def rm(
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or org/repo.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove models from this machine.

    Those that nazx pull brought; org/repo is removed from the Hub's cache. A converted model may
    share its weights with that cache: their bytes are free once both are removed.

    Example: nazx rm nazx-70m EleutherAI/pythia-70m
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.catalog.stored import freed_bytes
    from nazx_cli.ui.phrases import size_text

    removals = [ModelRef.parse(each).removal() for each in dict.fromkeys(name)]
    freed = freed_bytes(removals)
    if not dry_run and not yes:
        _confirm(removals, freed)
    if not dry_run:
        for removal in removals:
            removal.execute()
    facts = {
        "removed": [removal.name for removal in removals],
        "paths": [str(folder) for removal in removals for folder in removal.folders],
        "freed_bytes": freed,
        "dry_run": dry_run,
    }
    verb = "would remove" if dry_run else "removed"
    gone = [f"{verb} {each.name}: {', '.join(map(str, each.folders))}" for each in removals]
    freed_text = f"{size_text(freed)} {'would be ' if dry_run else ''}freed"
    Report(json=json).tell(facts, *gone, freed_text, note=_kept_note(removals))


def _confirm(removals: Sequence[Removal], freed: int) -> None:
    """Ask; leave where the answer is not yes, refuse where there is nobody to ask."""
    from nazx_cli.ui.phrases import size_text

    names = ", ".join(removal.name for removal in removals)
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError(
            f"removing {names} needs a yes, and there is no terminal to ask on", "add --yes"
        )
    print(f"remove {names}, {size_text(freed)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was removed", file=sys.stderr)
        raise typer.Exit(1)


def _kept_note(removals: Sequence[Removal]) -> str:
    """What of the removed models stays in the Hub's cache; empty where nothing does."""
    names = {removal.name for removal in removals}
    kept = dict.fromkeys(each.kept for each in removals if each.kept and each.kept not in names)
    repos = " ".join(kept)
    return f"the Hub's cache keeps {repos}; next: nazx rm {repos}" if kept else ""
