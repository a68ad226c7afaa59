"""What a further rank of a context does: it loads the model that the first one has loaded, and runs
along until all is over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nazx_cli.catalog.model_ref import ModelRef
from nazx_cli.checkpoint.adapters.lora import read_adapter
from nazx_cli.checkpoint.load import load_decoder, resolve_device
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.memory.plan import Plan
from nazx_cli.model.attention import attention_of
from nazx_cli.model.attention.base import AttentionKind, Followed
from nazx_cli.model.decoder import Decoder
from nazx_cli.ranks import Group, Kind, local_rank

_ROWS = 256  # of the embedding, by which weights are told apart


@dataclass(frozen=True)
class Held:
    """How the first rank holds a model: its name and folder, and what ``load_decoder`` is told."""

    name: str
    folder: str
    dtype: str
    quantize: str | None
    adapter: str | None
    block: int
    split: bool

    @classmethod
    def of(cls, name: str, folder: Path, plan: Plan, adapter: Path | None) -> Held:
        """As ``plan`` says."""
        merged = None if adapter is None else str(adapter)
        by, where = plan.by, str(folder.absolute())
        return cls(name, where, plan.dtype, plan.quantize, merged, by.block, by.split)

    def tell(self, group: Group) -> None:
        """Have the others load the same."""
        text = torch.frombuffer(bytearray(json.dumps(asdict(self)).encode()), dtype=torch.uint8)
        for rank in group.others:
            group.send(rank, (Kind.LOAD, len(text)), text)

    @classmethod
    def heard(cls, group: Group, size: int) -> Held:
        """From the text of ``size`` bytes that follows a message."""
        return cls(**json.loads(bytes(group.receive((size,), torch.uint8).tolist())))

    def load(self, device: str, group: Group) -> AttentionKind:
        """The model on this machine, which has to have it: nothing is fetched."""
        folder = Path(self.folder)
        if not folder.is_dir():
            folder = ModelRef.parse(self.name).fetch(offline=True)
        adapter = None if self.adapter is None else read_adapter(Path(self.adapter))
        device = device_of_rank(device)
        parts = group.size if self.split else 1
        decoder = load_decoder(folder, device, self.dtype, self.quantize, adapter, parts=parts)
        check_alike(group, decoder)
        return attention_of(decoder, group=group, block=self.block)


def check_alike(group: Group, decoder: Decoder) -> None:
    """Wait until all have loaded their model; ``ModelUnavailableError`` where one has others'
    weights than the first."""
    norms = (decoder.final_norm.weight, decoder.layers[-1].initial_norm.weight)
    parts = norms if decoder.is_split else (decoder.embed.weight[:_ROWS], *norms)
    sums = [part.double().sum().item() for part in parts]
    every = group.gather(torch.tensor(sums, dtype=torch.float64))
    if not torch.allclose(every, every[:1].expand_as(every)):
        raise ModelUnavailableError(
            "the machines have different weights under the same name",
            "copy the model's folder from the first to the others",
        )


def device_of_rank(name: str) -> str:
    """The device for this rank: of several GPUs each rank of a machine takes its own."""
    device = resolve_device(name)
    if device.type != "cuda" or device.index is not None:
        return str(device)
    own = torch.device("cuda", local_rank() % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return str(own)


def follow(group: Group, device: str) -> dict[int, Followed]:
    """Do what the first rank tells until it ends; the contexts that are held then. Errors as for
    loading a model, and as of ``ranks.joined``."""
    model: AttentionKind | None = None
    contexts: dict[int, Followed] = {}
    while True:
        kind, *numbers = message = group.hear()
        if kind == Kind.END:
            return contexts
        if kind == Kind.LOAD:
            model = None  # its weights go before others come
            contexts.clear()
            model = Held.heard(group, numbers[0]).load(device, group)
        elif kind in (Kind.STEP, Kind.RUN):
            assert model is not None, "nothing is run before it is loaded"
            model.follow(message, contexts, group)
        elif kind == Kind.DROP:
            contexts.pop(numbers[0], None)
