"""``nazx ls``: the models on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from nazx_cli.cli.options import Json, OutputOptions, option

if TYPE_CHECKING:
    from nazx_cli.catalog.registry import RegistryEntry
    from nazx_cli.catalog.store import StoredModel

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
    from nazx_cli.catalog.store import stored_models
    from nazx_cli.cli.options import make_screen
    from nazx_cli.ui.phrases import columns

    screen = make_screen(OutputOptions(json=json))
    models = stored_models()
    names = {model.name for model in models}
    entries = Registry.load().entries.values() if all else ()
    absent = [entry for entry in entries if entry.name not in names]
    if json:
        screen.data([*map(_facts, models), *map(_absent_facts, absent)])
        return
    rows = [*map(_row, models), *map(_absent_row, absent)]
    if rows:
        screen.line(columns([_HEADINGS, *rows], right=(1,)))
    else:
        screen.note("no model is here yet; next: nazx pull nazx-smol-135m")


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
