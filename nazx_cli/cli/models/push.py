"""``nazx push``: a model or an adapter to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nazx_cli.cli.shared.options import Json, Quiet, Report, option
from nazx_cli.foreign import expanded
from nazx_cli.ui.phrases import counted, size_text


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A checkpoint, or an adapter.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the Hub.")],
    *,
    # Neither is taken from the environment: what others see is said each time.
    public: Annotated[
        bool, typer.Option("--public", help="Let everyone see it. Default: private.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the repository holds of the same name.")
    ] = False,
    licence: Annotated[
        str | None,
        option("--licence", "Add this licence to the card, as apache-2.0.", metavar="ID"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a model or an adapter, with its card, on the Hub.

    Set HF_TOKEN to a token with write access. The folder is verified first; weights, settings,
    tokenizer, card and licence go up, and nothing else. Files that went up whole before a push was
    stopped are not sent again.

    Example: nazx push run/adapter org/my-reader --licence cc-by-sa-4.0
    """
    from nazx_cli.catalog import hub_upload
    from nazx_cli.checkpoint.adapters.folder import CARD_FILE
    from nazx_cli.checkpoint.published import published_files, verify_folder

    report = Report(json=json, quiet=quiet)
    folder = expanded(folder)
    # What is quickly seen comes first: reading all of a model takes minutes.
    found = published_files(folder)
    card = hub_upload.card_with_licence(folder / CARD_FILE, licence)
    hub_upload.check_can_push(repo)
    with report.progress(f"verifying {folder}") as on_progress:
        verify_folder(folder, on_progress)
    files: dict[str, Path | bytes] = {**found, CARD_FILE: card}
    try:
        with report.progress(f"pushing to {repo}") as on_progress:
            pushed = hub_upload.push(
                repo, files, public=public, force=force, on_progress=on_progress
            )
    except KeyboardInterrupt:
        report.screen.note("stopped; nothing was published, what went up whole is not sent again")
        raise
    nbytes = sum(path.stat().st_size for path in found.values())
    facts = {
        "repo": repo,
        "url": pushed.url,
        "commit": pushed.commit,
        "private": pushed.private,
        "created": pushed.created,
        "changed": pushed.changed,
        "files": sorted(files),
        "bytes": nbytes,
    }
    seen = "private" if pushed.private else "public"
    what = f"{counted(len(files), 'file')}, {size_text(nbytes)}, {seen}"
    line = f"{pushed.url} holds {what}" + ("" if pushed.changed else " (as before)")
    stays = f"{repo} is private and stays so; its settings on the Hub change that\n"
    note = stays if public and pushed.private else ""
    report.tell(facts, line, note=f"{note}try: nazx show {repo}")
