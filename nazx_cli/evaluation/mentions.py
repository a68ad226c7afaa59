"""Names in a text, and how far before each mention the last one stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nazx_cli.tokenizer.encode import Tokens

_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Mention:
    """A name's tokens, ``first`` to ``stop`` - 1, and the first token of the mention before it;
    -1 where there is none."""

    first: int
    stop: int
    before: int


def mentions(text: str, tokens: Tokens) -> Iterator[Mention]:
    """Those of ``text`` in their order. A name is a word that begins with a capital letter, goes on
    in small ones and is nowhere written without the capital."""
    words = list(_WORD.finditer(text))
    plain = {word[0] for word in words if word[0].islower()}
    names = [word for word in words if word[0].istitle() and word[0].lower() not in plain]
    firsts = np.searchsorted(tokens.starts, [name.start() for name in names], "right") - 1
    stops = np.searchsorted(tokens.starts, [name.end() for name in names], "left")
    last: dict[str, int] = {}
    for name, first, stop in zip(names, firsts.tolist(), stops.tolist(), strict=True):
        yield Mention(first, stop, last.get(name[0], -1))
        last[name[0]] = first
