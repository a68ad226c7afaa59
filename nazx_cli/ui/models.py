"""What a chat needs to change its model or to open another session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nazx_cli.context.cost import Size
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.saving.session_file import ModelTag
    from nazx_cli.tokenizer import Tokenizer


@dataclass(frozen=True)
class Found:
    """A model that is on this machine: its tokenizer is read, its weights are not."""

    name: str
    folder: Path
    tokenizer: Tokenizer


class Models(Protocol):
    """Finds and loads models the way the person wants them held."""

    def find(self, name: str) -> Found:
        """Fetch the model if it is not here; ``ModelUnavailableError`` where that fails."""

    def load(self, found: Found, room: Size) -> LanguageModel:
        """Its weights, with room for documents of ``room`` and a conversation about them."""

    def tag(self, name: str, folder: Path) -> ModelTag:
        """What a saved session knows the model in ``folder`` by."""
