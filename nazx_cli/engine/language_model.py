"""The Python interface: ``load_model`` and the ``LanguageModel`` that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from nazx_cli.checkpoint.adapters.far import attach_far, detach_far, read_far_adapter
from nazx_cli.checkpoint.adapters.lora import Adapter, read_adapter, read_notes
from nazx_cli.checkpoint.load import change_adapter, load_decoder
from nazx_cli.config import ModelConfig
from nazx_cli.context.context import Context, as_ids
from nazx_cli.context.ranks.sharing import ALONE
from nazx_cli.engine.fitting import MemoryLimit, plan_here
from nazx_cli.engine.following import Held, check_alike, device_of_rank
from nazx_cli.engine.generator import Candidate, Opening, Step, answer_each, generate
from nazx_cli.engine.grounding import Grounding
from nazx_cli.engine.lookup import MOST_DRAFTS
from nazx_cli.engine.sampling import Sampling, published_sampling
from nazx_cli.errors import MemoryLimitError, ModelUnavailableError, UsageError, is_out_of_memory
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions, Plan
from nazx_cli.model.attention import attention_of, check_layout, layouts_of
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.far.states import FarStates
from nazx_cli.quantization.cost import check_kind
from nazx_cli.ranks import Group
from nazx_cli.tokenizer import Tokenizer

SUMMARIZES = 1_000_000_000
"""Weights from which on a model words summaries itself. Measured with 135 million alone, which
write worse ones than any extract."""


def load_model(
    name_or_path: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: str | None = None,
    layout: str = "auto",
    *,
    revision: str | None = None,
    offline: bool = False,
    vram_limit: int | None = None,
    adapter: str | Path | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> LanguageModel:
    """Load a registry name, an ``org/repo`` of the Hub, or a checkpoint folder.

    dtype is auto, float32, bfloat16 or float16; quantize int8 or nf4, for the matrices of the
    blocks, while the rest stays in dtype; layout one of ``LanguageModel.layouts`` or auto.
    With ``vram_limit`` (bytes) what is left to ``auto`` is chosen to fit, and contexts keep to
    it. ``adapter`` is a folder with an adapter to merge, or with a far memory; None: those that the
    registry has for the model, where documents are asked about; ``none``: none.
    Errors: ``ModelUnavailableError`` where the model cannot be had or is broken, or the adapter
    does not fit, ``UsageError`` for a value that makes no sense or where bitsandbytes is needed
    and missing, ``MemoryLimitError`` where nothing fits the limit.
    """
    if quantize is not None:
        check_kind(quantize)  # before a download
    from nazx_cli.catalog.model_ref import ModelRef

    model = ModelRef.parse(name_or_path, revision)
    adapters = model.adapters(adapter)
    folder = model.fetch(offline=offline, on_progress=on_progress)
    if vram_limit is not None:
        options = LoadOptions(device, dtype, quantize, layout, vram_limit, adapters=adapters)
        lm = load_planned(str(name_or_path), folder, TextSize(), options)
    else:
        merged = read_adapter(adapters.always) if adapters.always else None
        decoder = load_decoder(folder, device, dtype, quantize, merged)
        lm = LanguageModel(str(name_or_path), decoder, folder, layout)
        lm.adapter, lm.reader, lm.far = merged, adapters.reader, adapters.far
    if adapter is not None:
        lm.attend_far(lm.far is not None)
    return lm


def load_planned(
    name: str,
    folder: Path,
    documents: TextSize,
    options: LoadOptions,
    group: Group | None = None,
) -> LanguageModel:
    """Load the checkpoint ``folder`` as planned for ``documents`` and a conversation about them.

    All ranks of ``group`` load it, and its contexts are held by all of them. Errors as
    ``load_model``, and ``UsageError`` where that cannot be.
    """
    config = ModelConfig.from_folder(folder)
    if group is not None:
        # A reader changes the weights between questions, and asks in parts that one process reads.
        adapters, by = replace(options.adapters, reader=None), replace(options.by, ranks=group.size)
        device = device_of_rank(options.device)
        options = replace(options, device=device, by=by, adapters=adapters)
    elif options.adapters.far:  # there is to be room for it; what is wrong with it is told at use
        with suppress(ModelUnavailableError):
            config = read_far_adapter(options.adapters.far).extended(config)
    plan = plan_here(config, documents, options).check()
    wanted = options.adapters.merged(documents.tokens > 0)
    merged = read_adapter(wanted) if wanted else None
    if options.by.split and merged is not None and merged.is_reader:
        raise UsageError("an adapter for reading needs all weights in one process", "name another")
    # The others hold what this one does, or are lost.
    with nullcontext() if group is None else group.together():
        if group is not None:
            Held.of(name, folder, plan, wanted).tell(group)
        decoder = load_decoder(
            *(folder, options.device, plan.dtype, plan.quantize, merged),
            *(plan.on_device, plan.host_embedding, plan.by.parts),
        )
        if group is not None:
            check_alike(group, decoder)
    lm = LanguageModel(name, decoder, folder, plan.layout, plan, group)
    lm.adapter, lm.reader, lm.far = merged, options.adapters.reader, options.adapters.far
    return lm


class LanguageModel:
    """A loaded model: makes contexts, gives logits, generates.

    ``layouts`` names the memory layouts that this model can use, ``layout`` the one that its
    contexts get. ``window`` is how many live tokens a prompt may have (None: no limit);
    ``reads_resident`` tells whether resident tokens are attended. ``plan`` is what it was loaded
    by, None where it was loaded without a limit. ``group`` are the processes that hold its
    contexts together; None: this one alone does. ``adapter`` is what is merged into the weights
    now, ``reader`` the folder of one that is to be while documents are asked about, ``far`` that of
    a far memory, for documents that are attended to as a whole. ``heed`` is called before every
    token: what it raises ends the answer there, as Ctrl-C would.
    """

    def __init__(
        self,
        name: str,
        decoder: Decoder,
        folder: Path,
        layout: str = "auto",
        plan: Plan | None = None,
        group: Group | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        self.adapter: Adapter | None = None
        self.reader: Path | None = None
        self.far: Path | None = None
        self._far_states: FarStates | None = None  # what ``far`` has read, also while it is out
        self.heed: Callable[[], None] = lambda: None
        self.group = group
        self._limit = None if plan is None else MemoryLimit(decoder.config, plan)
        self.decoder = decoder
        self.folder = folder
        self._by = ALONE if plan is None else plan.by
        kernel = None if plan is None else plan.kernel
        self.attention = attention_of(decoder, kernel, group, self._by.block)
        self.layouts = layouts_of(decoder.config)
        if layout != "auto":
            check_layout(decoder.config, layout)
        self.layout = self.layouts[0] if layout == "auto" else layout

    @property
    def ranks(self) -> int:
        """How many processes hold its contexts together."""
        return 1 if self.group is None else self.group.size

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read when first needed: logits need none."""
        return Tokenizer.from_folder(self.folder)

    @cached_property
    def published_sampling(self) -> Sampling | None:
        """How its makers would have tokens drawn, if at all."""
        return published_sampling(self.folder)

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
    def quantization(self) -> str | None:
        """``int8`` or ``nf4`` where the weights of the blocks are quantized, else None."""
        return self.decoder.quantization

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the model and its contexts keep to; None where no limit was set."""
        return None if self.plan is None else self.plan.limit

    @property
    def reads_resident(self) -> bool:
        """Whether resident tokens are attended to."""
        return self.attention.reads_resident

    @property
    def can_read_resident(self) -> bool:
        """Whether they can be: now, or with the model's far memory, which is one process's."""
        return self.reads_resident or (self.far is not None and self.group is None)

    @property
    def prefers_resident(self) -> bool:
        """Whether documents are best attended to as a whole."""
        return self.config.prefers_resident

    def attend_far(self, wanted: bool) -> None:
        """Take in the far memory ``far`` for what is resident, or take it out again; nothing
        changes where there is none, or several processes have the model. Errors as for loading
        the model with it.
        """
        if self.far is None or self.group or wanted == (self.decoder.far is not None):
            return
        if not wanted:
            detach_far(self.decoder)
            return
        memory = attach_far(self.decoder, read_far_adapter(self.far))
        if memory.states is not None:
            self._far_states = self._far_states or memory.states
            memory.states = self._far_states

    @property
    def window(self) -> int | None:
        """Live tokens of a prompt and its answer: what the model attends to at once, or what the
        plan has room for; None for InAttention."""
        limits = (self.config.window, None if self.plan is None else self.plan.live)
        return min((limit for limit in limits if limit is not None), default=None)

    def plan_for(self, documents: TextSize, ctx: int | None = None) -> Plan:
        """The plan for other documents, and ``ctx`` tokens of conversation, with weights, layout
        and limit as they are."""
        held = (self.device, self.dtype, self.quantization, self.layout, self.memory_limit)
        process = None if self.plan is None else self.plan.held  # else weights would count twice
        options = LoadOptions(*held, ctx, by=self._by)
        return plan_here(self.config, documents, options, process)

    @property
    def cites(self) -> bool:
        """Whether answers about documents come in the form of ``session.citation`` now."""
        return self.adapter is not None and self.adapter.is_reader

    @property
    def can_cite(self) -> bool:
        """Whether they can: with the adapter that is merged, or with the model's reader."""
        return self.cites or self.reader is not None

    @property
    def reader_notes(self) -> Mapping[str, Any]:
        """What the adapter that is merged, or is to be while documents are asked about, keeps for
        reading: see ``session.parts`` and ``session.calibration``. Errors as for reading it."""
        if self.adapter is not None:
            return self.adapter.notes
        return {} if self.reader is None else read_notes(self.reader)

    @property
    def writes_summaries(self) -> bool:
        """Whether its own summaries are worth reading: a chat model of ``SUMMARIZES`` weights."""
        chats = self.tokenizer.chat_template is not None
        return chats and self.config.num_parameters >= SUMMARIZES

    def about_documents(self, asked: bool) -> bool:
        """Merge the reading adapter if documents are asked about, else take it out again; True
        where that changed the weights: contexts made before are void then.

        Errors as for loading the model with that adapter; nothing has changed then.
        """
        if self.reader is None or asked == (self.adapter is not None):
            return False
        adapter = read_adapter(self.reader) if asked else None
        change_adapter(self.decoder, self.folder, self.adapter, adapter)
        self.adapter = adapter
        return True

    def new_context(self) -> Context:
        """An empty context in this model's layout."""
        memory = self.attention.new_memory(self.layout)
        window = self.config.attention.initial_window
        return Context(memory, self.config.vocab_size, self.layout, window)

    def move(self, context: Context, layout: str) -> None:
        """Change a context's memory layout; its ids and its logits stay the same."""
        context.memory = self.attention.new_memory(layout)
        context.layout = layout

    def read(self, context: Context) -> Iterator[tuple[int, int]]:
        """Read what is resident in ``context`` and has not been read, for a far memory that needs
        it: see ``AttentionKind.read``."""
        for progress in self.attention.read(context):
            self.heed()
            yield progress

    def readings(self, ids: Sequence[int] | Tensor) -> Mapping[str, Tensor]:
        """What the far memory holds of reading ids (N,), or a part from their beginning; empty
        where it reads nothing. ``take_readings`` takes it back, later or elsewhere: names say what
        text and what weights it was made of."""
        return self.attention.readings(as_ids(ids))

    def take_readings(self, readings: Mapping[str, Tensor]) -> None:
        """Hold what ``readings`` gave, so that it is not read again; nothing changes where there
        is no far memory that reads. Errors as for ``attend_far``."""
        if not readings:
            return
        self.attend_far(True)
        memory = self.decoder.far
        if memory is not None and memory.states is not None:
            memory.take(readings)

    def next_logits(self, context: Context) -> Tensor:
        """(vocab_size,) float32: logits of the token after the last one in ``context``.

        ``NazxError`` on an empty context. If the computation is cut short (Ctrl-C, out of
        memory) the context keeps its ids and drops what was derived from them. A context that
        would outgrow the memory limit moves to a smaller layout; ``MemoryLimitError`` where
        there is none, or where the device itself has no more.
        """
        return self.logits_ahead(context, ())[0]

    def logits_ahead(self, context: Context, drafts: Sequence[int]) -> Tensor:
        """The same, and with it those after ``drafts``: see ``AttentionKind.logits_ahead``."""
        self.heed()
        if self._limit is not None:
            self._limit.enforce(context, self.move)
        try:
            return self.attention.logits_ahead(context, drafts)
        except BaseException as error:
            self.move(context, context.layout)
            if is_out_of_memory(error):
                raise MemoryLimitError(
                    f"the device has no memory left for {len(context):,} tokens",
                    "drop a document, use --layout ids or --quantize nf4, or a smaller model",
                ) from error
            raise

    def logits(
        self, ids: Sequence[int] | Tensor, before: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """(T, vocab_size) float32: logits after every position of ids (T,), with ``before`` (N,)
        resident before them."""
        return self.attention.logits(as_ids(ids), None if before is None else as_ids(before))

    def generate(
        self,
        context: Context,
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_ids: frozenset[int] | None = None,
        grounding: Grounding | None = None,
        most_drafts: int = MOST_DRAFTS,
    ) -> Iterator[Step]:
        """Steps of an answer that continues ``context``; see ``engine.generator``."""
        return generate(
            self.logits_ahead,
            self.tokenizer,
            context,
            max_tokens,
            sampling or Sampling(),
            self.tokenizer.stop_ids if stop_ids is None else stop_ids,
            grounding,
            most_drafts if self.attention.runs_ahead else 0,
        )

    def answer_each(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop_ids: frozenset[int] | None = None,
        opening: Opening | None = None,
        grounding: Grounding | None = None,
    ) -> list[Candidate]:
        """One answer for each prompt, or for some of them, side by side: ``engine.generator``."""
        return answer_each(
            self.decoder,
            self.tokenizer,
            prompts,
            max_tokens=max_tokens,
            sampling=sampling or Sampling(),
            stop_ids=self.tokenizer.stop_ids if stop_ids is None else stop_ids,
            opening=opening,
            grounding=grounding,
            on_token=lambda _: self.heed(),
        )
