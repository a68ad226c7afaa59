"""Telling that an answer goes round in circles, and what of it is the repeats.

Two signs, and both take three copies of the same: the latest tokens are one stretch over and over;
or the latest lines and sentences have all been there before, whatever number stands before them.
A refrain, a table or a list has something new between its repeats.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

_COPIES = 3
_TOKENS = 64  # of all copies together, where tokens repeat
_LETTERLESS = 512  # the same for what has no letters: a matrix, a rule of dashes
_CHARACTERS = 160  # of lines and sentences that were all there before
_HELD = 8  # repeated tokens, from which on a stretch within a sentence is held back

_END = re.compile(r"""\n+|[.!?]+["'”’)\]]*\s+|[。！？]+[」』”]*""")
_MARK = re.compile(r"\W*(?:\d{1,3}(?:[.):]|$))?")  # a list's
_SAID = re.compile(r".*[^\W_]", re.DOTALL)  # up to the last letter or digit
_LETTER = re.compile(r"[^\W\d_]")


class Repeats:
    """Follows one answer.

    ``begin`` is where in its text the repeats begin, up to which it may be shown: they may yet turn
    out to be none. ``is_loop`` tells that nothing new comes any more; ``kept`` is then how many
    tokens have the text before the repeats.
    """

    def __init__(self) -> None:
        self.begin = 0
        self.is_loop = False
        self._ids: list[int] = []
        self._ends: list[int] = []  # characters of the text up to each token's end
        self._at: dict[int, list[int]] = {}  # where each token stands
        self._runs: dict[int, int] = {}  # distance -> latest tokens equal to those so far back
        self._seen: set[str] = set()  # lines and sentences
        self._old: list[str] = []  # the latest of them, all seen before
        self._old_begin = 0
        self._open_begin = 0  # where the last one ended that has words
        self._from = 0

    @property
    def kept(self) -> int:
        """Tokens of the answer without its repeats, and without one that but begins a character."""
        count = bisect_right(self._ends, self.begin)
        return bisect_left(self._ends, self._ends[count - 1]) + 1 if count else 0

    def push(self, token: int, text: str) -> None:
        """Take in the next token, and the answer's text up to it."""
        self._run(token)
        self._ends.append(len(text))
        while found := _END.search(text, self._from):
            self._close(text[self._open_begin : found.end()])
            self._from = found.end()
        self.begin = max(self.begin, min(self._held(text), self._run_begin()))
        self.is_loop = self._says_nothing_new() or self._cycles(text)

    def _run(self, token: int) -> None:
        n, places = len(self._ids), self._at.setdefault(token, [])
        self._runs = {n - at: self._runs.get(n - at, 0) + 1 for at in places}
        places.append(n)
        self._ids.append(token)

    def _run_begin(self) -> int:
        """Where the longest repeat begins, if it is long; else the end of the text."""
        longest = max(self._runs.values(), default=0)
        return self._ends[-1 - longest] if longest >= _HELD else self._ends[-1]

    def _cycles(self, text: str) -> bool:
        for distance, run in self._runs.items():
            whole = run + distance
            if run >= (_COPIES - 1) * distance and whole >= _TOKENS:
                before = self._ends[-1 - distance]
                if whole >= _LETTERLESS or _LETTER.search(text, before):
                    return True
        return False

    def _close(self, segment: str) -> None:
        """Take in a line or sentence, which begins at ``_open_begin``."""
        key = _key(segment)
        if not key:
            return
        if key not in self._seen:
            self._seen.add(key)
            self._old = []
        else:
            if not self._old:
                self._old_begin = self._open_begin
            self._old.append(key)
        self._open_begin += len(segment)

    def _held(self, text: str) -> int:
        """Where the lines and sentences begin that were there before; the last one may be open."""
        key = _key(text[self._open_begin :])
        if not any(seen.startswith(key) for seen in self._seen):
            return len(text)
        return self._old_begin if self._old else self._open_begin

    def _says_nothing_new(self) -> bool:
        words = [key for key in self._old if _LETTER.search(key)]
        enough = len(words) >= (_COPIES - 1) * len(set(words))
        return enough and sum(map(len, words)) >= _CHARACTERS


def _key(segment: str) -> str:
    """What a line or sentence says, without a list's mark before it and what ends it; lines of code
    may differ by a sign alone."""
    mark = _MARK.match(segment)
    said = _SAID.match(segment, mark.end() if mark else 0)
    return " ".join(said.group().casefold().split()) if said else ""
