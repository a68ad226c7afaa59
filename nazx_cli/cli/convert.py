"""``nazx convert``: any model that NazX can read, as a NazX checkpoint in a folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nazx_cli.cli.options import Json, Offline, OutputOptions, Quiet, Revision, option
from nazx_cli.errors import UsageError

if TYPE_CHECKING:
    from nazx_cli.config import AttentionConfig

_WINDOW, _SINKS = 2048, 4


class Attention(str, Enum):
    """The attention kinds that a model can be converted to."""

    inattention = "inattention"
    windowed = "windowed"
    full = "full"


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Name, org/repo, folder or GGUF file.")
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to make.")],
    attention: Annotated[
        Attention | None,
        option(
            "--attention",
            "What a position attends to. Default: windowed, or what a NazX model has.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        option("--window", f"Latest tokens attended to. Default: {_WINDOW}.", min=1, metavar="N"),
    ] = None,
    sinks: Annotated[
        int | None,
        option(
            "--sinks", f"First tokens always attended to. Default: {_SINKS}.", min=0, metavar="N"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at DEST.")] = False,
    *,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a NazX checkpoint of another model.

    From any GPT-NeoX or Llama model, or a GGUF file of one. Weights keep their values: only what
    attends to what changes. Quantized GGUF tensors become
    float32. DEST appears once it is whole.

    Example: nazx convert EleutherAI/pythia-160m ./mine --attention windowed --window 1024
    """
    chosen = _attention(attention, window, sinks)
    from nazx_cli.catalog.conversion import convert_model
    from nazx_cli.catalog.store import checkpoint_bytes
    from nazx_cli.cli.options import make_screen
    from nazx_cli.config import ModelConfig
    from nazx_cli.ui.phrases import size_text

    screen = make_screen(OutputOptions(json=json, quiet=quiet))
    with screen.bar(f"converting {source}") as bar:
        bar.start()
        made = convert_model(
            source,
            dest,
            chosen,
            revision=revision,
            offline=offline,
            replace=force,
            on_progress=bar.update,
        )
    kind = ModelConfig.from_folder(made).attention.to_dict()
    nbytes = checkpoint_bytes(made)
    if json:
        screen.data({"source": source, "path": str(made), "bytes": nbytes, "attention": kind})
    else:
        screen.line(f"{dest} is ready: {size_text(nbytes)}, {kind['kind']} attention")
        screen.note(f"try: nazx chat -m {dest if dest.is_absolute() else f'./{dest}'}")


def _attention(
    kind: Attention | None, window: int | None, sinks: int | None
) -> AttentionConfig | None:
    """The attention to convert to; None where nothing was asked for."""
    if window is None and sinks is None and kind is None:
        return None
    if (window is not None or sinks is not None) and kind not in (None, Attention.windowed):
        raise UsageError(
            "--window and --sinks belong to windowed attention", "leave them out, or the kind"
        )
    from nazx_cli.config import AttentionConfig

    if kind in (None, Attention.windowed):
        return AttentionConfig(
            "windowed", _WINDOW if window is None else window, _SINKS if sinks is None else sinks
        )
    assert kind is not None
    return AttentionConfig(kind.value)
