"""The regular expressions by which today's byte-level tokenizers split text into words.

They are facts about the models, written by those who trained them; GPT-2's own is built into the
`tokenizers` library.
"""

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|" + _REST
_MARKS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _REST

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_ENDS_LOWER = f"{_BEFORE}{_UPPER}*{_LOWER}+"
_BEGINS_UPPER = f"{_BEFORE}{_UPPER}+{_LOWER}*"

LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_MARKS}"
"""Up to three digits together."""

QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_MARKS}"
"""Each digit alone."""

GPT4O = (
    f"{_ENDS_LOWER}{_CONTRACTION}?|{_BEGINS_UPPER}{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}|{_MARKS_AND_SLASHES}"
)
"""Words end before a capital, and have their contraction with them."""

TEKKEN = rf"{_ENDS_LOWER}|{_BEGINS_UPPER}|\p{{N}}|{_MARKS_AND_SLASHES}"
"""Mistral's since Nemo: the same without contractions, each digit alone."""
