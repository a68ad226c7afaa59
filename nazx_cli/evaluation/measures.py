"""The measures: what each figure of a report is, one entry a measure.

A measure scores one answer and says None where it does not apply; a figure is the mean over the
answers to which it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from nazx_cli.evaluation.data.given import SECTION
from nazx_cli.evaluation.data.stories import ANSWER, SUMMARY, Span
from nazx_cli.evaluation.records import Read, Record
from nazx_cli.evaluation.words import (
    exact_match,
    holds,
    normalized,
    rouge,
    says_not,
    token_f1,
    yes_or_no,
)

REACHED = 80
"""Characters of the right section (or all of it) that count as having read it."""
RIGHT = 0.5
"""F1 from which on an answer counts as right where right and wrong is all there is."""

Score = Callable[[Record], float | None]


@dataclass(frozen=True)
class Measure:
    """``name`` in JSON, ``title`` in the table; ``unit`` is "" for shares and scores, ``s`` or
    ``words``; ``lower`` is better where that is set, None where neither is."""

    name: str
    title: str
    score: Score
    unit: str = ""
    lower: bool | None = False


def _is_answer(record: Record) -> bool:
    return record.kind == ANSWER and record.answer is not None and bool(record.references)


def refuses(record: Record) -> bool:
    """Whether the answer is that the document does not say, and no reference says as much."""
    return says_not(record.answer or "") and not any(map(says_not, record.references))


def _said(record: Record) -> str:
    """What counts as answered: nothing where the answer is that the document does not say."""
    return "" if refuses(record) else record.answer or ""


def f1(record: Record) -> float | None:
    """Token F1, the best over the references."""
    if not _is_answer(record):
        return None
    return max(token_f1(_said(record), reference) for reference in record.references)


def _offered(record: Record) -> float | None:
    """Of the answers given unsurely: the F1 of the better of it and the runner-up."""
    if record.runner_up is None or (alone := f1(record)) is None:
        return None
    return max(alone, *(token_f1(record.runner_up, each) for each in record.references))


def _unsure(record: Record) -> float | None:
    return None if record.runner_up is None else f1(record)


def _exact(record: Record) -> float | None:
    if not _is_answer(record):
        return None
    return max(exact_match(_said(record), reference) for reference in record.references)


def _rouge_l(record: Record) -> float | None:
    return _answer_rouge(record)["rougeL"] if _is_answer(record) else None


def _answer_rouge(record: Record) -> dict[str, float]:
    return _rouge(_said(record), record.references, False)


@lru_cache(maxsize=4096)
def _rouge(answer: str, references: tuple[str, ...], stemmed: bool) -> dict[str, float]:
    return rouge(answer, references, stemmed=stemmed)


def _yes_no(record: Record) -> float | None:
    wanted = {normalized(reference) for reference in record.references}
    if not _is_answer(record) or not wanted <= {"yes", "no"}:
        return None
    return float(yes_or_no(_said(record)) in wanted)


def _nearer(record: Record) -> float | None:
    """Whether the answer is nearer to a right one than to every wrong one."""
    if not _is_answer(record) or not record.wrong:
        return None
    said = _said(record)
    best = max(token_f1(said, wrong) for wrong in record.wrong)
    return float((f1(record) or 0.0) > best)


def _refused_rightly(record: Record) -> float | None:
    if record.kind != ANSWER or record.answer is None or record.references:
        return None
    return float(says_not(record.answer))


def _refused_wrongly(record: Record) -> float | None:
    return float(refuses(record)) if _is_answer(record) else None


def right(record: Record) -> float | None:
    """1 for an answer with an F1 of ``RIGHT``, or a right "does not say"; 0 for any other."""
    if record.kind != ANSWER or record.answer is None:
        return None
    if not record.references:
        return float(says_not(record.answer))
    yes = _yes_no(record)
    return float((f1(record) or 0.0) >= RIGHT) if yes is None else yes


def _in_section(record: Record) -> float | None:
    if record.passages is None or not record.gold or record.given == SECTION:
        return None
    return float(reaches(record.passages, record.gold))


def reaches(passages: tuple[Read, ...], gold: tuple[Span, ...]) -> bool:
    """Whether the passages hold ``REACHED`` characters of the sections ``gold``."""
    got = sum(
        max(0, min(read.stop, stop) - max(read.start, start))
        for read in passages
        for start, stop in gold
    )
    return got >= min(REACHED, sum(stop - start for start, stop in gold))


def _held(record: Record) -> float | None:
    """Of the answers whose words the right section has, else more text would count as better."""
    if record.passages is None or record.kind != ANSWER or record.given == SECTION:
        return None
    if record.stands is False:
        return None
    text = "\n".join(read.text for read in record.passages)
    found = holds(text, record.references)
    return None if found is None else float(found)


def _cited(record: Record) -> float | None:
    if not record.cites or not record.answer or says_not(record.answer):
        return None
    return float(record.cited is not None)


def _citation_holds(record: Record) -> float | None:
    """Whether the cited passage has the sentence that answers, where the data names one, else
    the words of an answer, if the right section has them."""
    if record.cited is None or not record.references or record.kind != ANSWER:
        return None
    if record.evidence and record.evidence in record.cited.text:
        return 1.0
    if record.stands is False:
        return None
    found = holds(record.cited.text, record.references)
    return None if found is None else float(found)


def _citation_in_section(record: Record) -> float | None:
    if record.cited is None or not record.gold or record.given == SECTION:
        return None
    return float(reaches((record.cited,), record.gold))


def _names_known(record: Record) -> float | None:
    if not record.names or not record.answer or (record.kind == ANSWER and refuses(record)):
        return None
    return 1 - len(record.unknown) / len(record.names)


def _summary_rouge(kind: str) -> Score:
    def score(record: Record) -> float | None:
        if record.kind != SUMMARY or record.answer is None or not record.references:
            return None
        return _rouge(record.answer, record.references, True)[kind]

    return score


def _words(record: Record) -> float | None:
    return None if record.answer is None else float(len(record.answer.split()))


def _seconds(record: Record) -> float | None:
    return None if record.answer is None else record.seconds


def _cut_off(record: Record) -> float | None:
    return None if record.answer is None else float(record.finish == "length")


def _failed(record: Record) -> float | None:
    return 1.0 if record.error else 0.0


MEASURES: tuple[Measure, ...] = (
    Measure("f1", "answers: token F1", f1),
    Measure("exact_match", "answers: exact match", _exact),
    Measure("rouge_l", "answers: ROUGE-L", _rouge_l),
    Measure("unsure", "answers given with a runner-up: token F1", _unsure),
    Measure("offered", "the same, of the better of the two", _offered),
    Measure("yes_no", "yes or no: right", _yes_no),
    Measure("nearer", "choices: nearer to the right one than to any wrong one", _nearer),
    Measure("refused_rightly", "unanswerable: says that it is not there", _refused_rightly),
    Measure("refused_wrongly", "answerable: says that it is not there", _refused_wrongly, "", True),
    Measure("in_section", "reading: passages reach the right section", _in_section),
    Measure("held", "reading: passages hold the answer's words, if its section does", _held),
    Measure("cited", "citations: given", _cited),
    Measure("citation_holds", "citations: passage holds the answer", _citation_holds),
    Measure(
        "citation_in_section", "citations: passage is in the right section", _citation_in_section
    ),
    Measure("rouge1", "summaries: ROUGE-1", _summary_rouge("rouge1")),
    Measure("rouge2", "summaries: ROUGE-2", _summary_rouge("rouge2")),
    Measure("rougeL", "summaries: ROUGE-L", _summary_rouge("rougeL")),
    Measure("names_known", "names and numbers said that the document has", _names_known),
    Measure("words", "length of an answer", _words, "words", None),
    Measure("cut_off", "cut off by --max-tokens", _cut_off, "", True),
    Measure("failed", "no answer for an error", _failed, "", True),
    Measure("seconds", "time of an answer", _seconds, "s", True),
)
