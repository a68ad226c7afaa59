"""Turns messages into a prompt's ids and knows how much room the model's window has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nazx_cli.errors import ContextOverflowError, ModelUnavailableError
from nazx_cli.session.messages import Message
from nazx_cli.session.settings import SessionSettings
from nazx_cli.session.templates import render

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

LEAST_ANSWER = 32
"""Tokens: a prompt that leaves less than this for an answer is refused."""
_AS_FILE = "put the long text in a file and name it with --file, or /read in a chat"
_UNLIMITED = 2048  # tokens for passages where neither the model nor --ctx sets a limit


class Prompter:
    """Renders and measures prompts; ``window`` is in tokens, answer included (None: no limit)."""

    def __init__(self, tokenizer: Tokenizer, settings: SessionSettings, window: int | None) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.is_chat = tokenizer.chat_template is not None
        self._system = [Message("system", settings.system)] if settings.system else []
        self._max_tokens = settings.max_tokens

    def ids(self, history: Sequence[Message], message: Message) -> list[int]:
        """Token ids of the conversation up to where the answer begins."""
        return render(self.tokenizer, [*self._system, *history, message])

    def conversation(self, history: Sequence[Message]) -> list[int]:
        """Token ids of system message and ``history`` alone."""
        messages = [*self._system, *history]
        if not messages:
            return []
        try:
            return render(self.tokenizer, messages, add_generation_prompt=False)
        except ModelUnavailableError:  # a template that takes no conversation without a question
            return [i for message in messages for i in self.tokenizer.encode(message.text)]

    def size(self, history: Sequence[Message], message: Message) -> int:
        """Tokens of that prompt."""
        return len(self.ids(history, message))

    def check(self, question: str) -> None:
        """Raise ``ContextOverflowError`` for a question that leaves no room for an answer."""
        if self.window is None:
            return
        least = min(LEAST_ANSWER, self._max_tokens)
        over = self.size([], Message("user", question)) + least - self.window
        if over <= 0:
            return
        takes = f"the model's window takes {self.window:,}, its answer included"
        system = self._tokens(self._system[0].content) if self._system else 0
        if system > self._tokens(question):
            raise ContextOverflowError(
                f"the system message has {system:,} tokens; {takes}",
                f"shorten it by {over:,} tokens, or {_AS_FILE}",
            )
        raise ContextOverflowError(
            f"the question has {self._tokens(question):,} tokens; {takes}",
            f"shorten it by {over:,} tokens, or {_AS_FILE}",
        )

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    @property
    def answer_room(self) -> int:
        """Tokens kept free for an answer; a windowed model's window slides beyond that."""
        return min(self._max_tokens, (self.window or 4 * self._max_tokens) // 4)

    def room(self, history: Sequence[Message], message: Message) -> int:
        """Tokens that can be added to the prompt and leave the answer its room."""
        if self.window is None:
            return _UNLIMITED
        return self.window - self.answer_room - self.size(history, message)
