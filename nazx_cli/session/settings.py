"""What a person chose for a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field

from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import UsageError

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class SessionSettings:
    """``ctx`` caps the tokens a prompt may take, ``max_tokens`` an answer; ``read`` is a mode
    of ``reading.plan.READ_MODES``."""

    system: str | None = None
    ctx: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    read: str = "auto"

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"an answer of {self.max_tokens} tokens is none", "allow 1 or more")
        if self.ctx is not None and self.ctx < 1:
            raise UsageError(f"a context of {self.ctx} tokens leaves no room", "allow 256 or more")
