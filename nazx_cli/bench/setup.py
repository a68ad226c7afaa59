"""What workloads are given: settings, and the models and rivals that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nazx_cli.bench.models import Rival, inattention_config, random_decoder
from nazx_cli.bench.peers import llama_peer, transformers_peer
from nazx_cli.bench.results import Side, alternate
from nazx_cli.checkpoint.load import resolve_dtype
from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import BLOCK
from nazx_cli.engine.language_model import LanguageModel, load_model
from nazx_cli.errors import ModelUnavailableError, UsageError

Note = Callable[[str], None]
"""Takes a line about what is going on."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often.

    model, dtype     for the workloads that run real weights; dtype serves all
    quantize         further ways to hold the real model's weights
    gguf             the real model's file for llama.cpp; "" is the one that the registry knows
    contexts         context lengths of the random model; () leaves them to the workload
    layouts          memory layouts of the random model; () leaves them to the workload
    shapes           the registry name whose shapes the random model has
    initial_window   tokens that its initial states see, where contexts are long
    larger           a second such name, for the workloads that measure two; "" for none
    prompts          prompt lengths of the real model, cut to its window
    peer_lengths     the lengths at which peers take in a prompt; longer ones are extrapolated
    scored           tokens of a text on which quantized weights are judged
    peaks            names whose shapes the processes have that the estimate is held against
    float32          whether workloads that measure two types measure float32 too
    watched          whether ``memory`` ends with a process of its own, and ``peak`` with chats
    threads          how many threads all sides compute on
    processes        by how many processes a model is held; () leaves that to the workload
    block            tokens of a block of a prompt that several read
    clients          how many ask a server at once
    """

    model: str = "nazx-smol-135m"
    dtype: str = "bfloat16"
    quantize: tuple[str, ...] = ("int8", "nf4")
    gguf: str = ""
    repeat: int = 5
    contexts: tuple[int, ...] = ()
    layouts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    shapes: str = "nazx-160m"
    initial_window: int = 1
    larger: str = "nazx-1b"
    prompts: tuple[int, ...] = (100, 1000, 1900)
    new_tokens: int = 20
    peer_lengths: tuple[int, ...] = (4000, 8000, 16000)
    scored: int = 4096
    peaks: tuple[str, ...] = ("nazx-70m", "nazx-160m", "nazx-410m")
    float32: bool = True
    watched: bool = True
    threads: int = 1
    processes: tuple[int, ...] = ()
    block: int = BLOCK
    clients: tuple[int, ...] = (1, 8, 64)
    question: str = "Who was the first to speak, and what was said about the journey?"

    def quick(self) -> Settings:
        """The same, small enough to see in some minutes that all works; without files the documents
        are NazX's own help."""
        return replace(
            self,
            quantize=(),
            repeat=1,
            contexts=self.contexts or (2000,),
            layouts=self.layouts or ("pairs",),
            files=self.files or (str(resources.files("nazx_cli") / "help"),),
            shapes="nazx-70m",
            larger="",
            prompts=(100,),
            new_tokens=4,
            peer_lengths=(200, 400),
            scored=64,
            peaks=("nazx-70m",),
            float32=False,
            watched=False,
            processes=self.processes or (1, 2),
            clients=(1, 8),
        )


