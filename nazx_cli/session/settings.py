"""What a person chose for a conversation, and how each choice is set by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nazx_cli.amounts import parse_count
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import UsageError
from nazx_cli.names import EXTRACT, SUMMARIES, THINKING

DEFAULT_MAX_TOKENS = 512
DEFAULT_MAX_THINKING = 2048

_NONE = ("none", "off", "auto", "")
_SWITCH: Mapping[str, bool] = {"on": True, "off": False}
_SAMPLING: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repeat_penalty": float,
    "seed": lambda text: None if text.lower() in _NONE else int(text),
}
_OWN: Mapping[str, Callable[[str], Any]] = {
    # SessionSettings itself says what is wrong with 0.
    "max_tokens": lambda text: parse_count(text, least=0),
    "ctx": lambda text: None if text.lower() in _NONE else parse_count(text, least=0),
    "think": str.lower,
    "max_thinking": lambda text: parse_count(text, least=0),
    "read": str.lower,
    "grounding": lambda text: _SWITCH[text.lower()],
    "summaries": str.lower,
}
PARAMETERS: tuple[str, ...] = (*_SAMPLING, *_OWN)
"""Names that ``with_parameter`` takes; ``top-k`` stands for ``top_k``."""


@dataclass(frozen=True)
class SessionSettings:
    """``ctx`` caps the tokens a prompt may take, ``max_tokens`` an answer; ``read`` is a mode
    of ``names.READ_MODES``; ``grounding`` holds names and numbers to the documents; ``summaries``
    is one of ``names.SUMMARIES``, ``think`` of ``names.THINKING``; ``max_thinking`` caps the tokens
    that are thought before an answer."""

    system: str | None = None
    ctx: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    read: str = "auto"
    grounding: bool = True
    summaries: str = "auto"
    think: str = "hide"
    max_thinking: int = DEFAULT_MAX_THINKING

    @property
    def asks_to_think(self) -> bool | None:
        """What a chat template with a switch for thinking is told; None: nothing."""
        return {"on": True, "off": False}.get(self.think)

    def extracts(self, writes: bool) -> bool:
        """Whether answers about the whole are in the documents' own sentences, for a model that
        ``writes`` good ones, or does not."""
        return self.summaries == EXTRACT or (self.summaries == "auto" and not writes)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"an answer of {self.max_tokens} tokens is none", "allow 1 or more")
        if self.ctx is not None and self.ctx < 1:
            raise UsageError(f"a context of {self.ctx} tokens leaves no room", "allow 256 or more")
        for name, words in (("summaries", SUMMARIES), ("think", THINKING)):
            if (value := getattr(self, name)) not in words:
                raise UsageError(f"{name} cannot be {value!r}", f"use one of {', '.join(words)}")


def with_parameter(settings: SessionSettings, key: str, text: str) -> tuple[SessionSettings, str]:
    """``settings`` with one of ``PARAMETERS`` changed, and the parameter's exact name.

    ``UsageError`` for a name that there is not (with the nearest) and a value that makes no
    sense. ``none`` takes back a seed or a ctx.
    """
    name, text = _known(key), text.strip()
    try:
        if name in _SAMPLING:
            sampling = replace(settings.sampling, **{name: _SAMPLING[name](text)})
            return replace(settings, sampling=sampling), name
        return replace(settings, **{name: _OWN[name](text)}), name
    except KeyError:
        raise UsageError(f"{name} {text!r} is neither on nor off", "type on or off") from None
    except ValueError:
        kind = "a number" if _SAMPLING.get(name) is float else "a whole number"
        raise UsageError(f"{name} {text!r} is not {kind}", f"type {kind}") from None


def parameters(settings: SessionSettings) -> dict[str, str]:
    """Every parameter's value as text; ``none`` where nothing is set."""
    values = {name: getattr(settings.sampling, name) for name in _SAMPLING}
    values |= {name: getattr(settings, name) for name in _OWN}
    return {name: _shown(value) for name, value in values.items()}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _known(key: str) -> str:
    name = key.strip().lower().replace("-", "_")
    if name in PARAMETERS:
        return name
    close = difflib.get_close_matches(name, PARAMETERS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(PARAMETERS)}"
    raise UsageError(f"there is no parameter {key!r}", hint)
