"""Commands that put documents in, take them out and arrange them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.session.files import Watcher
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.phrases import Stopwatch, columns, counted, shortened

if TYPE_CHECKING:
    from nazx_cli.documents.document import Origin
    from nazx_cli.reading.tokenized import TokenizedDocument
    from nazx_cli.ui.chat import Chat

_LISTED = 5  # added documents that are named one by one
_NAME = 40  # characters of a name in the list
_EDGE = 12  # documents that are listed of the first and the last, where there are many
_WATCH, _ALL = "--watch", "all"


def _read(chat: Chat, words: Words) -> None:
    watch = Stopwatch()
    with chat.screen.bar("reading") as bar:
        result = chat.workspace.read(words.values, on_progress=bar.update)
    chat.tell_skipped(result.skipped)
    for name in result.known[:_LISTED]:
        chat.say(f"{name} is here already")
    for part in result.added[:_LISTED]:
        chat.say(f"read {titled(part)}")
    if (more := len(result.added) - _LISTED) > 0:
        chat.say(f"and {more} more")
    if result.added:
        tokens = sum(len(part) for part in result.added)
        chat.done(f"{counted(len(result.added), 'document')}, {tokens:,} tokens,", watch)


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
    rows = [("", "NAME", "TOKENS", "SHARE", "FORMAT", "")]
    lines = columns([*rows, *(_row(chat, n, total) for n in numbers)], right=(0, 2, 3)).split("\n")
    if hidden > 1:
        lines.insert(1 + _EDGE, f"... {hidden:,} more; /docs {_ALL} lists them")
    chat.say("\n".join(lines))


def _row(chat: Chat, n: int, total: int) -> tuple[str, ...]:
    """Document ``n`` in the list; ``total`` is what all of them have in tokens."""
    part = chat.workspace.documents[n - 1]
    document = part.document
    remarks = ["watched"] if chat.workspace.is_watched(n) else []
    if state := _on_disk(document.origin):
        remarks.append(state)
    share = f"{100 * len(part) / total:.0f} %"
    name = shortened(document.name, _NAME)
    return (str(n), name, f"{len(part):,}", share, document.format, ", ".join(remarks))


def _drop(chat: Chat, words: Words) -> None:
    n, watch = words.number(0), Stopwatch()
    chat.done(f"dropped {titled(chat.workspace.drop(n))}", watch)


def _swap(chat: Chat, words: Words) -> None:
    n, watch = words.number(0), Stopwatch()
    before = chat.workspace.documents
    with chat.screen.bar("reading") as bar:
        new = chat.workspace.swap(n, words.values[1], on_progress=bar.update)
    chat.done(f"swapped {before[n - 1].name} for {titled(new)}", watch)


def _move(chat: Chat, words: Words) -> None:
    n, to, watch = words.number(0), words.number(1), Stopwatch()
    part = chat.workspace.move(n, to)
    chat.done(f"moved {part.name} to place {to}", watch)


def _reload(chat: Chat, words: Words) -> None:
    n, watch = words.number(0), Stopwatch()
    option = words.get(1)
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
        chat.done(f"read {titled(part)} again", watch)
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
    Command(("/drop",), "take a document out", _drop, (_N,), "/drop 1"),
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
)
