"""``nazx bench`` run in this process, and a tiny shape for its random models."""

from __future__ import annotations

from checkpoints import GPT_NEOX
from typer.testing import CliRunner

from nazx_cli.catalog.registry import RegistryEntry
from nazx_cli.cli.app import app
from nazx_cli.config import AttentionConfig

TINY = RegistryEntry("tiny", "", "", "", 0, False, GPT_NEOX, AttentionConfig("full"), ())


def bench(*arguments: str, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of ``nazx bench``."""
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == code, result.stderr
    return result.stdout, result.stderr
