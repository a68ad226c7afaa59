"""Reading files of questions, and drawing some of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nazx_cli.documents.file import is_device
from nazx_cli.errors import DocumentError, NazxError
from nazx_cli.evaluation.data.forms import FORMS, form_of
from nazx_cli.evaluation.data.named import with_text
from nazx_cli.evaluation.data.stories import UNKNOWN, Question, Section, Story


@dataclass(frozen=True)
class Data:
    """What files hold: stories with questions, and texts without, each with a name; ``left_out``
    counts the questions whose answers the files lack."""

    stories: tuple[Story, ...]
    texts: tuple[tuple[str, str], ...]
    left_out: int = 0


def read_data(paths: Sequence[Path]) -> Data:
    """Read files of JSON lines, or of plain text; which it is, the first line tells.

    ``DocumentError`` names the file and line that cannot be read.
    """
    stories: list[Story] = []
    texts: list[tuple[str, str]] = []
    for path in paths:
        check_ends(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise DocumentError(
                f"cannot read {path}: {reason}", "name a file of JSON lines or of plain text"
            ) from None
        if text.lstrip().startswith("{"):
            stories.extend(_stories(path, text))
        elif text.strip():
            texts.append((path.name, text))
        else:
            raise DocumentError(f"{path} is empty", "name a file of JSON lines or of plain text")
    known = tuple(_judged(story) for story in stories)
    left_out = sum(len(a.questions) - len(b.questions) for a, b in zip(stories, known, strict=True))
    return Data(known, tuple(texts), left_out)


def check_ends(path: Path) -> None:
    """Raise ``DocumentError`` for a device."""
    if path.exists() and is_device(path.stat().st_mode):
        raise DocumentError(
            f"cannot read {path}: it is a device", "name a file of JSON lines or of plain text"
        )


def _judged(story: Story) -> Story:
    questions = tuple(question for question in story.questions if question.kind != UNKNOWN)
    return story if questions == story.questions else replace(story, questions=questions)


def _stories(path: Path, text: str) -> list[Story]:
    found: list[Story] = []
    joined: dict[tuple[str, str], int] = {}
    for line, record in _records(path, text):
        form = form_of(record) if isinstance(record, dict) else None
        if form is None or not isinstance(record, dict):
            known = "; ".join(f"{form.name}: {', '.join(sorted(form.keys))}" for form in FORMS)
            raise DocumentError(
                f"{path}:{line} has none of the forms that are known",
                f"give it the keys of one of these: {known}",
            )
        try:
            filled, source = with_text(record, path.parent)
            stories = [replace(_filled(story), source=source) for story in form.read(filled)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise DocumentError(
                f"{path}:{line} is broken as {form.name} has it: {reason}",
                "correct it, or leave the line out",
            ) from None
        for story in stories:
            key = (form.name, story.title)
            if form.joins and key in joined:
                found[joined[key]] = _with_paragraph(found[joined[key]], story)
            else:
                joined[key] = len(found)
                found.append(story)
    return found


def _filled(story: Story) -> Story:
    """``story``; ``ValueError`` where there is nothing to ask about."""
    if not any(section.text.strip() for section in story.sections):
        raise ValueError("there is no text to ask about")
    return story


def _records(path: Path, text: str) -> Iterator[tuple[int, object]]:
    """Line numbers and records; a file that is one JSON object over many lines is one record."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            if number == 1:
                try:
                    whole = json.loads(text)
                except ValueError:
                    pass
                else:
                    yield 1, whole
                    return
            raise DocumentError(
                f"{path}:{number} is no JSON: {error}", "correct it, or leave the line out"
            ) from None


def _with_paragraph(story: Story, more: Story) -> Story:
    """``story`` with the paragraph and the questions of ``more``, which has one section."""
    text = more.sections[0].text
    known = next((section for section in story.sections if section.text == text), None)
    section = known or Section(str(len(story.sections) + 1), text)
    questions = tuple(replace(question, sections=(section.id,)) for question in more.questions)
    sections = story.sections if known else (*story.sections, section)
    return replace(story, sections=sections, questions=(*story.questions, *questions))


def draw(stories: Sequence[Story], limit: int | None, seed: int) -> tuple[Story, ...]:
    """All of ``stories``, with ``limit`` questions in all (None: every one).

    Documents take turns in a random order, each giving a random one of its questions, so that as
    many documents as can be have a say; the questions of a smaller limit are among those of a
    larger one. A story that is a chat gives all of its turns at once. Questions stay in order.
    """
    if limit is None:
        return tuple(stories)
    order = list(range(len(stories)))
    random.Random(seed).shuffle(order)
    left = [_order(stories[i], seed) for i in range(len(stories))]
    taken: dict[int, list[int]] = {i: [] for i in order}
    count = 0
    while count < limit and any(left):
        for i in order:
            if count < limit and left[i]:
                now = left[i].pop(0)
                taken[i] += now
                count += len(now)
    return tuple(
        replace(story, questions=_only(story.questions, taken[i]))
        for i, story in enumerate(stories)
    )


def _order(story: Story, seed: int) -> list[list[int]]:
    """Questions in the order in which they are drawn, those together that belong together."""
    numbers = list(range(len(story.questions)))
    if story.chat:
        return [numbers] if numbers else []
    random.Random(f"{seed} {story.key}").shuffle(numbers)
    return [[number] for number in numbers]


def _only(questions: Sequence[Question], numbers: Sequence[int]) -> tuple[Question, ...]:
    return tuple(questions[number] for number in sorted(numbers))


def check_asked(stories: Sequence[Story]) -> None:
    """``NazxError`` where no question is left to ask."""
    if not any(story.questions for story in stories):
        raise NazxError("there is no question to ask", "name a file that holds questions")
