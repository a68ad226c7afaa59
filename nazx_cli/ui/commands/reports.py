"""Commands that show what the context holds and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.ui.commands.command import Command, Words
from nazx_cli.ui.phrases import columns, shortened, size_text

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat

_BAR = 30  # cells
_NAME = 30
_SHOWN = 20  # documents: the largest
_EIGHTHS = " ▏▎▍▌▋▊▉"


def _context(chat: Chat, _: Words) -> None:
    usage = chat.workspace.usage()
    total = max(1, usage.document_tokens + usage.conversation_tokens)
    entries = [
        (f"{n} {shortened(name, _NAME)}", size) for n, (name, size) in enumerate(usage.documents, 1)
    ]
    largest = sorted(size for _, size in entries)[-_SHOWN:] or [0]
    rows = [
        (name, bar(size / total), f"{size:,}", f"{100 * size / total:.0f} %")
        for name, size in (
            *[entry for entry in entries if entry[1] >= largest[0]][:_SHOWN],
            ("conversation", usage.conversation_tokens),
        )
    ]
    chat.say(columns(rows, right=(2, 3)))
    if (more := len(entries) - len(rows) + 1) > 0:
        chat.say(f"and {more:,} smaller documents; /docs all lists them")
    chat.say(
        f"{total if entries else 0:,} tokens; the context takes {size_text(usage.context_bytes)}"
    )
    if usage.window is not None:
        chat.say(f"the window holds {usage.window_used:,} of {usage.window:,} tokens")
    if usage.left_out:
        count = usage.left_out
        what = "turn has left the window; it is" if count == 1 else "turns have left it; they are"
        chat.say(f"{count} {what} read like a document where a question asks for it")


def _estimate(chat: Chat, _: Words) -> None:
    from nazx_cli.memory.estimate import TextSize
    from nazx_cli.memory.plan import CONVERSATION
    from nazx_cli.memory.probe import read_memory

    lm, workspace = chat.lm, chat.workspace
    documents = TextSize.of(document.ids for document in workspace.documents)
    room = workspace.settings.ctx or CONVERSATION
    talk = max(room, workspace.usage().conversation_tokens)
    plan = lm.plan_for(documents, talk)
    found, now = plan.estimate, read_memory(lm.device)
    held = f"{documents.tokens:,} tokens and {talk:,} of conversation, layout {plan.layout}"
    rows = [
        ("weights", size_text(found.weights), found.precision),
        ("context", size_text(found.context), held),
        ("workspace", size_text(found.workspace), "for a moment, while it computes"),
        ("total", size_text(found.total), "at most"),
        ("in use", size_text(now.used), f"of this process, on {lm.device}"),
        ("free", size_text(now.free), f"of {size_text(now.total)}"),
        ("dense cache", size_text(found.dense), "what ordinary keys and values would take"),
    ]
    if lm.memory_limit is not None:
        rows.insert(4, ("limit", size_text(plan.limit), "" if plan.fits else "this does not fit"))
    chat.say(columns(rows, right=(1,)))


def bar(share: float, cells: int = _BAR) -> str:
    """A bar of ``share`` (0 to 1) of ``cells`` cells; anything at all shows."""
    eighths = round(min(1.0, max(0.0, share)) * cells * 8)
    if share > 0:
        eighths = max(1, eighths)
    whole, part = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


COMMANDS = (
    Command(("/context",), "what is in it, a bar for each document", _context),
    Command(("/estimate",), "memory for this model and this context", _estimate),
)
