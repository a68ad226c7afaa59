"""How much of the window and of the memory a session takes, for the gauge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.session.history import History
    from nazx_cli.session.session import Session


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
    """Measures a session; safe to ask from another thread while it answers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._counted: tuple[LanguageModel, History, str | None] | None = None
        self._tokens = 0

    def usage(self) -> Usage:
        """The session as it is now."""
        session = self._session
        state, context = session.state, session.context
        tokens = sum(map(len, state.parts))
        talk = self._conversation()
        attended = session.attends_documents
        return Usage(
            tuple((part.name, len(part)) for part in state.parts),
            tokens,
            talk,
            state.settings.ctx if attended else session.window,
            talk + tokens if attended else talk,
            0 if context is None else context.nbytes,
            state.history.left_out,
        )

    def _conversation(self) -> int:
        """Tokens of the conversation. While the session answers they are those in the context:
        the tokenizer is then in use, and it serves one thread."""
        session = self._session
        with session.lock:
            if not session.answering:
                counted = (session.lm, session.state.history, session.settings.system)
                if self._counted is None or counted != self._counted:
                    self._tokens = len(session.conversation_ids())
                    self._counted = counted
                return self._tokens
        context = session.context
        return self._tokens if context is None else context.tokens.live_count
