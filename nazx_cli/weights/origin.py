"""Where a checkpoint came from, kept beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nazx_cli.weights.atomic import explained
from nazx_cli.weights.write import to_json

ORIGIN_FILE = "nazx_source.json"


@dataclass(frozen=True)
class Origin:
    """A source: ``kind`` is hub, pypi, folder or gguf; ``source`` its repository, package or path.

    ``commit`` fixes a Hub repository, ``revision`` is the name it was asked for by. ``sha256`` are
    the hashes of the weight files, where they are known.
    """

    kind: str
    source: str
    revision: str | None = None
    commit: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def is_same(self, other: Origin | None) -> bool:
        """Whether ``other`` names the same bytes."""
        return other is not None and (self.kind, self.source, self.commit) == (
            other.kind,
            other.source,
            other.commit,
        )

    def write(self, folder: Path) -> None:
        """Keep it in ``folder``."""
        with explained(folder):
            (folder / ORIGIN_FILE).write_bytes(to_json(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What ``folder`` says of itself; None where it says nothing usable."""
        try:
            data: Any = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
            hashes = {str(name): str(value) for name, value in dict(data["sha256"]).items()}
            texts = {key: data.get(key) for key in ("revision", "commit")}
            if any(not isinstance(value, str | None) for value in texts.values()):
                return None
            return cls(str(data["kind"]), str(data["source"]), **texts, sha256=hashes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"{self.source} at {self.commit[:12]}" if self.commit else self.source
