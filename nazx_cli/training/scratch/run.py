"""Runs of ``nazx train``: what was asked for, one model of it, and what comes of it.

train.json        what was asked for
corpus/           the tokenizer and the token ids, shared by all models
NAME/             one model: its state, best parameters, log.jsonl
NAME/model/       what came of it: a checkpoint with its card and the picture of its losses
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nazx_cli.checkpoint.atomic import explained
from nazx_cli.checkpoint.load import load_decoder, resolve_device, resolve_dtype
from nazx_cli.checkpoint.write import write_checkpoint
from nazx_cli.config import ModelConfig
from nazx_cli.errors import UsageError
from nazx_cli.model.decoder import Decoder
from nazx_cli.names import OnProgress
from nazx_cli.training import trainer
from nazx_cli.training.full import tensors
from nazx_cli.training.gradients.engines import Masters
from nazx_cli.training.gradients.sequences import loss_sum
from nazx_cli.training.plot import write_plot
from nazx_cli.training.ranks import ALONE, Ranks
from nazx_cli.training.scratch.card import card
from nazx_cli.training.scratch.corpus import (
    HELD,
    TOKENIZER_FILES,
    TRAIN,
    Rows,
    Stretches,
    make_corpus,
    read_ids,
)
from nazx_cli.training.scratch.initial import Shape, new_decoder, parse_attention
from nazx_cli.training.state import check_new, read_asked, write_asked
from nazx_cli.training.trainer import Schedule, Trainer

ASKED_FILE, CORPUS = "train.json", "corpus"
_TOGETHER = 2048  # tokens that run through the layers together
_LONG = 2048  # from here on layers are computed once more for the backward pass
_HELD_TOKENS = 65_536
_BASE_OF_ROPE = ("rope_theta", "partial_rotary_factor")
"""What stays of a rotation that is scaled in another way."""


@dataclass(frozen=True)
class TrainSettings:
    """What was asked for.

    sources    files, folders and globs
    attention  kinds, each a model of its own; see ``parse_attention``
    seeds      models of each kind
    start      a checkpoint to go on from, in place of random weights, shape and tokenizer
    rope       the RoPE type that a longer context is reached by, where ``start`` is given
    recall     tokens of lists that teach recall for each token of the sources
    epochs     passes over the corpus, where the schedule has no steps or minutes
    """

    sources: tuple[str, ...]
    attention: tuple[str, ...] = ("inattention",)
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)
    seeds: int = 1
    start: str | None = None
    rope: str | None = None
    epochs: float = 1.0
    recall: float = 0.0
    held_share: int = 20
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainSettings:
        """From ``train.json``; ``KeyError`` or ``TypeError`` where it is broken."""
        values = dict(data)
        values["shape"], values["schedule"] = Shape(**data["shape"]), Schedule(**data["schedule"])
        for key in ("sources", "attention"):
            values[key] = tuple(data[key])
        return cls(**values)


@dataclass(frozen=True)
class Plan:
    """One model of what was asked for."""

    name: str
    attention: str
    seed: int


def plans(settings: TrainSettings) -> Iterator[Plan]:
    """All models, seed by seed, so that a series that is cut short has one of each kind."""
    for seed in range(settings.schedule.seed, settings.schedule.seed + settings.seeds):
        for attention in settings.attention:
            name = attention.replace(":", "-")
            yield Plan(name if settings.seeds == 1 else f"{name}-seed{seed}", attention, seed)


def prepare(
    out: Path, settings: TrainSettings, on_progress: OnProgress | None = None
) -> TrainSettings:
    """Make the corpus; the settings with what was left open filled in.

    ``UsageError`` where ``out`` holds a training already or the files too little text.
    """
    check_new(out / ASKED_FILE, "nazx train")
    for attention in settings.attention:
        parse_attention(attention)
    start = None if settings.start is None else Path(settings.start)
    make_corpus(
        out / CORPUS,
        settings.sources,
        vocab_size=settings.shape.vocab_size,
        held_share=settings.held_share,
        recall=settings.recall,
        longest=settings.shape.context,
        tokenizer=start,
        on_progress=on_progress,
    )
    sizes = {name: len(read_ids(out / CORPUS, name)) for name in (TRAIN, HELD)}
    for known in sizes.values():
        if known <= settings.shape.context:
            raise UsageError(
                f"there is too little text: {known:,} tokens, and a context takes "
                f"{settings.shape.context:,}",
                "name more files, or a smaller --context",
            )
    schedule = settings.schedule.lasting(settings.epochs * sizes[TRAIN])
    settings = replace(settings, schedule=schedule)
    write_asked(out / ASKED_FILE, asdict(settings))
    return settings


def read_settings(out: Path) -> TrainSettings:
    """What the training in ``out`` was asked for; ``UsageError`` where there is none."""
    return read_asked(out / ASKED_FILE, TrainSettings.from_json)


class OnRows:
    """An engine of the trainer's: all weights of a decoder, on whole sequences of ``context``
    tokens."""

    def __init__(self, decoder: Decoder, exact: Sequence[torch.Tensor], context: int) -> None:
        self._decoder, self._recompute = decoder, context > _LONG
        self._masters = Masters(decoder, exact)
        self.parameters: list[nn.Parameter] = self._masters.parameters
        self.refresh = self._masters.refresh

    def loss(self, item: Rows, scale: float | None) -> float:
        """See ``trainer.Engine``."""
        ids = item.ids.to(self._decoder.device)
        with torch.set_grad_enabled(scale is not None):
            total = loss_sum(self._decoder, ids, self._recompute and scale is not None)
            if scale is not None:
                (total * scale).backward()  # type: ignore[no-untyped-call]
        self._masters.gather()
        return float(total.detach())


class TrainRun:
    """One model of a training, from where it is to its end."""

    def __init__(
        self, out: Path, settings: TrainSettings, plan: Plan, ranks: Ranks = ALONE
    ) -> None:
        self.out, self.settings, self.plan = out, settings, plan
        self.folder = out / plan.name
        if ranks.is_first:
            with explained(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device)
        self.raw, decoder = _begin(settings, plan)
        self.raw["torch_dtype"] = str(dtype).removeprefix("torch.")
        exact = [p.detach().clone() for p in dict.fromkeys(decoder.parameters())]
        self.decoder = decoder.to(device, dtype)
        context = settings.shape.context
        self.engine = OnRows(self.decoder, [e.to(device) for e in exact], context)
        batch = max(1, _TOGETHER // context)
        self.trainer = Trainer[Rows](
            self.engine,
            Stretches(read_ids(out / CORPUS, TRAIN), context, batch),
            Stretches(read_ids(out / CORPUS, HELD), context, batch, _HELD_TOKENS // context or 1),
            replace(settings.schedule, seed=plan.seed),
            self.folder,
            ranks,
        )

    @property
    def made(self) -> Path:
        """Where the checkpoint is, once it is made."""
        return self.folder / "model"

    def go(self, on_progress: trainer.OnProgress | None = None) -> None:
        """Train to the end."""
        self.trainer.run(on_progress)

    def export(self) -> Path:
        """Write the best parameters so far as a checkpoint."""
        self.trainer.take_best()
        corpus = self.out / CORPUS
        picture = self.folder / "loss.svg"
        counters = self.trainer.counters
        with explained(picture):
            write_plot(self.folder, picture, f"{self.plan.name}, {counters.tokens:,} tokens")
        text = card(self.settings, self.plan, counters, self.decoder.config, corpus)
        files: dict[str, bytes | Path] = {
            name: corpus / name for name in TOKENIZER_FILES if (corpus / name).is_file()
        }
        files |= {"README.md": text.encode(), "loss.svg": picture}
        write_checkpoint(self.made, self.raw, dict(tensors(self.decoder)), files)
        return self.made


def _begin(settings: TrainSettings, plan: Plan) -> tuple[dict[str, Any], Decoder]:
    """The ``config.json`` of a model and its decoder in float32, at the weights that it begins
    with."""
    if settings.start is None:
        raw = settings.shape.config(parse_attention(plan.attention))
        return raw, new_decoder(ModelConfig.from_dict(raw), plan.seed)
    start = Path(settings.start)
    decoder = load_decoder(start, "cpu", "float32")
    raw = dict(decoder.config.raw)
    before = decoder.config.max_positions
    raw["max_position_embeddings"] = settings.shape.context
    if settings.rope is not None:
        rotated = raw.pop("rope_parameters", None) or {}
        if any(isinstance(value, dict) for value in rotated.values()):
            raise UsageError("this model rotates its layers in several ways", "leave --rope out")
        raw |= {key: rotated[key] for key in _BASE_OF_ROPE if key in rotated}
        raw.pop("rope_scaling", None)
        raw["rope_scaling"] = {
            "rope_type": settings.rope,
            "factor": max(1.0, settings.shape.context / before),
            "original_max_position_embeddings": before,
        }
    longer = Decoder(ModelConfig.from_dict(raw))
    longer.load_state_dict(decoder.state_dict())
    return raw, longer
