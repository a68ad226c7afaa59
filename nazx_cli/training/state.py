"""A run's state on disk: one file that is whole or the one before, so that a run that is killed
goes on exactly where it was saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nazx_cli.checkpoint.atomic import check_writable, explained, write_whole
from nazx_cli.checkpoint.checkpoint import Checkpoint, read_header
from nazx_cli.checkpoint.write import Origin, to_json, write_tensors
from nazx_cli.errors import NazxError, UsageError, first_line

STATE_FILE = "state.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
_TAUGHT = "taught"  # steps but for those that overflowed, which AdamW does not count


T = TypeVar("T")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While entered, no other process of this machine trains in ``folder``; ``UsageError`` where
    one does already."""
    from filelock import FileLock, Timeout

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".training.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another process is training in {folder}", "wait for it, or end it first"
            ) from None
    try:
        yield
    finally:
        lock.release()


def check_new(path: Path, command: str) -> None:
    """``UsageError`` where a run's file ``path`` is there already, or its folder cannot be
    written; ``command`` goes on with such a run."""
    folder = path.parent
    if path.exists():
        raise UsageError(
            f"{folder} holds a run already", f"go on with it: {command} --resume --out {folder}"
        )
    check_writable(folder)


def write_asked(path: Path, asked: Mapping[str, Any]) -> None:
    """Keep what a run was asked for; written last, it makes the folder a whole one."""
    with explained(path):
        write_whole(path, to_json(asked).decode())


def read_asked(path: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    """What a run was asked for, from the file that it keeps that in; ``UsageError`` where there
    is none, ``NazxError`` where ``parse`` cannot make anything of it."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} holds no run", "name the folder that --out named when it began"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NazxError(
            f"{path} is broken: {first_line(error)}", "begin the run again in another folder"
        ) from None


@dataclass
class Counters:
    """Where a run is: steps and packs taken, tokens run, seconds spent; the best held-out loss
    and when it was, how many checks have not bettered it, and the step of the last check."""

    step: int = 0
    packs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    best_step: int = 0
    worse: int = 0
    judged: int = -1


def notes_on(base: str, folder: Path, counters: Counters) -> dict[str, Any]:
    """What an adapter says of its base, called ``base`` and read from ``folder``, and of how long
    it was trained."""
    origin = Origin.of(folder)
    return {
        "base": base,
        "base_source": str(origin) if origin else None,
        "base_sha256": dict(origin.sha256) if origin else {},
        "steps": counters.step,
        "tokens": counters.tokens,
    }


def save_state(
    folder: Path, counters: Counters, parameters: Sequence[Tensor], optimizer: torch.optim.AdamW
) -> None:
    """Save all that the next step depends on."""
    tensors: dict[str, Tensor] = {}
    for number, parameter in enumerate(parameters):
        tensors[f"value.{number}"] = parameter.detach()
        for key in ("exp_avg", "exp_avg_sq"):
            known = optimizer.state.get(parameter, {}).get(key)
            if known is not None:
                tensors[f"{key}.{number}"] = known
    taught = next((int(state["step"]) for state in optimizer.state.values()), 0)
    raw = json.dumps({**asdict(counters), _TAUGHT: taught}).encode()
    tensors["counters"] = torch.frombuffer(bytearray(raw), dtype=torch.uint8).to(torch.float32)
    _replace(folder / STATE_FILE, tensors)


def load_state(
    folder: Path, parameters: Sequence[Tensor], optimizer: torch.optim.AdamW
) -> Counters | None:
    """Take up what ``save_state`` saved; None where nothing is."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    saved = Checkpoint(folder, read_header(path))
    raw = bytes(saved.read("counters").to(torch.uint8).tolist())
    known = json.loads(raw)
    taught = known.pop(_TAUGHT, known["step"])
    counters = Counters(**known)
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            value = saved.read(f"value.{number}")
            if value.shape != parameter.shape:
                raise NazxError(
                    f"{path} belongs to a run with other settings", "begin with another --out"
                )
            parameter.copy_(value)
            if f"exp_avg.{number}" in saved.entries:
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(taught)),
                    "exp_avg": saved.read(f"exp_avg.{number}").to(parameter.device),
                    "exp_avg_sq": saved.read(f"exp_avg_sq.{number}").to(parameter.device),
                }
    return counters


def save_best(folder: Path, parameters: Sequence[Tensor]) -> None:
    """Keep the parameters as the best so far."""
    _replace(folder / BEST_FILE, {f"value.{n}": p.detach() for n, p in enumerate(parameters)})


def load_best(folder: Path, parameters: Sequence[Tensor]) -> bool:
    """Go back to the best ones; False where none were kept."""
    path = folder / BEST_FILE
    if not path.is_file():
        return False
    saved = Checkpoint(folder, read_header(path))
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(saved.read(f"value.{number}"))
    return True


def _replace(path: Path, tensors: Mapping[str, Tensor]) -> None:
    scratch = path.with_name(f"{path.name}.new")
    with explained(path):
        write_tensors(scratch, tensors)
        scratch.replace(path)


class Log:
    """JSON lines; what was written after the step that a run goes on from is taken back."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / LOG_FILE
        kept = [line for line in read_log(folder) if line["step"] <= step]
        with explained(self._path):
            write_whole(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        with explained(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last one that was cut short is left out."""
    try:
        text = (folder / LOG_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for raw in text.splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found
