"""``nazx doctor``: what NazX finds on this machine."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from nazx_cli import __version__
from nazx_cli.cli.shared.options import Json, Offline, Report
from nazx_cli.names import DEFAULT_MODEL, is_offline
from nazx_cli.ui.phrases import size_text
from nazx_cli.ui.terminal.tables import Table

_PACKAGES = ("torch", "transformers", "huggingface_hub", "bitsandbytes")


def doctor(*, offline: Offline = False, json: Json = False) -> None:
    """Show what NazX finds on this machine.

    Versions, devices and free memory, whether the Hub answers, where things are stored and how big
    they are.

    Example: nazx doctor
    """
    report = Report(json=json)
    with report.progress("looking at this machine"):
        facts = _facts(offline)
    report.tell(facts, Table(_lines(facts)))


def _facts(offline: bool) -> dict[str, Any]:
    from nazx_cli.kernels.native.compiler import find_compiler, unkept

    hub = ThreadPoolExecutor(1).submit(_hub, offline)  # while everything else is looked at
    facts = {
        "versions": _versions(),
        "devices": _devices(),
        "compiler": find_compiler(),  # for the inner loop of InAttention, on a CPU
        "compiler_problem": unkept() or None,
        "storage": _storage(),
        "models": _models(),
        "advice": _advice(),
    }
    return {**facts, "hub": hub.result()}


def _hub(offline: bool) -> dict[str, Any]:
    """Whether the Hub can be reached."""
    from nazx_cli.catalog.hub import HubUnreachableError, check_reachable, shown_endpoint

    problem = None
    if is_offline(offline):
        problem = "not asked: NazX is offline"
    else:
        try:
            check_reachable()
        except HubUnreachableError as error:
            problem = error.message
    return {"endpoint": shown_endpoint(), "reachable": problem is None, "problem": problem}


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"nazx": __version__, "python": sys.version.split()[0]}
    for name in _PACKAGES:
        found[name] = None
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _devices() -> list[dict[str, Any]]:
    """The CPU and every accelerator, with bytes free and in all."""
    import torch

    from nazx_cli.memory.probe import read_memory

    names = {"cpu": f"{torch.get_num_threads()} threads"}
    for number in range(torch.cuda.device_count()):
        names[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    if torch.backends.mps.is_available():
        names["mps"] = "Apple GPU"
    readings = {name: read_memory(name) for name in names}
    return [
        {
            "name": name,
            "description": names[name],
            "free_bytes": reading.free,
            "total_bytes": reading.total,
        }
        for name, reading in readings.items()
    ]


def _storage() -> list[dict[str, Any]]:
    from nazx_cli.catalog.hub import cache_folder
    from nazx_cli.catalog.stored import nazx_home

    seen: set[tuple[int, int]] = set()
    places = (("NAZX_HOME", nazx_home()), ("Hub cache", cache_folder()))
    # A converted model shares files with the Hub's cache: they count once, there.
    sizes = {name: _size(path, seen) for name, path in reversed(places)}
    return [{"name": name, "path": str(path), "bytes": sizes[name]} for name, path in places]


def _size(top: Path, seen: set[tuple[int, int]]) -> int:
    """Bytes of the files under ``top`` that are not in ``seen`` yet, links not followed."""
    size = 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a cache is large
            except OSError:  # removed in between
                continue
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                size += status.st_size
    return size


def _models() -> dict[str, bool]:
    """Which of the registry's models are on this machine."""
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.catalog.registry import Registry

    names = Registry.load().names
    return {name: ModelRef.parse(name).present() is not None for name in names}


def _advice() -> str | None:
    """A model of the registry that this machine has room for, better than the default."""
    from nazx_cli.memory.choosing import better_model

    return better_model(DEFAULT_MODEL)


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    versions = [f"{name} {known or '(missing)'}" for name, known in facts["versions"].items()]
    lines = [("versions", ", ".join(versions))]
    for device in facts["devices"]:
        free, total = size_text(device["free_bytes"]), size_text(device["total_bytes"])
        lines.append((device["name"], f"{device['description']}; {free} free of {total}"))
    # Trying it would take longer than all else: importing it loads PyTorch's compiler.
    untried = "installed; not tried before weights are quantized"
    missing = "none; pip install bitsandbytes lets --quantize work"
    lines.append(("bitsandbytes", untried if facts["versions"]["bitsandbytes"] else missing))
    none = "none; gcc or clang would make long contexts quicker on the CPU"
    lines.append(("C compiler", facts["compiler_problem"] or facts["compiler"] or none))
    hub = facts["hub"]
    lines.append(("Hub", hub["problem"] or f"{hub['endpoint']} answers"))
    for place in facts["storage"]:
        lines.append((place["name"], f"{place['path']}, {size_text(place['bytes'])}"))
    here = [name for name, present in facts["models"].items() if present]
    lines.append(("models here", ", ".join(here) or "none"))
    if absent := len(facts["models"]) - len(here):
        lines.append(("to pull", f"{absent} more: nazx ls --all"))
    if facts["advice"]:
        lines.append(("advice", facts["advice"]))
    return lines
