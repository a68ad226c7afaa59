"""The process that forks for each case: ``nazx`` with everything imported, and nothing done.

It reads a request a line on stdin (argv, env, folder, streams) and answers with exit code, seconds
of processor time and bytes of memory, a line each, on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from document_bytes import docx_members, epub_members, pdf_bytes, word_paragraph, zip_bytes

from fuzz.law import MEMORY, MODEL, SECONDS

_NAP = 0.002
_PATIENCE = 6 * SECONDS  # until one that waits for something other than a processor is stopped
_MOST = MEMORY + (1 << 30)  # bytes of address space beyond the first: the machine's own safety


def main(root: Path) -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm_up(root)
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _warm_up(root: Path) -> None:
    """Ask once about a document of every format, so that a case finds all modules loaded."""
    from nazx_cli.cli.app import app

    folder = root / "warm"
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    documents = {
        "a.pdf": pdf_bytes(["words"]),
        "a.epub": zip_bytes(epub_members({"a.xhtml": "<p>words</p>"}, {})),
        "a.docx": zip_bytes(docx_members(word_paragraph("words"))),
        "a.html": b"<html><p>words",
        "a.txt": "Wörter, die älter sind: größer, schöner.".encode("cp1252"),
        ".gitignore": b"*.log\n",
    }
    for name, data in documents.items():
        Path(name).write_bytes(data)
    files = [argument for name in (*documents, ".") for argument in ("--file", name)]
    null = Path(os.devnull)
    with null.open() as nothing, null.open("w") as nowhere:
        sys.stdin, sys.stdout, sys.stderr = nothing, nowhere, nowhere
        arguments = ["ask", "--model", MODEL, *files, "--max-tokens", "1", "words?"]
        app(arguments, prog_name="nazx", standalone_mode=False)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__


def _run(request: dict[str, Any]) -> dict[str, Any]:
    base = _resident()
    child = os.fork()
    if child == 0:
        _be_nazx(request)
    begin = time.monotonic()
    late = False
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        waited = time.monotonic() - begin
        if not late and waited > _PATIENCE and waited - _queued(child) > _PATIENCE:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(_NAP)
    return {
        "code": None if late else os.waitstatus_to_exitcode(status),
        "seconds": usage.ru_utime + usage.ru_stime,
        "memory": max(0, usage.ru_maxrss * 1024 - base),
    }


def _queued(child: int) -> float:
    """Seconds that a process stood in line for a processor."""
    return int(Path(f"/proc/{child}/schedstat").read_text().split()[1]) / 1e9


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _be_nazx(request: dict[str, Any]) -> None:
    """Become the command, as a process of its own, and never return."""
    code = 1
    try:
        os.setpgid(0, 0)
        streams = request["streams"]
        _redirect(0, streams["stdin"], os.O_RDONLY)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            _redirect(descriptor, streams[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        _own_streams()
        os.chdir(request["folder"])
        os.environ.update(request["env"])
        sys.argv = ["nazx", *request["argv"]]
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _MOST, size + _MOST))
        resource.setrlimit(resource.RLIMIT_CPU, (int(2 * SECONDS), int(2 * SECONDS)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = _exit_code(request["entry"])
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)


def _redirect(descriptor: int, path: str, flags: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


def _own_streams() -> None:
    """The streams that a fresh interpreter has; the server's hold what it has read ahead."""
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )


def _exit_code(entry: str) -> int:
    try:
        importlib.import_module(entry).main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
