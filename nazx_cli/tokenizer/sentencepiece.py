"""Tokenizers of SentencePiece's kind: a space is put in front of a text, spaces become "▁", and
byte pair encoding then works on the text as one word.

So what is merged tells where a text may be cut: between two characters that stand side by side in
no token that is made by merging, nor in one that is looked for before. Those here are told apart
as spaces, line breaks and all others; cuts are sought before spaces, and around line breaks where
tokens allow. What takes no part in merging is characters without a token, which become their bytes.

The space in front is put there by our own hand, once: the backend would put one in front of every
piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nazx_cli.tokenizer.cutting import Cutting, offsets_are_local

SPACE = "\u2581"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_NEVER, _ALWAYS, _UNLESS_SPACE = range(3)


@dataclass(frozen=True)
class Spaced:
    """A tokenizer of this kind.

    plain    the ``tokenizer.json`` of the same one that puts nothing in front of a text
    cutting  its safe cuts; None where none is known
    """

    plain: Mapping[str, Any]
    cutting: Cutting | None
    _front: int

    def front(self, text: str) -> str:
        """What is put in front of ``text``: a space or nothing."""
        if not text or self._front == _NEVER:
            return ""
        begins = text[0] in (" ", SPACE)
        return "" if begins and self._front == _UNLESS_SPACE else " "


def spaced_of(spec: Mapping[str, Any]) -> Spaced | None:
    """The tokenizer given as its ``tokenizer.json``; None where it is of another kind."""
    model = spec["model"]
    affixes = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if model.get("type") != "BPE" or any(model.get(key) for key in affixes):
        return None
    front = _front_of(spec.get("normalizer"), spec.get("pre_tokenizer"))
    if front is None or not offsets_are_local(spec.get("post_processor")):
        return None
    sought = [token for token in spec.get("added_tokens") or [] if not token.get("special")]
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    if any(token.get(flag) for token in sought for flag in flags):
        return None
    if sought and front != _NEVER:  # after each of them a space is put in front anew
        return None
    plain = {**spec, "normalizer": _REPLACE, "pre_tokenizer": None}
    return Spaced(plain, _cutting(spec, bool(sought)), front)


def _front_of(normalizer: Any, pre_tokenizer: Any) -> int | None:
    """When a space is put in front; None for what does anything else to a text."""
    steps = _steps(normalizer, "normalizers")
    before = [step for step in steps if step != _REPLACE]
    if pre_tokenizer and pre_tokenizer.get("type") == "Metaspace":
        if before or pre_tokenizer.get("split") or pre_tokenizer.get("replacement") != SPACE:
            return None
        schemes = {"never": _NEVER, "first": _UNLESS_SPACE, "always": _UNLESS_SPACE}
        return schemes.get(pre_tokenizer.get("prepend_scheme"))
    if _REPLACE not in steps or not _splits_nothing(pre_tokenizer):
        return None
    if before == [{"type": "Prepend", "prepend": SPACE}] and steps[0] != _REPLACE:
        return _ALWAYS
    return None if before else _NEVER


def _steps(part: Any, name: str) -> list[Any]:
    if not part:
        return []
    return list(part[name]) if part.get("type") == "Sequence" else [part]


def _splits_nothing(pre_tokenizer: Any) -> bool:
    """Gemma's splits at spaces, of which the normalizer has left none."""
    if not pre_tokenizer:
        return True
    return bool(
        pre_tokenizer.get("type") == "Split" and pre_tokenizer["pattern"] == {"String": " "}
    )


def _cutting(spec: Mapping[str, Any], sought: bool) -> Cutting | None:
    vocabulary = spec["model"]["vocab"]
    whole = {f"<0x{byte:02X}>" for byte in range(256)} | {SPACE}
    if not spec["model"].get("byte_fallback") or not whole <= vocabulary.keys():
        return None
    # A special token that is not taken from a plain text still hides what overlaps it.
    added = (token["content"] for token in spec.get("added_tokens") or [] if sought)
    side_by_side = _pairs(_merged(spec["model"]["merges"])) | _pairs(added)
    if side_by_side & {"x ", "\n "}:
        return None
    return _IN_LINES if side_by_side & {"x\n", "\nx"} else _AROUND_LINE_BREAKS


def _merged(merges: Iterable[Any]) -> Iterable[str]:
    for merge in merges:
        yield merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)


def _pairs(tokens: Iterable[str]) -> set[str]:
    """Two characters that stand side by side: of spaces, line breaks and others, as "x"."""
    shapes = {_OTHERS.sub("x", token.replace(SPACE, " ")) for token in tokens}
    return {one + other for shape in shapes for one, other in pairwise(shape)}


_OTHERS = re.compile(r"[^ \n]")

_S = f" {SPACE}"
_IN_LINES = Cutting(
    re.compile(f"[{_S}]*[^{_S}]+|[{_S}]+"),
    re.compile(f"[^{_S}](?= )"),
    re.compile(" "),
)
_AROUND_LINE_BREAKS = Cutting(
    re.compile(f"[{_S}]*(?:[^{_S}\n]+|\n+)|[{_S}]+"),
    re.compile(rf"[^{_S}\n](?=[ \n])|\n(?=[^\n])"),
    re.compile("[ \n]"),
)
