"""A model's configuration by its name, without its weights."""

from __future__ import annotations

from pathlib import Path

from nazx_cli.catalog.resolve import converted_folder, parse_name
from nazx_cli.config import ModelConfig


def find_config(
    name_or_path: str | Path, revision: str | None = None, *, offline: bool = False
) -> ModelConfig:
    """The configuration of a local folder, a registry name (no network needed) or ``org/repo``.

    ``ModelUnavailableError`` where there is none.
    """
    called = parse_name(name_or_path, revision)
    if called.folder is not None:
        return ModelConfig.from_folder(called.folder)
    if called.entry is not None:
        folder = converted_folder(called.entry.name, called.revision)
        if (folder / "config.json").is_file():
            return ModelConfig.from_folder(folder)
        return called.entry.config
    from nazx_cli.catalog.hub import fetch_config

    return ModelConfig.from_folder(fetch_config(called.name, called.revision, offline=offline))
