"""How much of the window and of the memory a session takes, for the gauge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nazx_cli.session.answering import Answerer, Setup
    from nazx_cli.session.state import History, State


@dataclass(frozen=True)
class Usage:
    """Tokens and bytes of a session.

    documents            name and tokens of each, in their order
    document_tokens      of all documents
    conversation_tokens  what the prompt holds of the conversation, passages included
    window, window_used  tokens that the model takes at once (None: no limit) and those of them
                         in use: documents count where the model attends to them
    context_bytes        held for the context beyond the model's weights
    left_out             turns that outgrew the window and joined the documents for recall
    """

    documents: tuple[tuple[str, int], ...]
    document_tokens: int
    conversation_tokens: int
    window: int | None
    window_used: int
    context_bytes: int
    left_out: int


class Meter:
    """Measures what ``answerer`` takes; safe to ask from another thread while it answers."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._counted: tuple[History, str | None] | None = None
        self._tokens = 0

    def usage(self, state: State) -> Usage:
        """What ``state`` takes, the present one of the conversation."""
        setup, context = self._answerer.setup(state), self._answerer.context
        tokens = state.num_tokens
        talk = self._conversation(state, setup)
        return Usage(
            tuple((document.name, len(document)) for document in state.documents),
            tokens,
            talk,
            state.settings.ctx if setup.attends else setup.prompter.window,
            talk + tokens if setup.attends else talk,
            0 if context is None else context.nbytes,
            state.history.left_out,
        )

    def _conversation(self, state: State, setup: Setup) -> int:
        """Tokens of the conversation. During an answer they are those in the context: the
        tokenizer is then in use, and it serves one thread."""
        with self._answerer.lock:
            if not self._answerer.answering:
                counted = (state.history, state.settings.system)
                if self._counted is None or counted != self._counted:
                    self._tokens = len(setup.prompter.conversation(state.history.messages()))
                    self._counted = counted
                return self._tokens
        context = self._answerer.context
        return self._tokens if context is None else context.tokens.live_count
