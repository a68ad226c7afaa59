"""A run in a folder of its own: what was asked for, the packs, the state, and what comes of it.

run.json              what was asked for
train.npz, held.npz   the packs: a run that goes on has the very same ones
asked.json            held-out questions, to be answered as the training goes
state.safetensors     where it is; best.safetensors: the best parameters so far
log.jsonl             a line a step and a line a check
adapter/ or model/    what comes of it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nazx_cli.checkpoint.adapters.lora import (
    Adapter,
    block_matrices,
    read_adapter,
    read_notes,
    write_adapter,
)
from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.checkpoint import Checkpoint
from nazx_cli.checkpoint.quantized import stored_kind
from nazx_cli.checkpoint.write import to_json
from nazx_cli.errors import NazxError, UsageError, first_line
from nazx_cli.session.parts import Asking
from nazx_cli.training.full import write_full
from nazx_cli.training.gradients.engines import (
    FullByAutograd,
    OnPacks,
    PackGradients,
    lora_engine,
)
from nazx_cli.training.gradients.forward import reach
from nazx_cli.training.lora import Adapted, LoraSettings, attach, begin_from, check_alike, pairs
from nazx_cli.training.packing import Pack, read_packs, write_packs
from nazx_cli.training.ranks import ALONE, Ranks
from nazx_cli.training.state import (
    Counters,
    check_new,
    notes_on,
    read_asked,
    write_asked,
)
from nazx_cli.training.trainer import OnProgress, Schedule, Trainer
from nazx_cli.training.tuning.calibrating import OnQuestion, fit, try_out
from nazx_cli.training.tuning.card import card
from nazx_cli.training.tuning.data import OnFile, Source, Split, held_stories, make_packs
from nazx_cli.training.tuning.heldout import HeldQuestion, answer_figures, held_questions

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import LanguageModel

RUN_FILE, ASKED_FILE = "run.json", "asked.json"
_TRAIN, _HELD = "train.npz", "held.npz"
_LONGEST = 2048


@dataclass(frozen=True)
class RunSettings:
    """What a run was asked for.

    model, revision   the base, by the name that it is loaded by
    sources           files, and how often each is gone through
    lora              None: all weights are tuned
    start             adapters to begin from: their mean
    longest           most tokens of a prompt with its answer; None: what the model attends to
    held_share        one document in so many is held out
    questions         held-out questions that are answered at each check
    together, apart   passages that the model is asked about at a time (``session.parts``); None:
                      as many as the adapter to begin from says
    epochs            passes over all packs, where the schedule has no steps or minutes
    """

    model: str
    sources: tuple[Source, ...]
    schedule: Schedule = field(default_factory=Schedule)
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    revision: str | None = None
    start: tuple[str, ...] = ()
    longest: int | None = None
    held_share: int = 16
    questions: int = 0
    calibrate: int = 0
    together: int | None = None
    apart: int | None = None
    epochs: float = 1.0
    device: str = "auto"
    dtype: str = "auto"

    def asking(self) -> Asking:
        """How many passages the model is to be asked about at a time."""
        left = self.together is None or self.apart is None
        usual = Asking.of(read_notes(Path(self.start[0])) if left and self.start else {})
        return Asking(
            usual.together if self.together is None else self.together,
            usual.apart if self.apart is None else self.apart,
        )

    def to_json(self) -> dict[str, Any]:
        """As ``run.json`` has it."""
        data = asdict(self)
        data["sources"] = [[str(source.path), source.times] for source in self.sources]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunSettings:
        """The other way round; ``KeyError`` or ``TypeError`` where it is broken."""
        values = dict(data)
        values["sources"] = tuple(Source(Path(path), times) for path, times in data["sources"])
        values["schedule"] = Schedule(**data["schedule"])
        start = data["start"] or ()  # one, in runs from before there could be several
        values["start"] = (start,) if isinstance(start, str) else tuple(start)
        if data["lora"] is not None:
            lora = dict(data["lora"])
            values["lora"] = LoraSettings(**{**lora, "targets": tuple(lora["targets"])})
        return cls(**values)


def prepare(
    folder: Path, settings: RunSettings, lm: LanguageModel, on_file: OnFile | None = None
) -> RunSettings:
    """Make the packs of a new run; the settings with what was left open filled in.

    ``UsageError`` where ``folder`` holds a run already, the data give nothing to train on, or what
    is trained cannot begin from what it is to begin from.
    """
    check_new(folder / RUN_FILE, "nazx tune")
    _starts(settings, lm)
    longest = min(settings.longest or _LONGEST, reach(lm.config))
    asking = settings.asking()
    made = make_packs(
        settings.sources,
        lm.tokenizer,
        longest=longest,
        asking=asking,
        held_share=settings.held_share,
        seed=settings.schedule.seed,
        on_file=on_file,
    )
    if not made.train:
        raise UsageError(
            "there is nothing to train on in these files", "name files with questions or text"
        )
    tokens = settings.epochs * sum(pack.tokens for pack in made.train)
    settings = replace(
        settings,
        longest=longest,
        schedule=settings.schedule.lasting(tokens),
        together=asking.together,
        apart=asking.apart,
    )
    _keep(folder, settings, made, lm)
    return settings


def _starts(settings: RunSettings, lm: LanguageModel) -> list[Adapter]:
    """The adapters to begin from, which fit the model and the adapter that is trained."""
    adapters = [read_adapter(Path(each)) for each in settings.start]
    for adapter in adapters:
        adapter.check(lm.config)
    if adapters and settings.lora is not None:
        check_alike(adapters, settings.lora.rank)
    return adapters


def _keep(folder: Path, settings: RunSettings, made: Split, lm: LanguageModel) -> None:
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_packs(folder / _TRAIN, made.train)
        write_packs(folder / _HELD, made.held)
        asked = held_questions(made.stories, lm.tokenizer, settings.questions)
        (folder / ASKED_FILE).write_bytes(to_json([asdict(each) for each in asked]))
    write_asked(folder / RUN_FILE, settings.to_json())


def read_settings(folder: Path) -> RunSettings:
    """What the run in ``folder`` was asked for; ``UsageError`` where there is none."""
    return read_asked(folder / RUN_FILE, RunSettings.from_json)


class Run:
    """A prepared run and the model that it trains, which is its own from here on.

    With several ``ranks`` each has a run, and they train together.
    """

    def __init__(
        self, folder: Path, settings: RunSettings, lm: LanguageModel, ranks: Ranks = ALONE
    ) -> None:
        if stored_kind(lm.config) is not None or lm.quantization is not None:
            raise UsageError(
                f"{lm.name} is quantized, and quantized weights cannot be tuned",
                "tune the model that it was made from",
            )
        self.folder, self.settings, self.lm = folder, settings, lm
        self.train: list[Pack] = read_packs(folder / _TRAIN)
        self.held: list[Pack] = read_packs(folder / _HELD)
        self.asked = _read_asked(folder)
        torch.manual_seed(settings.schedule.seed)
        self._adapted: list[Adapted] = []
        self.engine = OnPacks(self._gradients(), lm.decoder.device)
        self.trainer = Trainer(self.engine, self.train, self.held, settings.schedule, folder, ranks)

    def _gradients(self) -> PackGradients:
        lora, decoder = self.settings.lora, self.lm.decoder
        if lora is None:
            return FullByAutograd(decoder)
        self._adapted = attach(decoder, lora)
        if starts := _starts(self.settings, self.lm):
            begin_from(self._adapted, starts)
        return lora_engine(decoder, self._adapted, self._exact())

    def _exact(self) -> dict[str, Tensor]:
        """The matrices with all the digits that the checkpoint has."""
        if self.lm.decoder.dtype == torch.float32:
            return {}
        checkpoint = Checkpoint.open(self.lm.folder)
        device = self.lm.decoder.device
        return {
            recipe.parameter: recipe.read(checkpoint).to(device)
            for recipe in block_matrices(self.lm.config)
        }

    def go(self, on_progress: OnProgress | None = None) -> None:
        """Train to the end."""
        check: Callable[[], dict[str, float]] | None = None
        if self.asked:
            check = self._figures
        self.trainer.run(on_progress, check)

    def _figures(self) -> dict[str, float]:
        self._answer_as_tuned()
        return answer_figures(self.lm, self.asked)

    def _answer_as_tuned(self) -> None:
        for each in self._adapted:  # the decoder's own layers answer
            each.layer.refresh(self.lm.decoder.dtype)

    def export(self, on_question: OnQuestion | None = None) -> Path:
        """Write the best parameters so far (the present ones where nothing was held out), with
        the calibration fitted to them where that was asked for."""
        self.trainer.take_best()
        folder: Path
        if self.settings.lora is None:
            folder = self.folder / "model"
            write_full(folder, self.lm.decoder, self.lm.folder)
            return folder
        folder = self.folder / "adapter"
        counters = self.trainer.counters
        write_adapter(
            folder,
            pairs(self._adapted),
            alpha=self.settings.lora.alpha,
            base=_base_name(self.lm),
            notes=self._notes(counters) | self._calibration(on_question),
            card=card(self.settings, counters, self.folder),
        )
        return folder

    def _calibration(self, on_question: OnQuestion | None) -> dict[str, Any]:
        """The note of how sure answers are, where that is to be fitted."""
        if not self.settings.calibrate:
            return {}
        self._answer_as_tuned()
        held = held_stories(self.settings.sources, self.settings.held_share)
        tried = try_out(self.lm, held, self.settings.calibrate, self.settings.asking(), on_question)
        return {"choice": fit(tried).to_json()} if tried else {}

    def _notes(self, counters: Counters) -> dict[str, Any]:
        notes = notes_on(self.settings.model, self.lm.folder, counters)
        if any(b.answer for p in self.train for b in p.branches if p.kind and p.prefix):
            notes["answers"] = "cited"
            notes["asking"] = self.settings.asking().to_json()
        return notes


def _base_name(lm: LanguageModel) -> str:
    """What PEFT is to load: a repository of the Hub where the registry knows one."""
    from nazx_cli.catalog.registry import HubSource, Registry

    entry = Registry.load().find(lm.name)
    hub = [each.repo for each in entry.sources if isinstance(each, HubSource)] if entry else []
    return hub[-1] if hub else lm.name


def _read_asked(folder: Path) -> list[HeldQuestion]:
    try:
        data: Sequence[dict[str, Any]] = json.loads((folder / ASKED_FILE).read_text("utf-8"))
        return [HeldQuestion(tuple(each["prompt"]), tuple(each["answers"])) for each in data]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NazxError(
            f"{folder / ASKED_FILE} is broken: {first_line(error)}", "begin the run again"
        ) from None
