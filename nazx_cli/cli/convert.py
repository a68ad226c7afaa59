"""``nazx convert`` and ``nazx quantize``: a checkpoint in a folder of the person's choice."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.shared.options import Json, Offline, Quiet, Report, Revision, count_option, option
from nazx_cli.errors import UsageError
from nazx_cli.foreign import expanded
from nazx_cli.names import DEFAULT_SINKS, DTYPES
from nazx_cli.quantization.cost import KINDS
from nazx_cli.ui.phrases import size_text

if TYPE_CHECKING:
    from nazx_cli.config import AttentionConfig

Dest = Annotated[Path, typer.Argument(metavar="DEST", help="Folder to make.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a checkpoint at DEST.")]


_DEQUANTIZED = {"float32": "F32", "bfloat16": "BF16"}


class Attention(str, Enum):
    """The attention kinds that a model can be converted to."""

    inattention = "inattention"
    windowed = "windowed"
    full = "full"


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Name, org/repo, folder or GGUF file.")
    ],
    dest: Dest,
    attention: Annotated[
        Attention | None,
        option(
            "--attention",
            "What a position attends to. Default: windowed, or what a NazX model has.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        count_option(
            "--window",
            "Latest tokens attended to. Default: as many as the model was trained for.",
        ),
    ] = None,
    sinks: Annotated[
        int | None,
        count_option(
            "--sinks",
            f"First tokens always attended to. Default: {DEFAULT_SINKS}.",
            least=0,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        option("--quantize", "Keep the matrices as int8, or nf4 for 4 bits.", choices=KINDS),
    ] = None,
    dtype: Annotated[
        str | None,
        option(
            "--dtype",
            "What quantized tensors of a GGUF file become. Default: float32.",
            choices=tuple(_DEQUANTIZED),
        ),
    ] = None,
    force: Force = False,
    *,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a NazX checkpoint of another model.

    From a model of any supported family, or a GGUF file of one. Weights keep their values: only
    what attends to what changes. Quantized GGUF tensors become float32, which is exact and takes
    much room; with --dtype bfloat16 they take half of it, or with --quantize int8 or nf4 less,
    without a copy of the whole in between. DEST appears once it is whole.

    Example: nazx convert EleutherAI/pythia-160m ./mine --attention windowed --window 1024
    """
    chosen = _attention(attention, window, sinks)
    if dtype and quantize:
        raise UsageError("--dtype and --quantize both say what becomes of tensors", "use one")
    if dtype and not _is_file(source):
        raise UsageError(
            f"{source} is no GGUF file, and only tensors of those change", "leave --dtype out"
        )
    from nazx_cli.checkpoint.checkpoint import folder_bytes
    from nazx_cli.checkpoint.convert import convert_model
    from nazx_cli.checkpoint.write import check_dest
    from nazx_cli.config import ModelConfig

    check_dest(expanded(dest), replace=force)
    report = Report(json=json, quiet=quiet)
    with report.progress(f"converting {source}") as on_progress:
        found, asked = _find(source, revision, offline, on_progress)
        made = convert_model(
            found,
            dest,
            chosen,
            revision=asked,
            quantize=quantize,
            dequantized=_DEQUANTIZED[dtype or "float32"],
            replace=force,
            on_progress=partial(on_progress, "converting"),
        )
    kind = ModelConfig.from_folder(made).attention.to_dict()
    nbytes = folder_bytes(made)
    report.tell(
        {
            "source": source,
            "path": str(made),
            "bytes": nbytes,
            "attention": kind,
            "quantize": quantize,
        },
        f"{dest} is ready: {size_text(nbytes)}, {kind['kind']} attention",
        note=_try(dest),
    )


def _find(
    source: str, revision: str | None, offline: bool, on_progress: Callable[..., None]
) -> tuple[Path, str | None]:
    """The GGUF file or checkpoint folder ``source``, and the revision it was asked for by."""
    from nazx_cli.catalog.model_ref import ModelRef

    if _is_file(source):
        file = expanded(source)
        if not file.is_file():
            raise UsageError(f"there is no file {source}", "check the path")
        if revision:
            raise UsageError(f"{source} is a file, which has no revisions", "leave --revision out")
        return file, None
    model = ModelRef.parse(source, revision)
    return model.fetch(offline=offline, on_progress=on_progress), model.revision


def _is_file(source: str) -> bool:
    """Whether ``source`` is, or by its name would be, a GGUF file; else it is a model."""
    file = expanded(source)
    return file.is_file() or file.suffix.lower() == ".gguf"


def _attention(
    kind: Attention | None, window: int | None, sinks: int | None
) -> AttentionConfig | None:
    """The attention to convert to; None where nothing was asked for."""
    from nazx_cli.config import AttentionConfig

    if window is None and sinks is None and kind is None:
        return None
    if kind not in (None, Attention.windowed):
        if window is not None or sinks is not None:
            raise UsageError(
                "--window and --sinks belong to windowed attention", "leave them out, or the kind"
            )
        return AttentionConfig(kind.value)
    return AttentionConfig("windowed", window or 0, DEFAULT_SINKS if sinks is None else sinks)


def _try(dest: Path) -> str:
    return f"try: nazx chat -m {quote(str(dest) if dest.is_absolute() else f'./{dest}')}"


def quantize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name, org/repo or folder.")],
    dest: Dest,
    kind: Annotated[str, option("--kind", "int8, or nf4 for 4 bits.", choices=KINDS)],
    dtype: Annotated[
        str,
        option(
            "--dtype",
            "Type of what is not quantized: embeddings, output head, norms.",
            choices=DTYPES,
        ),
    ] = "bfloat16",
    force: Force = False,
    *,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep a quantized copy of a model; it loads without the original.

    The matrices of the blocks are quantized by bitsandbytes; the rest stays in --dtype. DEST
    appears once it is whole.

    Example: nazx quantize nazx-smol-135m ./small --kind nf4
    """
    if dtype == "auto":
        raise UsageError("a checkpoint needs one type", "add --dtype bfloat16")
    report = Report(json=json, quiet=quiet)
    report.screen.start_computing()
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.checkpoint.checkpoint import folder_bytes
    from nazx_cli.checkpoint.quantized import quantize_checkpoint

    with report.progress(f"quantizing {source}") as on_progress:
        model = ModelRef.parse(source, revision)
        folder = model.fetch(offline=offline, on_progress=on_progress)
        made = quantize_checkpoint(
            folder,
            dest,
            kind,
            dtype,
            replace=force,
            on_progress=partial(on_progress, "quantizing"),
        )
    before, after = folder_bytes(folder), folder_bytes(made)
    facts = {"source": source, "path": str(made), "kind": kind, "dtype": dtype}
    report.tell(
        {**facts, "bytes": after, "source_bytes": before},
        f"{dest} is ready: {size_text(after)} as {kind}, of {size_text(before)}",
        note=_try(dest),
    )
