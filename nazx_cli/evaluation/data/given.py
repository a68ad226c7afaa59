"""What documents a question is asked about: its right section, its story, one book of all, or all
as files of their own.

Each way is an entry of ``GIVEN``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from nazx_cli.documents.document import Document
from nazx_cli.evaluation.data.stories import BETWEEN, Hash, Question, Span, Story, hashed

AUTO, ASK, CHAT = "auto", "ask", "chat"
"""How questions are asked: as the data has it, each alone, all about a document in one chat."""


@dataclass(frozen=True)
class Asked:
    """A question, and where in its batch's text the right sections stand; () if that is unknown."""

    story: Story
    question: Question
    gold: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Documents, tokenized once, and the conversations about them, each one question or more."""

    documents: tuple[Document, ...]
    threads: tuple[tuple[Asked, ...], ...]

    @cached_property
    def text(self) -> str:
        """All documents, one right behind the other: what characters are counted in."""
        return "".join(document.text for document in self.documents)

    def key(self, more: str) -> str:
        """Tells the documents, and ``more``, from others."""
        return hashed((more,), self._hash).hexdigest()

    @cached_property
    def _hash(self) -> Hash:
        return hashed(part for each in self.documents for part in (each.name, each.text))


Make = Callable[[Sequence[Story], str, Sequence[Document]], Iterator[Batch]]
"""What is asked about stories, asked in such turns, where other documents lie beside them."""


def _sections(stories: Sequence[Story], turns: str, _: Sequence[Document]) -> Iterator[Batch]:
    """The right sections are the document; the whole story where they are not known."""
    for story in stories:
        known = {section.id for section in story.sections}

        def right(question: Question, known: set[str] = known) -> tuple[str, ...]:
            return tuple(i for i in question.sections if i in known)

        for ids, group in groupby(sorted(story.questions, key=right), key=right):
            texts = [section.text for section in story.sections if section.id in ids]
            text = BETWEEN.join(texts) if texts else story.text
            gold = ((0, len(text)),) if texts else ()
            asked = [Asked(story, question, gold) for question in group]
            yield Batch((_document(story.title, text),), _threads(asked, story, turns))


def _stories(stories: Sequence[Story], turns: str, _: Sequence[Document]) -> Iterator[Batch]:
    """The whole story is the document."""
    for story in stories:
        if story.questions:
            asked = [Asked(story, q, story.spans(q.sections)) for q in story.questions]
            yield Batch((_document(story.title, story.text),), _threads(asked, story, turns))


def _book(stories: Sequence[Story], turns: str, _: Sequence[Document]) -> Iterator[Batch]:
    """All stories of the files, those without a question too, are one document."""
    text = ""
    threads: list[tuple[Asked, ...]] = []
    for story in stories:
        text += (BETWEEN if text else "") + f"{heading(story.title)}{BETWEEN}"
        at = len(text)
        text += story.text
        asked = [
            Asked(story, q, tuple((at + a, at + b) for a, b in story.spans(q.sections)))
            for q in story.questions
        ]
        threads.extend(_threads(asked, story, turns))
    if threads:
        yield Batch((Document("book.txt", text, "text"),), tuple(threads))


def _folder(stories: Sequence[Story], turns: str, beside: Sequence[Document]) -> Iterator[Batch]:
    """Each story of the files, those without a question too, is a document among the others, as
    its file has it where it comes from one."""
    documents: list[Document] = []
    threads: list[tuple[Asked, ...]] = []
    at = 0
    for story in stories:
        asked = [
            Asked(story, q, tuple((at + a, at + b) for a, b in story.spans_in_file(q.sections)))
            for q in story.questions
        ]
        threads.extend(_threads(asked, story, turns))
        documents.append(story.source or _document(story.title, story.text))
        at += len(documents[-1].text)
    if threads:
        yield Batch((*documents, *beside), tuple(threads))


SECTION, STORY, BOOK, FOLDER = "section", "story", "book", "folder"
GIVEN: Mapping[str, Make] = {
    SECTION: _sections,
    STORY: _stories,
    BOOK: _book,
    FOLDER: _folder,
}


def heading(title: str) -> str:
    """A title as a book has it: data sets write ``the-snow-queen``."""
    return title if " " in title else title.replace("-", " ").replace("_", " ")


def _document(title: str, text: str) -> Document:
    name = "".join("-" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in title)
    return Document(f"{name[:80]}.txt", text, "text")


def _threads(asked: Sequence[Asked], story: Story, turns: str) -> tuple[tuple[Asked, ...], ...]:
    if turns == CHAT or (turns == AUTO and story.chat):
        return (tuple(asked),) if asked else ()
    return tuple((each,) for each in asked)