class Setup:
    """Settings, the loaded model with its rivals (loaded once, when first asked for), and random
    models with theirs; ``note`` is told what is going on."""

    def __init__(self, settings: Settings, note: Note = lambda text: None) -> None:
        self.settings = settings
        self.note = note

    @cached_property
    def lm(self) -> LanguageModel:
        """The model of ``settings.model``, on the CPU."""
        self.note(f"loading {self.settings.model}")
        return load_model(self.settings.model, dtype=self.settings.dtype)

    @cached_property
    def models(self) -> tuple[LanguageModel, ...]:
        """``lm`` and the same with its weights held in the other ways of the settings."""
        found = [self.lm]
        for kind in self.settings.quantize if self.lm.quantization is None else ():
            self.note(f"loading {self.settings.model} as {kind}")
            try:
                found.append(load_model(self.lm.folder, dtype=self.lm.dtype, quantize=kind))
            except UsageError as error:
                self.note(f"{kind} is left out: {error}")
        return tuple(found)

    @cached_property
    def rivals(self) -> tuple[Rival, ...]:
        """transformers and llama.cpp on the weights of ``lm``."""
        lm = self.lm
        if lm.config.attention.kind == "inattention":
            names = (transformers_peer.TRANSFORMERS, llama_peer.NAME)
            return tuple(Rival(name, note=f"{name} cannot run InAttention") for name in names)

        def load() -> transformers_peer.TransformersPeer:
            return transformers_peer.TransformersPeer.from_folder(
                lm.config, lm.folder, lm.decoder.dtype
            )

        return transformers_peer.rival(load, lm.quantization or lm.dtype), self._llama_cpp()

    def _llama_cpp(self) -> Rival:
        if not llama_peer.is_installed():
            return Rival(llama_peer.NAME, note=llama_peer.MISSING)
        settings = self.settings
        try:
            file = llama_peer.published(settings.model, settings.gguf, self.note)
        except ModelUnavailableError as error:
            return Rival(llama_peer.NAME, note=str(error))
        longest = max(self.prompt_lengths()) + settings.new_tokens
        rival = llama_peer.rival(file, llama_peer.precision_of(file), longest)
        engine, size = rival.engine, self.lm.config.vocab_size
        if isinstance(engine, llama_peer.LlamaPeer) and engine.vocab_size != size:
            return Rival(llama_peer.NAME, note=f"{file.name} is of a model with other tokens")
        return rival

    @property
    def dtype(self) -> torch.dtype:
        """The chosen type."""
        return resolve_dtype(self.settings.dtype, torch.device("cpu"))

    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The chosen type and float32, for workloads that measure both."""
        second = (torch.float32,) if self.settings.float32 else ()
        return tuple(dict.fromkeys((self.dtype, *second)))

    def random_models(
        self, layouts: Iterable[str], dtype: torch.dtype, shapes: str = "", **changes: Any
    ) -> list[LanguageModel]:
        """InAttention with random weights, shared by all: a model for each of the settings'
        layouts, or else of ``layouts``; ``changes`` are to the shapes' config."""
        shapes = shapes or self.settings.shapes
        self.note(f"making random models of {shapes} shapes, {str(dtype).removeprefix('torch.')}")
        config = inattention_config(shapes)
        attention = replace(config.attention, initial_window=self.settings.initial_window)
        decoder = random_decoder(replace(config, attention=attention, **changes), dtype)
        return [
            LanguageModel(shapes, decoder, Path(), name)
            for name in self.settings.layouts or layouts
        ]

    @contextmanager
    def random_rivals(
        self, config: ModelConfig, dtype: torch.dtype, *, llama_cpp: bool = True
    ) -> Iterator[list[Rival]]:
        """transformers in ``dtype`` and llama.cpp in F16, of random weights and ordinary attention,
        for prompts up to the peers' longest; those that are not installed say so."""
        peer = transformers_peer.TransformersPeer
        precision = str(dtype).removeprefix("torch.")
        found = [transformers_peer.rival(lambda: peer.random(config, dtype), precision)]
        with TemporaryDirectory(prefix="nazx-bench-") as scratch:
            if llama_cpp and llama_peer.is_installed():
                self.note("writing a random model for llama.cpp")
                llama_peer.write_random(config, file := Path(scratch, "random.gguf"))
                found.append(llama_peer.rival(file, "F16", max(self.settings.peer_lengths)))
            elif llama_cpp:
                found.append(Rival(llama_peer.NAME, note=llama_peer.MISSING))
            yield found
            for rival in found:
                if isinstance(rival.engine, llama_peer.LlamaPeer):
                    rival.engine.close()

    def alternate(
        self, label: str, sides: Sequence[Side], *, warm_up: bool = True
    ) -> list[tuple[float, ...]]:
        """``results.alternate`` for as many rounds as the settings ask for, with notes on them."""
        return alternate(sides, self.settings.repeat, warm_up=warm_up, on_round=self.rounds(label))

    def rounds(self, label: str) -> Callable[[int, int], None]:
        """Notes which round of ``label`` begins."""
        return lambda number, of: self.note(f"{label}: round {number} of {of}")

    def prompt_lengths(self) -> Sequence[int]:
        """Lengths that leave room for the new tokens within the model's window, where all
        attend to all and a peer computes the same."""
        prompts, window = self.settings.prompts, self.lm.window
        if window is None:
            return prompts
        most = max(1, window - self.settings.new_tokens)
        return tuple(dict.fromkeys(min(length, most) for length in prompts))
