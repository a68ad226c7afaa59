"""Commands that put documents in, take them out and arrange them, and that show what they take."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.session.files import Watcher
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.phrases import counted, shortened, size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.documents.document import Origin
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.ui.chat import Chat

_LISTED = 5  # added documents that are named one by one
_EDGE = 12  # documents that are listed of the first and the last, where there are many
_BAR = 30  # cells, at most
_BESIDE = 50  # cells for what stands beside a bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SHOWN = 20  # documents that have a bar: the largest
_BAR_NAME = 30  # characters of a name beside its bar
_SEE = "type /docs to see the numbers"
_WATCH, _ALL = "--watch", "all"


def _read(chat: Chat, words: Words) -> None:
    with chat.screen.long_bar("reading") as bar:
        result = chat.workspace.read(words.values, on_progress=bar.update)
    chat.screen.tell_skipped(result.skipped)
    for name in result.known[:_LISTED]:
        chat.say(f"{name} is here already")
    for part in result.added[:_LISTED]:
        chat.say(f"read {titled(part)}")
    if (more := len(result.added) - _LISTED) > 0:
        chat.say(f"and {more} more")
    if result.added:
        tokens = sum(len(part) for part in result.added)
        chat.done(f"{counted(len(result.added), 'document')}, {tokens:,} tokens,")


def _docs(chat: Chat, words: Words) -> None:
    documents = chat.workspace.documents
    option = words.get(0)
    if option not in (None, _ALL):
        raise UsageError(f"/docs does not take {option!r}", f"type /docs, or /docs {_ALL}")
    if not documents:
        chat.say("There are no documents; /read PATH puts one in.")
        return
    total = sum(map(len, documents)) or 1
    numbers = list(range(1, len(documents) + 1))
    hidden = 0 if option else max(0, len(documents) - 2 * _EDGE)
    if hidden > 1:  # a single one takes no more room than its mention
        del numbers[_EDGE:-_EDGE]
    rows = [_row(chat, n, total) for n in numbers]
    chat.say(Table(rows, ("", "NAME", "TOKENS", "SHARE", "FORMAT", ""), right=(0, 2, 3)))
    if hidden > 1:
        chat.say(
            f"and {hidden:,} more between {_EDGE} and {numbers[_EDGE]}; /docs {_ALL} lists them"
        )


def _row(chat: Chat, n: int, total: int) -> tuple[str, ...]:
    """Document ``n`` in the list; ``total`` is what all of them have in tokens."""
    part = chat.workspace.documents[n - 1]
    document = part.document
    remarks = ["watched"] if chat.workspace.is_watched(n) else []
    if state := _on_disk(document.origin):
        remarks.append(state)
    share = f"{100 * len(part) / total:.0f} %"
    return (str(n), document.name, f"{len(part):,}", share, document.format, ", ".join(remarks))


def _drop(chat: Chat, words: Words) -> None:
    numbers = [n for word in words.values for n in _numbers(chat, word)]
    dropped = chat.workspace.drop(*numbers)
    chat.done(f"dropped {', '.join(map(titled, dropped[:_LISTED]))}{_and_more(len(dropped))}")


def _and_more(count: int) -> str:
    return f" and {count - _LISTED} more" if count > _LISTED else ""


def _numbers(chat: Chat, word: str) -> Iterable[int]:
    """The documents that ``N``, ``N-M`` or a name means, be it the last part of one's path."""
    documents = list(enumerate(chat.workspace.documents, 1))
    if span := re.fullmatch(r"#?(\d{1,9})(?:-#?(\d{1,9}))?", word):
        first, last = int(span[1]), int(span[2] or span[1])
        if first <= last <= first + len(documents):
            return range(first, last + 1)
        raise UsageError(f"{word} names no documents that there are", _SEE)
    found = [n for n, part in documents if part.name == word]
    found = found or [n for n, part in documents if PurePath(part.name).name == word]
    if len(found) != 1:
        some = "several documents are" if found else "no document is"
        raise UsageError(f"{some} called {word!r}", _SEE)
    return found


def _swap(chat: Chat, words: Words) -> None:
    n, before = words.number(0), chat.workspace.documents
    with chat.screen.bar("reading") as bar:
        new = chat.workspace.swap(n, words.values[1], on_progress=bar.update)
    chat.done(f"swapped {before[n - 1].name} for {titled(new)}")


def _move(chat: Chat, words: Words) -> None:
    n, to = words.number(0), words.number(1)
    chat.done(f"moved {chat.workspace.move(n, to).name} to place {to}")


