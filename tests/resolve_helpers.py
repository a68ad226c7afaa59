"""What the tests of finding a model share: its registered attention, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.config import AttentionConfig
from nazx_cli.errors import ModelUnavailableError

WINDOWED = AttentionConfig("windowed", 2048, 4)


def resolve_model(name: str | Path, revision: str | None = None, **options: Any) -> Path:
    """The checkpoint folder of a model by any of its names, fetched where it is not here."""
    return ModelRef.parse(name, revision).fetch(**options)


def error_of(name: str | Path, **options: Any) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as caught:
        resolve_model(name, **options)
    assert caught.value.exit_code == 5
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value
