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
OURS = Sampling(repeat_penalty=1.1)
"""How tokens are chosen where neither the person says nor the model's makers: the likeliest; the
penalty ends the loops of very small models."""

_SWITCH: Mapping[str, bool] = {"on": True, "off": False}
_SAMPLING: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repeat_penalty": float,
    "seed": int,
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
class Wishes:
    """What of an ``engine.sampling.Sampling`` the person chose; None for the rest."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self.over(OURS)  # says what is wrong with a value

    def over(self, sampling: Sampling) -> Sampling:
        """``sampling`` with what was chosen in its place."""
        return replace(sampling, **{k: v for k, v in vars(self).items() if v is not None})


@dataclass(frozen=True)
class SessionSettings:
    """``ctx`` caps the tokens a prompt may take, ``max_tokens`` an answer; ``read`` is a mode
    of ``names.READ_MODES``; ``grounding`` holds names and numbers to the documents; ``summaries``
    is one of ``names.SUMMARIES``, ``think`` of ``names.THINKING``; ``max_thinking`` caps the tokens
    that are thought before an answer."""

    system: str | None = None
    ctx: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: Wishes = field(default_factory=Wishes)
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
    sense. ``none`` takes back a ctx, and what was chosen of the sampling.
    """
    name, text = _known(key), text.strip()
    try:
        if name in _SAMPLING:
            value = None if text.lower() in _NONE else _SAMPLING[name](text)
            sampling = replace(settings.sampling, **{name: value})
            return replace(settings, sampling=sampling), name
        return replace(settings, **{name: _OWN[name](text)}), name
    except KeyError:
        raise UsageError(f"{name} {text!r} is neither on nor off", "type on or off") from None
    except ValueError:
        kind = "a number" if _SAMPLING.get(name) is float else "a whole number"
        raise UsageError(f"{name} {text!r} is not {kind}", f"type {kind}") from None


def parameters(settings: SessionSettings, default: Sampling) -> dict[str, str]:
    """Every parameter's value as text; ``none`` where nothing is set. ``default`` is the sampling
    that stands where the person chose none."""
    chosen, values = vars(settings.sampling), vars(settings.sampling.over(default))
    own = "" if default == OURS else " (the model's own)"
    shown = {
        name: _shown(values[name]) + (own if chosen[name] is None and name != "seed" else "")
        for name in _SAMPLING
    }
    return shown | {name: _shown(getattr(settings, name)) for name in _OWN}


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
