"""What there is to know about a model, on this machine or from the registry alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nazx_cli.catalog.hub import snapshot_origin
from nazx_cli.catalog.registry import HubSource, RegistryEntry
from nazx_cli.catalog.resolve import locate_model, parse_name
from nazx_cli.catalog.store import checkpoint_bytes, weights_dtype
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.write import Origin
from nazx_cli.config import ModelConfig
from nazx_cli.errors import ModelUnavailableError


def describe_model(name: str, revision: str | None = None) -> dict[str, Any]:
    """Facts about ``name`` as a JSON object; asks nobody.

    A model that is not on this machine is described from the registry, without its files;
    ``ModelUnavailableError`` where the registry does not know it either.
    """
    called = parse_name(name, revision)
    folder = locate_model(name, revision=revision)
    entry = called.entry
    facts: dict[str, Any] = {"name": name, "present": folder is not None}
    if entry is not None:
        facts |= {"description": entry.description, "sources": _sources(entry)}
    if folder is not None:
        config = ModelConfig.from_folder(folder)
        return facts | _architecture(config) | _files(folder, config)
    if entry is None:
        raise ModelUnavailableError(f"{name} is not on this machine", f"nazx pull {name}")
    return facts | _architecture(entry.config) | {"chat_template": entry.chat}


def _architecture(config: ModelConfig) -> dict[str, Any]:
    rope = config.rope
    return {
        "family": config.family,
        "parameters": config.num_parameters,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_positions": config.max_positions,
        "tied_embeddings": config.tie_embeddings,
        "parallel_residual": config.parallel_residual,
        "attention": config.attention.to_dict(),
        "rope": {
            "kind": rope.kind,
            "theta": rope.theta,
            "dim": rope.dim,
            **({"factor": rope.factor} if rope.kind != "default" else {}),
        },
    }


def _files(folder: Path, config: ModelConfig) -> dict[str, Any]:
    from nazx_cli.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    texts = {
        number: tokenizer.decode([number], skip_special=False) for number in tokenizer.stop_ids
    }
    origin = snapshot_origin(folder) or Origin.read(folder)
    return {
        "dtype": weights_dtype(config, Checkpoint.open(folder)),
        "tokens": tokenizer.vocab_size,
        "stop_tokens": [texts[number] for number in sorted(texts)],
        "chat_template": tokenizer.chat_template is not None,
        "path": str(folder),
        "bytes": checkpoint_bytes(folder),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "source": origin.source if origin else None,
        "revision": origin.revision if origin else None,
        "commit": origin.commit if origin else None,
    }


def _sources(entry: RegistryEntry) -> list[str]:
    return [
        source.repo if isinstance(source, HubSource) else f"{source.package} {source.version}"
        for source in entry.sources
    ]
