"""What a conversation consists of, before it becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message; ``context`` is document text that stands before the ``content``."""

    role: Role
    content: str
    context: str = ""

    @property
    def text(self) -> str:
        """Context and content as a chat template gets them."""
        return f"{self.context}\n\n{self.content}" if self.context else self.content
