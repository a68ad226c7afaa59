"""Where cases are run: a folder with a tiny model, and a process that forks for each of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from cli_helpers import tiny_checkpoint

from fuzz.law import Case, Outcome

_TESTS = Path(__file__).parents[1]
_SHOWN = 1 << 20  # characters of a stream that are looked at


class Bench:
    """Runs cases, one at a time, below ``root``.

    ``run`` is the folder of the case, ``home`` its NAZX_HOME; both are wiped before each case, and
    stay as they were left until the next.
    """

    def __init__(self, root: Path) -> None:
        self.folder, self._home, self._root = root / "run", root / "home", root
        self._streams = {name: root / name for name in ("stdin", "stdout", "stderr")}
        tiny_checkpoint(root / "model")
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def run(self, case: Case) -> Outcome:
        """What comes of ``case``."""
        self._lay_out(case)
        before = contents(self.folder)
        answer = self._ask(
            {
                "entry": case.entry,
                "argv": list(case.argv),
                "env": {**self._environment(), **case.env},
                "folder": str(self.folder),
                "streams": {name: str(path) for name, path in self._streams.items()},
            }
        )
        after = contents(self.folder)
        stdout, stderr = (self._streams[name] for name in ("stdout", "stderr"))
        return Outcome(
            answer["code"],
            stdout.read_text("utf-8", "replace")[:_SHOWN],
            stderr.read_text("utf-8", "replace")[:_SHOWN],
            answer["seconds"],
            answer["memory"],
            tuple(_changes(before, after, case)),
        )

    def _lay_out(self, case: Case) -> None:
        for folder in (self.folder, self._home):
            _remove(folder)
            folder.mkdir()
        for name, data in case.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if case.prepare:
            case.prepare(self.folder)
        self._streams["stdin"].write_bytes(case.stdin)

    def _environment(self) -> dict[str, str]:
        """The only variables of NazX's and the Hub's that a case has, but for its own."""
        return {
            "NAZX_HOME": str(self._home),
            "NAZX_KERNELS": str(self._root / "kernels"),
            "HF_HOME": str(self._home / "hub"),
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }

    def _ask(self, request: dict[str, Any]) -> Any:
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "fuzz.server", str(self._root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is not for it: it is ended with this
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith(("NAZX_", "HF_"))},
                    **self._environment(),
                    "PYTHONPATH": os.pathsep.join((str(_TESTS), str(_TESTS.parent))),
                    "OMP_NUM_THREADS": "1",
                    "TOKENIZERS_PARALLELISM": "false",
                },
            )
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def contents(folder: Path) -> dict[str, str]:
    """What is below a folder: kind and content of everything, by path."""
    found: dict[str, str] = {}
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(at, name)
            mode = path.lstat().st_mode
            state = f"{stat.S_IFMT(mode):o}"
            if stat.S_ISREG(mode) and os.access(path, os.R_OK):
                state += hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(mode):
                state += str(path.readlink())
            found[os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")] = state
    return found


def _changes(before: dict[str, str], after: dict[str, str], case: Case) -> list[str]:
    paths = sorted(before.keys() if case.may_add else before.keys() | after.keys())
    return [
        path
        for path in paths
        if before.get(path) != after.get(path)
        and not any(path == a or path.startswith(f"{a}/") for a in case.may_change)
    ]


def _remove(folder: Path) -> None:
    """Remove a folder, whatever permissions a case has left in it."""
    for at, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(at, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
