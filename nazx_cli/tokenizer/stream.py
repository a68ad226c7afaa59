"""Text of ids that arrive one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nazx_cli.tokenizer.tokenizer import Tokenizer


class TextStream:
    """Turns ids into text as they arrive, never letting out half a character.

    ``push`` returns the text that is now certain; ``flush`` what remains at the end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # first id whose text is still needed as context
        self._sent = 0  # ids before this one have been let out

    def push(self, token_id: int) -> str:
        """Text that ``token_id`` completes; empty while a character is incomplete."""
        self._ids.append(token_id)
        whole = self._tokenizer.decode(self._ids[self._start :])
        if whole.endswith("�") and len(self._ids) - self._sent < 8:
            return ""
        return self._release(whole)

    def flush(self) -> str:
        """Whatever is left, an incomplete character shown as the replacement character."""
        if self._sent == len(self._ids):
            return ""
        return self._release(self._tokenizer.decode(self._ids[self._start :]))

    def _release(self, whole: str) -> str:
        before = self._tokenizer.decode(self._ids[self._start : self._sent])
        self._start, self._sent = self._sent, len(self._ids)
        return whole[len(before) :]
