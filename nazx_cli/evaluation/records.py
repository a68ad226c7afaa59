"""One answer with all that its scores are made of, and the file that keeps the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.evaluation.data.stories import Span


@dataclass(frozen=True)
class Read:
    """A stretch of the documents that was read, its characters counted through all of them, and its
    text."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True)
class Record:
    """A question, what came back, and what would have been right.

    run, item       fingerprints: of who answers and how; of what is asked
    answer          None where none was asked for (retrieval alone)
    passages        what was read; None where that cannot be told
    gold            where in the documents the right sections stand
    stands          whether those hold an answer's words; None where one of the two is unknown
    cites, cited    whether the answer can have a source, and the passage that is named for it first
    confidence      0 to 1; None where the model tells none
    runner_up       the other answer that it gave because it was unsure; None where it gave none
    names, unknown  names and numbers in the answer; those that neither documents nor question have
    error           why there is no answer, in a line
    """

    run: str
    item: str
    contestant: str
    given: str
    story: str
    kind: str
    question: str
    references: tuple[str, ...]
    turn: int = 1
    wrong: tuple[str, ...] = ()
    evidence: str = ""
    tags: Mapping[str, str] | None = None
    gold: tuple[Span, ...] = ()
    stands: bool | None = None
    answer: str | None = None
    finish: str = ""
    mode: str = ""
    passages: tuple[Read, ...] | None = None
    cites: bool = False
    cited: Read | None = None
    confidence: float | None = None
    runner_up: str | None = None
    names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The way back; ``KeyError`` or ``TypeError`` where ``data`` is no record."""
        own = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in own}
        for name in ("references", "wrong", "names", "unknown"):
            values[name] = tuple(values.get(name) or ())
        values["gold"] = tuple((int(a), int(b)) for a, b in values.get("gold") or ())
        if values.get("passages") is not None:
            values["passages"] = tuple(Read(**each) for each in values["passages"])
        if values.get("cited") is not None:
            values["cited"] = Read(**values["cited"])
        return cls(**values)


class AnswerFile:
    """A file of JSON lines to which each answer is added as soon as it is there.

    Lines that another run wrote stay, and a line that a killed process left unfinished is
    dropped. With ``path`` None nothing is kept. Errors: ``UsageError`` for a file that holds
    something else, ``NazxError`` where it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        if path is not None:
            self._known = {(line["run"], line["item"]): line for line in _lines(path)}
        self.found = len(self._known)
        """Answers that the file held when it was opened."""
        self._used: set[tuple[str, str]] = set()
        self._file = None if path is None else _open(path)

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as failed:  # what could not be written before cannot be now
            if error is None:
                raise _failed(self._path, failed) from None

    @property
    def used(self) -> int:
        """How many of them were asked for."""
        return len(self._used)

    def get(self, run: str, item: str) -> dict[str, Any] | None:
        """The answer of ``run`` to ``item``, if it is there."""
        if (run, item) in self._known:
            self._used.add((run, item))
        return self._known.get((run, item))

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write answers down, all of them or, where the process is killed, some."""
        if self._file is None:
            return
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            self._file.write(text.encode("utf-8", "surrogatepass"))
            self._file.flush()
        except OSError as error:
            raise _failed(self._path, error) from None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of an answers file; cuts off an unfinished last one."""
    try:
        if not path.exists():
            return []
        if not path.is_file():
            raise UsageError(f"{path} is no file", "name another file: --answers FILE")
        data = path.read_bytes()
    except OSError as error:
        raise _failed(path, error) from None
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for number, raw in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            line = json.loads(raw)
            if not isinstance(line["run"], str) or not isinstance(line["item"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{path}:{number} is no answer of an evaluation: nothing is added to such a file",
                "name another file: --answers FILE",
            ) from None
        found.append(line)
    if len(whole) < len(data):
        if not found and not data.startswith(b'{"run"'):
            raise UsageError(
                f"{path} holds something else than answers", "name another file: --answers FILE"
            )
        try:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        except OSError as error:
            raise _failed(path, error) from None
    return found


def _open(path: Path) -> Any:
    try:
        return path.open("ab")
    except OSError as error:
        raise _failed(path, error) from None


def _failed(path: Path | None, error: OSError) -> NazxError:
    return NazxError(
        f"cannot keep answers in {path}: {error.strerror or error}", "name a file you may write to"
    )
