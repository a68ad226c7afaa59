"""Asking all questions of all contestants, going on from the answers that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nazx_cli.documents.document import Document
from nazx_cli.evaluation.contestants.base import Contestant, Reply, fingerprint
from nazx_cli.evaluation.data.given import GIVEN, Asked, Batch
from nazx_cli.evaluation.data.stories import Story, digest
from nazx_cli.evaluation.records import AnswerFile, Record
from nazx_cli.evaluation.words import KnownWords, holds


@dataclass(frozen=True)
class Run:
    """A contestant, the documents that its questions are asked about, and whether they are asked
    in one chat; ``label`` is that of a column in the report."""

    contestant: Contestant
    given: str
    turns: str
    label: str

    @property
    def key(self) -> str:
        """Fingerprint of all that answers depend on beside document and questions."""
        return fingerprint({**self.contestant.identity, "given": self.given})


@dataclass(frozen=True)
class Progress:
    """Questions done and in all, those of them taken from the answers file, and whose turn it
    is."""

    done: int
    total: int
    found: int
    label: str


OnProgress = Callable[[Progress], None]


def evaluate(
    runs: Sequence[Run],
    stories: Sequence[Story],
    answers: AnswerFile,
    on_progress: OnProgress = lambda progress: None,
    on_change: Callable[[Run], None] = lambda run: None,
    beside: Sequence[Document] = (),
) -> Iterator[tuple[Run, Record]]:
    """Answers as they come, run after run; ``on_change`` is told before a run begins, ``beside`` is
    what else lies in the folder that may be asked about.

    A conversation that the answers file holds whole is taken from it, any other one is had anew.
    """
    plans = [(run, list(_conversations(run, stories, beside))) for run in runs]
    total = sum(len(thread) for _, plan in plans for _, thread in plan)
    done = found = 0
    for run, plan in plans:
        on_change(run)
        key, known = run.key, _Known()
        for batch, thread in plan:
            on_progress(Progress(done, total, found, run.label))
            items = _items(batch, thread)
            kept = [answers.get(key, item) for item in items]
            records = [
                _as_asked(Record.from_dict(line), each, batch, run.label)
                for line, each in zip(kept, thread, strict=True)
                if line is not None
            ]
            if len(records) == len(items):
                found += len(items)
            else:
                replies = run.contestant.converse(
                    batch.documents, [each.question.text for each in thread]
                )
                records = []
                for turn, reply in enumerate(replies):
                    asked = thread[turn]
                    record = _record(run, key, items[turn], turn + 1, asked, batch, reply)
                    records.append(_with_names(record, known.of(batch)))
                    on_progress(Progress(done + turn + 1, total, found, run.label))
                answers.add(record.to_dict() for record in records)
            done += len(items)
            yield from ((run, record) for record in records)
    if runs:
        on_progress(Progress(done, total, found, runs[-1].label))


def _conversations(
    run: Run, stories: Sequence[Story], beside: Sequence[Document]
) -> Iterator[tuple[Batch, tuple[Asked, ...]]]:
    for batch in GIVEN[run.given](stories, run.turns, beside):
        for thread in batch.threads:
            asked = tuple(each for each in thread if each.question.kind in run.contestant.kinds)
            if asked:
                yield batch, asked


def _items(batch: Batch, thread: Sequence[Asked]) -> list[str]:
    """Fingerprints of the questions of a conversation: each depends on those before it."""
    so_far = batch.key(thread[0].story.key)
    found = []
    for asked in thread:
        so_far = digest(so_far, asked.question.text)
        found.append(so_far[:16])
    return found


def _record(
    run: Run, key: str, item: str, turn: int, asked: Asked, batch: Batch, reply: Reply
) -> Record:
    record = Record(
        run=key,
        item=item,
        contestant=run.label,
        given=run.given,
        story=asked.story.key,
        kind=asked.question.kind,
        question=asked.question.text,
        references=asked.question.answers,
        turn=turn,
        answer=reply.answer,
        finish=reply.finish,
        mode=reply.mode,
        passages=reply.passages,
        cites=reply.cites,
        cited=reply.cited,
        confidence=reply.confidence,
        runner_up=reply.runner_up,
        seconds=round(reply.seconds, 3),
        tokens=reply.tokens,
        error=reply.error,
    )
    return _as_asked(record, asked, batch, run.label)


def _as_asked(record: Record, asked: Asked, batch: Batch, label: str) -> Record:
    """``record`` with what the data says now: references may have been corrected since."""
    question = asked.question
    right = "\n".join(batch.text[start:stop] for start, stop in asked.gold)
    return replace(
        record,
        contestant=label,
        story=asked.story.key,
        kind=question.kind,
        references=question.answers,
        wrong=question.wrong,
        evidence=question.evidence,
        tags=dict(question.tags),
        gold=asked.gold,
        stands=holds(right, question.answers) if asked.gold else None,
    )


def _with_names(record: Record, known: KnownWords) -> Record:
    if not record.answer:
        return record
    names = known.names(record.answer)
    asked = KnownWords(record.question)
    unknown = tuple(n for n in names if not known.knows(n) and not asked.knows(n))
    return replace(record, names=names, unknown=unknown)


class _Known:
    """The words of the documents at hand."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._words = KnownWords("")

    def of(self, batch: Batch) -> KnownWords:
        if self._text is not batch.text:
            self._text, self._words = batch.text, KnownWords(batch.text)
        return self._words
