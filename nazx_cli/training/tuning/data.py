"""From files to packs: questions about documents, chats, and plain text.

Files of JSON lines in any form that ``nazx eval`` reads are questions; a line may also be a chat:
``{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}``
or ``{"instruction": "...", "response": "..."}``; chats that are longer than a prompt may be are
left out. Any other file is plain text, of which every token is learnt. A file is named with how
often it is gone through: ``train.jsonl=2`` asks about each story twice, about other passages each
time; ``=0.25`` takes a quarter of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nazx_cli.errors import DocumentError, UsageError
from nazx_cli.evaluation.data.files import check_ends, read_data
from nazx_cli.evaluation.data.stories import Story
from nazx_cli.session.parts import Asking
from nazx_cli.session.state import Message, Role
from nazx_cli.session.templating.templates import render
from nazx_cli.training.packing import Branch, Pack, pack
from nazx_cli.training.tuning.asking import Asker, end_of_answer
from nazx_cli.training.tuning.books import split_held

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

HELD_TOKENS = 60_000
"""Tokens that are judged by, at most: a check then takes no longer than a few dozen steps."""
OnFile = Callable[[str, int, int], None]
"""Told a file's name, and how many files are done of how many."""


@dataclass(frozen=True)
class Source:
    """A file, and how often it is gone through."""

    path: Path
    times: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Source:
        """``FILE`` or ``FILE=TIMES``."""
        name, equals, times = text.rpartition("=")
        if not equals:
            return cls(Path(text))
        try:
            value = float(times)
        except ValueError:
            return cls(Path(text))
        if not 0 < value <= 100:
            raise UsageError(f"{text}: {times} is no number of times", f"try {name}=1")
        return cls(Path(name), value)


@dataclass(frozen=True)
class Split:
    """Packs to train on, packs by which to judge, and all stories that are held out."""

    train: list[Pack]
    held: list[Pack]
    stories: list[Story]


def make_packs(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    *,
    longest: int,
    asking: Asking,
    held_share: int = 16,
    seed: int = 0,
    on_file: OnFile | None = None,
) -> Split:
    """Read ``sources``, for a model that is asked as ``asking`` has it; no prompt with its answer
    has more than ``longest`` tokens.

    One document in about ``held_share`` is held out; of their packs so many are judged by as have
    ``HELD_TOKENS`` together. ``DocumentError`` names what cannot be read.
    """
    train: list[Pack] = []
    held: list[Pack] = []
    stories: list[Story] = []
    for number, source in enumerate(sources):
        if on_file:
            on_file(source.path.name, number, len(sources))
        # Its own numbers for each file: another file in the mix leaves these packs as they are.
        rng = random.Random(f"{seed} {source.path.name}")
        made = _of_file(source, tokenizer, longest, asking, held_share, rng)
        train.extend(made.train)
        held.extend(made.held)
        stories.extend(made.stories)
    random.Random(seed).shuffle(held)
    sizes = accumulate(pack.tokens for pack in held)
    return Split(train, held[: sum(size <= HELD_TOKENS for size in sizes)], stories)


def held_stories(sources: Sequence[Source], held_share: int) -> list[Story]:
    """The stories of ``sources`` that ``make_packs`` holds out."""
    paths = [source.path for source in sources if _chats(source.path) is None]
    return split_held(read_data(paths).stories, held_share)[1]


def _of_file(
    source: Source,
    tokenizer: Tokenizer,
    longest: int,
    asking: Asking,
    held_share: int,
    rng: random.Random,
) -> Split:
    kind = f"{source.path.parent.name}/{source.path.stem}"
    chats = _chats(source.path)
    if chats is not None:
        packed = [_chat_packs(tokenizer, chat, kind) for chat in chats]
        fitting = [made for made in packed if made and made[0].longest <= longest]
        if any(packed) and not fitting:
            raise UsageError(f"no chat of {source.path} fits {longest:,} tokens", "raise --longest")
        return _of_items(fitting, source.times, held_share, rng, lambda made: made)
    data = read_data([source.path])
    if data.texts:
        pieces = _pieces(data.texts[0][1], tokenizer, min(longest, 1024))
        return _of_items(
            pieces, source.times, held_share, rng, lambda piece: [_text_pack(piece, kind)]
        )
    known, kept = split_held(data.stories, held_share)
    asker = Asker(tokenizer, longest, rng, asking)
    train: list[Pack] = []
    for stories in _rounds(known, source.times, rng):
        train.extend(asker.packs(stories, kind))
    return Split(train, list(asker.packs(kept, kind)), kept)


def _rounds(items: Sequence[Any], times: float, rng: random.Random) -> Iterator[list[Any]]:
    """All of ``items``, ``times`` over; the last round a share of them."""
    while times > 0:
        count = len(items) if times >= 1 else max(1, round(len(items) * times))
        yield rng.sample(list(items), min(count, len(items)))
        times -= 1


def _of_items(
    items: Sequence[Any],
    times: float,
    held_share: int,
    rng: random.Random,
    packs: Callable[[Any], list[Pack]],
) -> Split:
    order = list(items)
    rng.shuffle(order)
    kept = len(order) // held_share if held_share else 0
    train = [p for items in _rounds(order[kept:], times, rng) for i in items for p in packs(i)]
    return Split(train, [p for item in order[: min(kept, 40)] for p in packs(item)], [])


def _chats(path: Path) -> list[list[Message]] | None:
    """The chats of a file, or None where its first line is none."""
    check_ends(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
            if _messages(_json(first)) is None:
                return None
            lines = [first, *file]
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}", "name another file") from None
    except UnicodeDecodeError:
        return None
    found: list[list[Message]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if (chat := _messages(_json(line))) is None:
            raise DocumentError(f"{path}:{number} is no chat", "mend that line, or take it out")
        found.append(chat)
    return [chat for chat in found if chat]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _messages(record: Any) -> list[Message] | None:
    """A record's chat, which ends with an answer; None where it is no chat."""
    if not isinstance(record, dict):
        return None
    if isinstance(record.get("instruction"), str) and isinstance(record.get("response"), str):
        if record.get("needs_missing_context"):
            return []
        turns: list[tuple[Any, Any]] = [
            ("user", record["instruction"]),
            ("assistant", record["response"]),
        ]
    elif isinstance(record.get("messages"), list):
        said = [each for each in record["messages"] if isinstance(each, dict)]
        turns = [(each.get("role"), each.get("content")) for each in said]
    else:
        return None
    messages = [
        Message(role, content)
        for role, content in turns
        if role in get_args(Role) and isinstance(content, str) and content.strip()
    ]
    while messages and messages[-1].role != "assistant":
        messages.pop()
    return messages


def _chat_packs(tokenizer: Tokenizer, chat: Sequence[Message], kind: str) -> list[Pack]:
    if len(chat) < 2:
        return []
    prompt = render(tokenizer, list(chat[:-1]))
    answer = [*tokenizer.encode(chat[-1].content), *end_of_answer(tokenizer)]
    return [pack([(prompt, answer)], kind)]


def _pieces(text: str, tokenizer: Tokenizer, size: int) -> list[list[int]]:
    ids = tokenizer.encode_document(text).ids.tolist()
    cut = [ids[at : at + size] for at in range(0, len(ids), size)]
    return [piece for piece in cut if len(piece) > 1]


def _text_pack(ids: Sequence[int], kind: str) -> Pack:
    return Pack((), (Branch((ids[0],), tuple(ids[1:])),), kind)
