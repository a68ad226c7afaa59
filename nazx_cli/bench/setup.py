"""What workloads are given: settings, and the models that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nazx_cli.bench import peers

if TYPE_CHECKING:
    from nazx_cli.bench.peers import TransformersPeer
    from nazx_cli.engine.language_model import LanguageModel

Note = Callable[[str], None]
"""Takes a line about what is going on."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often.

    model, dtype     for the workloads that run real weights; dtype serves all
    contexts         context lengths of the random model; () leaves them to the workload
    layouts          memory layouts of the random model; () leaves them to the workload
    shapes           the registry name whose shapes the random model has
    prompts          prompt lengths of the real model, cut to its window
    peer_lengths     the two lengths that a peer's prefill is extrapolated from
    """

    model: str = "nazx-smol-135m"
    dtype: str = "bfloat16"
    repeat: int = 5
    contexts: tuple[int, ...] = ()
    layouts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    shapes: str = "nazx-160m"
    prompts: tuple[int, ...] = (100, 1000, 1900)
    new_tokens: int = 20
    peer_lengths: tuple[int, int] = (4000, 8000)
    question: str = "Who was the first to speak, and what was said about the journey?"


class Setup:
    """Settings, and the loaded model with its peer: loaded once, when first asked for."""

    def __init__(self, settings: Settings, note: Note = lambda text: None) -> None:
        self.settings = settings
        self.note = note

    @cached_property
    def lm(self) -> LanguageModel:
        """The model of ``settings.model``, on the CPU."""
        from nazx_cli.engine.language_model import load_model

        self.note(f"loading {self.settings.model}")
        return load_model(self.settings.model, dtype=self.settings.dtype)

    @cached_property
    def peer(self) -> TransformersPeer | None:
        """transformers on the weights of ``lm``; None where it is missing or cannot run them."""
        if self.peer_note:
            return None
        lm = self.lm
        return peers.TransformersPeer.from_folder(lm.config, lm.folder, lm.decoder.dtype)

    @property
    def peer_note(self) -> str:
        """Why there is no peer, or nothing."""
        if not peers.is_installed():
            return peers.MISSING
        if self.lm.config.attention.kind == "inattention":
            return "transformers cannot run InAttention"
        return ""

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
