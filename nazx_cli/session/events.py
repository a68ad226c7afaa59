"""What a session tells: while it answers, in the order it happens, and of the room it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.session.calibration import doubt

if TYPE_CHECKING:
    from collections.abc import Callable

    from nazx_cli.engine.generator import Stats, Step
    from nazx_cli.reading.passages import Passage
    from nazx_cli.session.citation import Quotation


@dataclass(frozen=True)
class Notice:
    """Something the person should know, although the answer goes on."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How much is read and in all: blocks of the documents, where each is asked about, or tokens,
    where a far memory reads them."""

    done: int
    total: int
    unit: str = "blocks"


@dataclass(frozen=True)
class Running:
    """The model begins to run over its prompt: ``pace`` tells, whenever it is called and from
    whatever thread, how many tokens are done, and of how many."""

    pace: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Finding:
    """What one block answered, where every block is read: a partial answer."""

    text: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Reading:
    """How the documents reach the model for this question, and by which passages."""

    mode: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Thought:
    """The next piece of what the model thinks before it answers; tokens and seconds so far.

    ``finish`` is None until the last one: ``stop`` where it came to an end, ``length`` where it
    was ended at its limit, ``loop`` where it repeated itself.
    """

    text: str
    tokens: int
    seconds: float
    finish: str | None = None


@dataclass(frozen=True)
class Delta:
    """The next piece of the answer, the figures of the answer so far, and the token that it came
    with, where it came token by token."""

    text: str
    stats: Stats | None = None
    step: Step | None = None


@dataclass(frozen=True)
class RunnerUp:
    """Another answer, of a part that the model was less sure to answer from; the other fields as of
    ``Answer``. Its words may make it the likelier one: see ``session.parts``."""

    text: str
    confidence: float
    quotation: Quotation | None


@dataclass(frozen=True)
class Answer:
    """The whole answer; ``finish`` is ``stop`` (it ended), ``length`` (it was cut off) or ``loop``
    (it repeated itself, and its repeats were left out).

    ``mode`` is the read mode that was used, ``none`` without documents, or ``names.EXTRACT``:
    then ``sources`` are the sentences that the answer is made of. Else they are the passages that
    were read. A model that was trained for it tells on what its answer stands: ``quotations``,
    whose passages are then the first of them. With a reading adapter that is one sentence at most,
    and how sure the model is: ``confidence``, 0 to 1, see ``session.parts``. Where that is not
    much, ``runner_up`` is the next answer that says something else, if one was given. Of any other
    model ``quotations`` are what its answer stands on by its words: ``likely`` is then set.
    """

    text: str
    sources: tuple[Passage, ...]
    finish: str
    stats: Stats
    mode: str
    quotations: tuple[Quotation, ...] = ()
    confidence: float | None = None
    runner_up: RunnerUp | None = None
    likely: bool = False

    @property
    def doubt(self) -> str:
        """How unsure the model told that it is, in a word or two; empty where it is not."""
        return doubt(self.confidence)

    @property
    def cites(self) -> bool:
        """Whether it is told on what the answer stands, or that it stands on nothing."""
        return bool(self.quotations) or self.confidence is not None

    @property
    def cited(self) -> Passage | None:
        """The passage that is named first; None where none is."""
        return self.quotations[0].passage if self.quotations else None


Event = Notice | Progress | Running | Finding | Reading | Thought | Delta | Answer


@dataclass(frozen=True)
class Usage:
    """Tokens and bytes of a session.

    documents            name and tokens of each, in their order
    document_tokens      of all documents
    conversation_tokens  what the next prompt holds of the conversation, passages included; the last
                         turn, where documents are read in parts
    window, window_used  tokens that the model takes at once (None: no limit) and those of them
                         in use: documents count where the model attends to them
    context_bytes        held for the context beyond the model's weights
    left_out             turns that outgrew the window and joined the documents for recall
    ranks                processes that hold the context together; its bytes are the first's share
    """

    documents: tuple[tuple[str, int], ...]
    document_tokens: int
    conversation_tokens: int
    window: int | None
    window_used: int
    context_bytes: int
    left_out: int
    ranks: int = 1
