"""Where a text may be cut so that its pieces have the tokens of the whole.

A tokenizer of the kinds known here first splits text into words by a regular expression, matched
from left to right, each match beginning where the last one ended, with no look behind. Byte pair
encoding then works within each word. So tokens are those of the pieces at every place where the
expression certainly ends a match, whatever stands further left or right, and where what is left
of it gives the same matches with nothing after it. Only ``\\s+(?!\\S)`` looks ahead, which matters
to whitespace at the end of a piece alone.

W is Unicode's White_Space, the ``\\s`` of those expressions. For all of them:

- Between a character not in W and a space, a tab, or any of W but line breaks: no alternative
  goes on from the one to the other.
- Between a letter and ASCII whitespace or punctuation: what takes a letter goes on with letters
  only.

GPT-2's expression ends a match before line breaks too, when a character not in W precedes them.
That of Llama 3 and Qwen takes line breaks into the word of a punctuation mark before them, but
ends a match behind the last line break of every run of W. GPT-4o's and Mistral's take slashes
behind those line breaks too, and GPT-4o's the apostrophe of a contraction behind letters.

Where a space is put before a text that begins with none (``add_prefix_space``) pieces must begin
with one. NFC moves and composes nothing across these cuts. Single digits are split off by looking
at one character. Added tokens are looked for before all that, so none may contain a cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nazx_cli.tokenizer.expressions import GPT4O, LLAMA3, QWEN2, TEKKEN

_W = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_W_BUT_SPACE = _W.replace(" ", "", 1)
_LETTERS = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0400-\u0481\u048a-\u04ff"
# ASCII whitespace and punctuation; dashes, quotes, bullets, ellipsis.
_AFTER_LETTERS = r"\t-\r !-/:-@\[-`{-~\u2010-\u2027"


@dataclass(frozen=True)
class Cutting:
    """The safe cuts of a kind of tokenizer.

    chunks    ``findall`` gives small pieces, nearly words, that together are the text; where it
              is given a piece between two cuts
    cut       ends a match at a safe cut; depends on the characters on both sides of it only
    behind_a  first characters of the chunks that may be put behind a letter "a"; where they end
              in no whitespace, " a" may be put behind them in turn
    """

    chunks: re.Pattern[str]
    cut: re.Pattern[str]
    behind_a: re.Pattern[str]

    def first(self, text: str, begin: int, most: int | None = None) -> int:
        """The first cut behind the character at ``begin``, or the text's end; where neither comes
        within ``most`` characters, the place so far behind it."""
        end = len(text) if most is None else min(len(text), begin + most)
        found = self.cut.search(text, begin, end)
        return found.end() if found else end

    def last(self, text: str, end: int) -> int:
        """The last cut before the character at ``end - 1``, or 0."""
        reach = 1 << 10
        begin = end
        while begin > 0:
            begin, reach = max(0, end - reach), reach * 8
            found = [match.end() for match in self.cut.finditer(text, begin, end)]
            if found:
                return found[-1]
        return 0


def _through(first: str) -> str:
    """Goes on through runs of whitespace that begin with ``first``, before which is no cut."""
    return f"(?:[{first}][{_W}]*[^{_W}]*)*"


_AFTER_WORDS = _AFTER_LETTERS.replace("!-/", "!-&(-/")  # no apostrophe
_WORD_ALONE = f"[{_LETTERS}]+(?=[{_AFTER_WORDS}])"
_LETTERS_ALONE = f"[{_LETTERS}]+(?=[{_AFTER_LETTERS}])"
_TO_LAST_LINE_BREAK = rf"(?:[\r\n](?:[{_W}]*[\r\n])?)?"
_AT_THE_END = f"|[{_W}]+"  # elsewhere chunks have whitespace in front

_GPT2 = Cutting(
    re.compile(f"[{_W}]*(?:{_LETTERS_ALONE}|[^{_W}]+){_AT_THE_END}"),
    re.compile(rf"[^{_W}](?=[ \t\r\n])"),
    re.compile(f"[{_AFTER_LETTERS}]"),
)
_GPT2_PREFIXED = Cutting(
    re.compile(f"[{_W}]*[^{_W}]+{_through(_W_BUT_SPACE)}{_AT_THE_END}"),
    re.compile(f"[^{_W}](?= )"),
    re.compile(" "),
)
_LINE_BREAKS_AND_SLASHES = rf"(?:[\r\n](?:[{_W}]*[\r\n])?(?:/[^{_W}]*)?)*"
_GPT4O = Cutting(
    re.compile(f"[{_W}]*(?:{_WORD_ALONE}|[^{_W}]+{_LINE_BREAKS_AND_SLASHES}){_AT_THE_END}"),
    re.compile(rf"[^{_W}](?=[ \t])|[\r\n](?=[^{_W}/])"),
    re.compile(f"[{_AFTER_WORDS}]"),
)
_LLAMA3 = Cutting(
    re.compile(f"[{_W}]*(?:{_LETTERS_ALONE}|[^{_W}]+{_TO_LAST_LINE_BREAK}){_AT_THE_END}"),
    re.compile(rf"[^{_W}](?=[ \t])|[\r\n](?=[^{_W}])"),
    re.compile(f"[{_AFTER_LETTERS}]"),
)

_BY_EXPRESSION = {LLAMA3: _LLAMA3, QWEN2: _LLAMA3, GPT4O: _GPT4O, TEKKEN: _GPT4O}


def cutting_of(spec: Mapping[str, Any]) -> Cutting | None:
    """The cuts of a tokenizer, given as its ``tokenizer.json``; None where none is known safe."""
    model = spec["model"]
    if model.get("type") != "BPE" or model.get("dropout"):
        return None
    if (spec.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        return None
    if not offsets_are_local(spec.get("post_processor")):
        return None
    if not _added_tokens_are_whole(spec.get("added_tokens") or []):
        return None
    pre = spec.get("pre_tokenizer") or {}
    steps = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
    return _of_steps(steps)


def _of_steps(steps: list[Mapping[str, Any]]) -> Cutting | None:
    *before, last = steps or [{}]
    if last.get("type") != "ByteLevel":
        return None
    prefixed = bool(last.get("add_prefix_space", True))
    if last.get("use_regex", True):
        if any(step.get("type") != "Digits" for step in before):
            return None
        return _GPT2_PREFIXED if prefixed else _GPT2
    if len(before) != 1 or prefixed:
        return None
    (split,) = before
    isolated = split.get("type") == "Split" and split.get("behavior") == "Isolated"
    if not isolated or split.get("invert"):
        return None
    return _BY_EXPRESSION.get(split["pattern"].get("Regex", ""))


def offsets_are_local(post: Mapping[str, Any] | None) -> bool:
    """Whether offsets depend on the token alone, for a post-processor given as its JSON: with both
    flags the first one is special."""
    if post is None:
        return True
    if post.get("type") == "Sequence":
        return all(offsets_are_local(step) for step in post["processors"])
    if post.get("type") == "ByteLevel":
        return not (post.get("trim_offsets", True) and post.get("add_prefix_space", True))
    return post.get("type") == "TemplateProcessing"


def _added_tokens_are_whole(added: list[Mapping[str, Any]]) -> bool:
    """Whether no cut can fall into an added token, nor its finding depend on what is around.

    Special ones count too, if there are others: they are not taken from plain text, but hide
    what overlaps them.
    """
    if all(token.get("special") for token in added):
        return True
    around = ("single_word", "lstrip", "rstrip")
    return all(
        _is_whole(token["content"]) and not any(token.get(flag) for flag in around)
        for token in added
    )


def _is_whole(content: str) -> bool:
    if content.isspace():
        return "\n" not in content and "\r" not in content
    spaced = any(character.isspace() for character in content)
    return not spaced and not re.match(_LETTERS_ALONE, content)
