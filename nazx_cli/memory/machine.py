"""This machine as a place for a model, without torch where no GPU is: its memory, the arithmetic
that it is quick at, and how fast it multiplies and how fast it reads memory, which bound how soon
a prompt is read and how fast tokens come.

Both speeds are kept in ``NAZX_HOME``, under the name of what they were measured on. Another day
they are measured again, since the machine may have been busy, and the best figures stand.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from nazx_cli.catalog.stored import nazx_home
from nazx_cli.checkpoint.atomic import write_whole
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import read_object
from nazx_cli.kernels.processor import multiplies_bfloat16, processor_name, usable_cores
from nazx_cli.memory.plan import GPU_WORK, Machine
from nazx_cli.memory.probe import read_memory

_PROCESS = 300_000_000  # measured: a chat on a CPU with its libraries, before weights are loaded
_BUFFER = 1 << 27  # bytes, read and written: beyond the caches of all but the largest processors
_PARTS = 8  # that are copied one after another
_SECONDS = 0.2  # for which it is copied, and for which matrices are multiplied
_SHAPE = (384, 1024, 1536)  # of a product, as a prompt of a small model has them
_GPU_BUFFER = 1 << 29
_PASSES = 10
_FASTEST = 1e15  # a second, which no memory or processor has: a file that says so is damaged
_PATIENCE = 5.0  # seconds for the GPU's own tool
_ALL = "all"
_AMPERE = 8.0  # compute capability: the first GPUs that multiply bfloat16


@dataclass(frozen=True)
class Hardware:
    """What runs models here: ``device`` is cpu, cuda or mps, ``name`` what it is called,
    ``bandwidth`` the bytes of memory that it moves in a second, ``place`` what plans need to know
    of it, ``operations`` how many multiplications and additions its arithmetic does in a second,
    infinite where that is not measured: on a GPU."""

    device: str
    name: str
    bandwidth: float
    place: Machine
    operations: float = math.inf

    def __str__(self) -> str:
        return f"{self.name}, {self.place.free / 1e9:.1f} GB free"


def this_machine() -> Hardware:
    """The GPU if there is one that can be used, else the CPU; measured where it is not known."""
    return _gpu() or _cpu()


def _cpu() -> Hardware:
    """The CPU, or the GPU of Apple's that shares its memory."""
    cores = usable_cores()
    name = f"{processor_name()}, {cores} core{'s' * (cores > 1)}"
    free, can_quantize = read_memory("cpu").free, find_spec("bitsandbytes") is not None
    speed = _known_speed(f"cpu {name}", _measure_cpu) or 0.0
    if sys.platform == "darwin" and platform.machine() == "arm64":
        place = Machine("bfloat16", free, 0, can_quantize, work=GPU_WORK)
        return Hardware("mps", name, speed, place)
    dtype, at_once = ("bfloat16", 2) if multiplies_bfloat16() else ("float32", 1)
    place = Machine(dtype, free, _PROCESS, can_quantize)
    products = _known_speed(f"products of float32, cpu {name}", _measure_products) or math.inf
    return Hardware("cpu", name, speed, place, at_once * products)


def _gpu() -> Hardware | None:
    """The first CUDA device that processes are shown, as the driver's own tool tells of it; None
    where torch has no use for it."""
    tool = shutil.which("nvidia-smi")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", _ALL).split(",")[0].strip()
    if tool is None or shown in ("", "-1") or not _torch_knows_cuda():
        return None
    which = [f"--id={shown}"] if shown.isdecimal() or shown.startswith("GPU-") else []
    asked = [
        tool,
        *which,
        "--query-gpu=name,memory.free,compute_cap",
        "--format=csv,noheader,nounits",
    ]
    try:
        told = subprocess.run(
            asked, capture_output=True, text=True, check=True, timeout=_PATIENCE
        ).stdout
        name, free, capability = (part.strip() for part in told.splitlines()[0].rsplit(",", 2))
        dtype = "bfloat16" if float(capability) >= _AMPERE else "float32"
        can_quantize = find_spec("bitsandbytes") is not None
        place = Machine(
            dtype, int(free) << 20, can_quantize=can_quantize, work=GPU_WORK, embeds_apart=True
        )
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
    speed = _known_speed(f"cuda {name}", _measure_cuda)
    return None if speed is None else Hardware("cuda", name, speed, place)


def _torch_knows_cuda() -> bool:
    """Told from its version: a build for CPUs says so, and importing it takes seconds."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def _known_speed(what: str, measure: Callable[[], float | None]) -> float | None:
    """A speed: the best of today's figure and earlier ones; None where it cannot be had."""
    file = nazx_home() / "speeds.json"
    kept = _read(file)
    best, day = _figure(kept.get(what))
    today = date.today().isoformat()
    if best and day == today:
        return best
    measured = measure()
    if not measured:
        return None
    speed = max(best, measured)
    _write(file, {**kept, what: {"per_second": round(speed), "day": today}})
    return speed


def _figure(entry: object) -> tuple[float, str]:
    """A kept speed and the day that it was measured on; 0 and none for what is neither."""
    if isinstance(entry, dict):
        speed = entry.get("per_second")
        if isinstance(speed, (int, float)) and 0 < speed < _FASTEST:
            return float(speed), str(entry.get("day"))
    return 0.0, ""


def _read(file: Path) -> dict[str, object]:
    try:
        return read_object(file)
    except (FileNotFoundError, ModelUnavailableError):  # it is measured again
        return {}


def _write(file: Path, speeds: dict[str, object]) -> None:
    with suppress(OSError):  # then the next command measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(speeds, indent=1) + "\n")


def _measure_cpu() -> float:
    """The fastest of some copies by all cores at once, each byte counted as read and written.

    Parts of the buffer take turns: each is short enough to be copied between two turns of other
    programs, on a machine that is busy.
    """
    import numpy as np

    cores = usable_cores()
    buffers = [np.empty(_BUFFER, np.uint8) for _ in range(2)]
    source, target = ([np.array_split(p, cores) for p in np.split(b, _PARTS)] for b in buffers)
    parts = [list(zip(*part, strict=True)) for part in zip(source, target, strict=True)]
    best = 0.0
    with ThreadPoolExecutor(cores) as pool:
        # NumPy lets go of the interpreter's lock while it fills and copies.
        for part in parts:
            list(pool.map(lambda pair: [each.fill(1) for each in pair], part))
        end = time.perf_counter() + _SECONDS
        while not best or time.perf_counter() < end:
            for part in parts:
                started = time.perf_counter()
                list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), part))
                best = max(best, 2 * _BUFFER / _PARTS / (time.perf_counter() - started))
    return best


def _measure_products() -> float:
    """Multiplications and additions of float32 a second, in the quickest of some products."""
    import numpy as np

    rows, inner, columns = _SHAPE
    left, right = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
    best, end = math.inf, time.perf_counter() + _SECONDS
    while math.isinf(best) or time.perf_counter() < end:
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def _measure_cuda() -> float | None:
    """The same on the GPU; None where torch cannot use it."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        source = torch.empty(_GPU_BUFFER, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        target.copy_(source)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(_PASSES):
            target.copy_(source)
        torch.cuda.synchronize()
    except RuntimeError:  # no memory is free, or the driver fails
        return None
    return 2 * _GPU_BUFFER * _PASSES / (time.perf_counter() - started)
