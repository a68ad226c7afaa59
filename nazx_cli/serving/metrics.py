"""What ``/metrics`` tells, in Prometheus's text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nazx_cli.memory.probe import Reading, read_memory, resident_bytes

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.serving.shelf import Shelf
    from nazx_cli.serving.worker import Worker
    from nazx_cli.session.events import Usage


class Metrics:
    """Counts of what was done since the server began, and what it holds now."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._device: Reading | None = None

    def count_request(self, path: str, status: int) -> None:
        """A request to the route ``path`` was answered."""
        self._requests[path, status] += 1

    def count_tokens(self, prompt: int, generated: int) -> None:
        """An answer was made."""
        self._tokens["prompt"] += prompt
        self._tokens["generated"] += generated

    def look(self) -> None:
        """Read the device; on the worker's thread, which alone may ask it."""
        if self._lm.device != "cpu":
            self._device = read_memory(self._lm.device)

    def gauge(self, worker: Worker, shelf: Shelf, usage: Usage | None) -> dict[str, Any]:
        """Memory, queue, documents, and what the last answer's context takes (``usage``)."""
        reading = self._device or read_memory("cpu")
        told: dict[str, Any] = {
            "memory": {
                "kind": reading.kind,
                "used": reading.used,
                "limit": self._lm.memory_limit or reading.total,
            },
            "queue": {"waiting": worker.waiting, "running": worker.running},
            "documents": shelf.num_documents,
            "context": None,
        }
        if usage is not None:
            told["context"] = {
                "bytes": usage.context_bytes,
                "document_tokens": usage.document_tokens,
                "window": usage.window,
                "window_used": usage.window_used,
            }
        return told

    def text(self, worker: Worker, shelf: Shelf) -> str:
        """All of it."""
        return "\n".join(self._lines(worker, shelf)) + "\n"

    def _lines(self, worker: Worker, shelf: Shelf) -> Iterator[str]:
        yield from _head("nazx_requests_total", "counter", "Requests answered.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'nazx_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("nazx_tokens_total", "counter", "Tokens of prompts, and generated.")
        for kind in ("prompt", "generated"):
            yield f'nazx_tokens_total{{kind="{kind}"}} {self._tokens[kind]}'
        limit = self._lm.memory_limit
        device = self._device
        gauges = (
            ("queue_waiting", "Requests that wait for the model.", worker.waiting),
            ("queue_running", "Requests that the model works on.", worker.running),
            ("documents", "Documents held.", shelf.num_documents),
            ("document_tokens", "Tokens of the documents held.", shelf.num_tokens),
            ("memory_bytes", "Resident memory of the server.", resident_bytes()),
            ("device_memory_bytes", "Memory in use of the device.", device.used if device else 0),
            ("memory_limit_bytes", "What the model keeps to; 0: no limit.", limit or 0),
        )
        for name, help, value in gauges:
            yield from _head(f"nazx_{name}", "gauge", help)
            yield f"nazx_{name} {value}"


def _head(name: str, kind: str, help: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"
