"""The Python interface: ``load_model`` and the ``LanguageModel`` that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context
from nazx_cli.context.tokens import as_ids
from nazx_cli.engine.generator import Step, generate
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import UsageError
from nazx_cli.model.attention.kinds import attention_of
from nazx_cli.model.decoder import Decoder
from nazx_cli.tokenizer import Tokenizer
from nazx_cli.weights.load import load_decoder


def load_model(
    name_or_path: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str | None = None,
    layout: str = "auto",
    *,
    revision: str | None = None,
    offline: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> LanguageModel:
    """Load a registry name, an ``org/repo`` of the Hub, or a checkpoint folder.

    dtype is auto, float32, bfloat16 or float16; layout one of ``LanguageModel.layouts`` or
    auto. Errors: ``ModelUnavailableError`` where the model cannot be had or is broken,
    ``UsageError`` for a value that makes no sense.
    """
    if quantize is not None:
        raise UsageError(
            f"this version of NazX cannot quantize weights ({quantize!r} was asked for)",
            "leave quantize out, or use dtype='bfloat16' to halve a float32 model",
        )
    from nazx_cli.weights.resolve import resolve_model

    folder = resolve_model(
        str(name_or_path), revision=revision, offline=offline, on_progress=on_progress
    )
    decoder = load_decoder(folder, device, dtype)
    return LanguageModel(str(name_or_path), decoder, folder, layout)


class LanguageModel:
    """A loaded model: makes contexts, gives logits, generates.

    ``layouts`` names the memory layouts that this model can use, ``layout`` the one that its
    contexts get. ``window`` is how many live tokens it attends to at once (None: no limit);
    ``reads_resident`` tells whether resident tokens are attended.
    """

    def __init__(self, name: str, decoder: Decoder, folder: Path, layout: str = "auto") -> None:
        self.name = name
        self.decoder = decoder
        self.folder = folder
        self.attention = attention_of(decoder)
        self.layouts = self.attention.layouts
        if layout != "auto" and layout not in self.layouts:
            raise UsageError(
                f"{name} has no memory layout {layout!r}",
                f"choose auto or one of {', '.join(self.layouts)}",
            )
        self.layout = self.layouts[0] if layout == "auto" else layout

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read when first needed: logits need none."""
        return Tokenizer.from_folder(self.folder)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.decoder.config

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self.decoder.device)

    @property
    def dtype(self) -> str:
        """The type that the arithmetic is done in, such as ``bfloat16``."""
        return str(self.decoder.dtype).removeprefix("torch.")

    @property
    def reads_resident(self) -> bool:
        """Whether resident tokens are attended to."""
        return self.attention.reads_resident

    @property
    def window(self) -> int | None:
        """Live tokens attended at once: sinks + window, the trained length of a ``full``
        model, or None for InAttention."""
        kind = self.config.attention
        if kind.kind == "windowed":
            return kind.local_window + kind.sink_tokens
        return None if kind.kind == "inattention" else self.config.max_positions

    def new_context(self) -> Context:
        """An empty context in this model's layout."""
        return Context(self.attention.new_memory(self.layout), self.config.vocab_size)

    def next_logits(self, context: Context) -> Tensor:
        """(vocab_size,) float32: logits of the token after the last one in ``context``.

        ``NazxError`` on an empty context. If the computation is cut short (Ctrl-C, out of
        memory) the context keeps its ids and drops what was derived from them.
        """
        try:
            return self.attention.next_logits(context)
        except BaseException:
            context.memory = self.attention.new_memory(self.layout)
            raise

    def logits(self, ids: Sequence[int] | Tensor) -> Tensor:
        """(T, vocab_size) float32: logits after every position of ids (T,)."""
        return self.attention.logits(as_ids(ids))

    def generate(
        self,
        context: Context,
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_ids: frozenset[int] | None = None,
    ) -> Iterator[Step]:
        """Steps of an answer that continues ``context``; see ``engine.generator``."""
        stops = self.tokenizer.stop_ids if stop_ids is None else stop_ids
        return generate(
            self.next_logits, self.tokenizer, context, max_tokens, sampling or Sampling(), stops
        )
