"""``nazx quantize``: a checkpoint whose weights are kept in 8 or 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nazx_cli.cli.options import (
    Json,
    Offline,
    OutputOptions,
    Quiet,
    Revision,
    option,
)
from nazx_cli.errors import UsageError
from nazx_cli.names import DTYPES
from nazx_cli.quantization.cost import KINDS


def quantize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name, org/repo or folder.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to make.")],
    kind: Annotated[str, option("--kind", "int8, or nf4 for 4 bits.", choices=KINDS)],
    dtype: Annotated[
        str,
        option(
            "--dtype",
            "Type of what is not quantized: embeddings, output head, norms.",
            choices=DTYPES,
        ),
    ] = "bfloat16",
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at DEST.")] = False,
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
    from nazx_cli.catalog.conversion import quantize_checkpoint
    from nazx_cli.catalog.resolve import resolve_model
    from nazx_cli.catalog.store import checkpoint_bytes
    from nazx_cli.cli.options import make_screen
    from nazx_cli.ui.phrases import size_text

    screen = make_screen(OutputOptions(json=json, quiet=quiet))
    with screen.bar(f"quantizing {source}") as bar:
        bar.start()
        folder = resolve_model(source, revision=revision, offline=offline, on_progress=bar.update)
        made = quantize_checkpoint(
            folder,
            dest,
            kind,
            dtype,
            replace=force,
            on_progress=lambda done, total: bar.update("quantizing", done, total),
        )
    before, after = checkpoint_bytes(folder), checkpoint_bytes(made)
    if json:
        facts = {"source": source, "path": str(made), "kind": kind, "dtype": dtype}
        screen.data({**facts, "bytes": after, "source_bytes": before})
    else:
        screen.line(f"{dest} is ready: {size_text(after)} as {kind}, of {size_text(before)}")
        screen.note(f"try: nazx chat -m {dest if dest.is_absolute() else f'./{dest}'}")