def _reload(chat: Chat, words: Words) -> None:
    n, option = words.number(0), words.get(1)
    if option not in (None, _WATCH):
        raise UsageError(f"/reload knows no {option}", f"type /reload {n} {_WATCH}")
    if option and chat.workspace.is_watched(n):
        chat.workspace.watch(n, False)
        chat.say(f"{chat.workspace.documents[n - 1].name} is watched no more")
        return
    with chat.screen.bar("reading") as bar:
        changed = chat.workspace.reload(n, on_progress=bar.update)
    part = chat.workspace.documents[n - 1]
    if changed:
        chat.done(f"read {titled(part)} again")
    elif not option:
        chat.say(f"{part.name} has not changed")
    if option:
        chat.workspace.watch(n, True)
        chat.say(f"From now on {part.name} is read again whenever it changes.")


def titled(part: TokenizedDocument) -> str:
    """``book.txt (120,000 tokens)``."""
    return f"{part.name} ({len(part):,} tokens)"


def _on_disk(origin: Origin | None) -> str:
    """How the file differs from what was read; empty where it does not, or there is none."""
    if origin is None:
        return ""
    if not Path(origin.path).exists():
        return "gone from disk"
    return "changed on disk" if Watcher().changed(origin) else ""


def _context(chat: Chat, _: Words) -> None:
    usage = chat.workspace.usage()
    total = max(1, usage.document_tokens + usage.conversation_tokens)
    documents = enumerate(usage.documents, 1)
    entries = [(f"{n} {shortened(name, _BAR_NAME)}", size) for n, (name, size) in documents]
    largest = sorted(size for _, size in entries)[-_SHOWN:] or [0]
    width = chat.screen.width or 80
    cells = min(_BAR, max(width - _BESIDE, _BAR // 4))
    rows = [
        (name, _bar(size / total, cells), f"{size:,}", f"{100 * size / total:.0f} %")
        for name, size in (
            *[entry for entry in entries if entry[1] >= largest[0]][:_SHOWN],
            ("conversation", usage.conversation_tokens),
        )
    ]
    chat.say(Table(rows, right=(2, 3)))
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
    from nazx_cli.index.shelf import size_of
    from nazx_cli.memory.plan import CONVERSATION
    from nazx_cli.memory.probe import read_memory

    lm, workspace = chat.lm, chat.workspace
    documents = size_of(workspace.documents, lm.config)
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
    if found.process:
        rows.insert(0, ("process", size_text(found.process), "libraries, tokenizer, text, index"))
    if lm.memory_limit is not None:
        rows.insert(-3, ("limit", size_text(plan.limit), "" if plan.fits else "this does not fit"))
    chat.say(Table(rows, right=(1,)))


def _bar(share: float, cells: int) -> str:
    """A bar of ``share``, 0 to 1, of at most ``cells``; anything at all shows."""
    whole, part = divmod(max(round(share * cells * 8), int(share > 0)), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


_N = Argument("N", "document")

COMMANDS = (
    Command(
        ("/read",),
        "put in documents: files, folders, globs",
        _read,
        (Argument("PATH|GLOB", "path", repeats=True),),
        "/read notes.txt",
    ),
    Command(
        ("/docs",),
        "list the documents, numbered",
        _docs,
        (Argument(_ALL, choices=(_ALL,), required=False),),
        more=f"Of many the first and the last {_EDGE} are listed, with {_ALL} every one.",
    ),
    Command(
        ("/drop",),
        "take documents out: numbers, 1-3, names",
        _drop,
        (Argument("N", "document", repeats=True),),
        "/drop 1",
        "One step for /undo, however many they are.",
    ),
    Command(
        ("/swap",),
        "put another document in a document's place",
        _swap,
        (_N, Argument("PATH", "path")),
        "/swap 1 notes.txt",
    ),
    Command(
        ("/move",),
        "move a document to another place",
        _move,
        (_N, Argument("M", "document")),
        "/move 2 1",
    ),
    Command(
        ("/reload",),
        "read a file again; watch it for changes",
        _reload,
        (_N, Argument(_WATCH, choices=(_WATCH,), required=False)),
        "/reload 1 --watch",
        "With --watch a changed file is read again before the next answer; asking for that again "
        "ends it.",
    ),
    Command(("/context",), "what is in it, a bar for each document", _context),
    Command(("/estimate",), "memory for this model and this context", _estimate),
)
