"""``nazx pull`` and ``nazx verify``: a model on to this machine, and whether it is sound."""

from __future__ import annotations

from typing import Annotated

import typer

from nazx_cli.cli.options import Json, Offline, Quiet, Revision
from nazx_cli.cli.report import ModelName, Report
from nazx_cli.errors import ModelUnavailableError, UsageError


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or org/repo.")],
    *,
    revision: Revision = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model, or the newest version of one that is there.

    Only what NazX needs comes down, and never a pickle. A pull that was stopped goes on where it
    was. Set HF_TOKEN for private and gated models.

    Example: nazx pull nazx-smol-360m
    """
    from nazx_cli.catalog.model_ref import LocalModel, ModelRef
    from nazx_cli.checkpoint.checkpoint import folder_bytes
    from nazx_cli.checkpoint.write import Origin
    from nazx_cli.ui.phrases import size_text

    model = ModelRef.parse(name, revision)
    if isinstance(model, LocalModel):
        raise UsageError(
            f"{name} is a folder on this machine already", f"use it: nazx chat -m {name}"
        )
    report = Report(json=json, quiet=quiet)
    with report.progress(f"pulling {name}") as on_progress:
        folder = model.fetch(offline=offline, refresh=True, on_progress=on_progress)
    origin = Origin.of(folder)
    nbytes = folder_bytes(folder)
    facts = {
        "name": model.name,
        "path": str(folder),
        "bytes": nbytes,
        "source": origin.source if origin else None,
        "revision": model.revision,
        "commit": origin.commit if origin else None,
    }
    came = f", from {origin}" if origin else ""
    report.tell(
        facts,
        f"{model.pinned} is ready: {size_text(nbytes)}{came}",
        note=f"in {folder}; try: nazx chat -m {model.pinned}",
    )


def verify(
    name: ModelName,
    *,
    revision: Revision = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that a model is whole and sound.

    Reads all of it: headers, shapes, every value, the tokenizer, recorded hashes. Leaves with 0
    where all is right, with 5 and the broken file's name where it is not.

    Example: nazx verify nazx-1b
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.checkpoint.verify import verify_checkpoint
    from nazx_cli.ui.phrases import size_text

    model = ModelRef.parse(name, revision)
    folder = model.place()
    report = Report(json=json, quiet=quiet)
    facts = {"name": name, "path": str(folder)}
    try:
        with report.progress(f"verifying {name}") as on_progress:
            found = verify_checkpoint(folder, on_progress)
    except ModelUnavailableError as error:
        hint = model.repair_command()
        report.tell(facts | {"ok": False, "problem": error.message, "next": hint})
        raise ModelUnavailableError(error.message, hint) from None
    hashes = f"hashes of files that match: {found.hashed}"
    if found.unhashed:
        hashes += f"; none is known for {', '.join(found.unhashed)}"
    sound = {"ok": True, "tensors": found.tensors, "bytes": found.nbytes}
    report.tell(
        facts | sound | {"hashed_files": found.hashed},
        f"{name} is whole: {found.tensors:,} tensors, {size_text(found.nbytes)}, "
        f"all values finite; {hashes}",
    )
