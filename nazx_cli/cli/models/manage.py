"""``nazx pull``, ``show``, ``rm`` and ``verify``: a model of this machine or for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.shared.options import (
    Json,
    ModelArgument,
    Offline,
    Quiet,
    Report,
    Revision,
    Yes,
    confirm,
)
from nazx_cli.errors import ModelUnavailableError, NazxError, UsageError
from nazx_cli.foreign import expanded
from nazx_cli.names import ADAPTER_CONFIG
from nazx_cli.ui.phrases import size_text
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.catalog.stored import Removal


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
        "correction": model.correction() or None,
    }
    came = f", from {origin}" if origin else ""
    report.tell(
        facts,
        f"{model.pinned} is ready: {size_text(nbytes)}{came}",
        note="\n".join(
            filter(None, [model.correction(), f"in {folder}; try: nazx chat -m {model.pinned}"])
        ),
    )


def verify(
    name: ModelArgument, *, revision: Revision = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Check that a model is whole and sound.

    Reads all of it: headers, shapes, every value, the tokenizer, recorded hashes. Leaves with 0
    where all is right, with 5 and the broken file's name where it is not. Takes adapters too.

    Example: nazx verify nazx-1b
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.checkpoint.verify import verify_checkpoint

    report = Report(json=json, quiet=quiet)
    if ((local := expanded(name)) / ADAPTER_CONFIG).is_file():
        from nazx_cli.checkpoint.adapters import verify_adapter

        with report.progress(f"verifying {name}"):
            count, numbers = verify_adapter(local)
        report.tell(
            {"name": name, "path": str(local), "ok": True, "matrices": count, "numbers": numbers},
            f"{name} is whole: an adapter of {count:,} matrices, all values finite",
        )
        return
    model = ModelRef.parse(name, revision)
    folder = model.place()
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


def show(name: ModelArgument, *, revision: Revision = None, json: Json = False) -> None:
    """Show what a model is.

    Architecture, tokens, files, size and source. Uses no network: a model that is not here is
    shown from what NazX knows of it.

    Example: nazx show nazx-1b
    """
    from nazx_cli.catalog.model_ref import ModelRef

    if ((folder := expanded(name)) / ADAPTER_CONFIG).is_file():
        from nazx_cli.checkpoint.adapters import describe_adapter

        facts = describe_adapter(folder)
        shown = [(key, str(value)) for key, value in facts.items() if value is not None]
        Report(json=json).tell(facts, Table(shown))
        return
    facts = ModelRef.parse(name, revision).describe()
    if facts["present"]:
        facts |= _conversation(Path(facts["path"]))
    Report(json=json).tell(facts, Table(_lines(facts)))


def _conversation(folder: Path) -> dict[str, Any]:
    """How a model that is here is asked, where its answers end, and how their tokens are drawn."""
    from nazx_cli.engine.sampling import published_sampling
    from nazx_cli.session.prompt import form_of
    from nazx_cli.session.templating.form import form_of as template_of
    from nazx_cli.session.templating.templates import stop_ids
    from nazx_cli.session.templating.thinking import marks_of
    from nazx_cli.tokenizer import Tokenizer

    tokenizer, drawn = Tokenizer.from_folder(folder), published_sampling(folder)
    template: dict[str, Any] = {"form": form_of(tokenizer)}
    try:
        ends = stop_ids(tokenizer)
        marks = marks_of(tokenizer)
        if tokenizer.chat_template is not None:
            template_of(tokenizer).text(_ASKED, opens=True)  # complains where it cannot be used
            template["characters"] = len(tokenizer.chat_template)
            template["thinks_between"] = [marks.opening, marks.closing] if marks else None
            template["thinking_switch"] = bool(marks) and template_of(tokenizer).has_switch
    except ModelUnavailableError as error:
        ends, template["problem"] = tokenizer.stop_ids, error.message
    return {
        "template": template,
        "stop_tokens": [tokenizer.decode([number], skip_special=False) for number in sorted(ends)],
        "sampling": None
        if drawn is None
        else {k: v for k, v in vars(drawn).items() if k != "seed"},
    }


_ASKED = ({"role": "user", "content": "Who?"},)
_FORMS = {
    "chat": "its own",
    "plain": "none: asked as question and answer",
    "sources": "for numbered sources, by its special tokens",
}


def _template(template: dict[str, Any]) -> str:
    said = [_FORMS[template["form"]]]
    if template["form"] == "chat" and "characters" in template:
        said.append(f"{template['characters']:,} characters")
    if between := template.get("thinks_between"):
        said.append(f"thinks between {between[0]} and {between[1]}")
        said.append("can be told not to" if template["thinking_switch"] else "no switch for that")
    if "problem" in template:
        said.append(template["problem"])
    return ", ".join(said)


def _sampling(drawn: dict[str, Any] | None) -> str:
    if drawn is None:
        return "none is published: the likeliest token"
    values = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in drawn.items())
    return f"{values}; about documents the likeliest token"


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("name", facts["name"])]
    if "description" in facts:
        lines.append(("description", facts["description"]))
    if "licence" in facts:
        lines += _registry_lines(facts)
    lines += _model_lines(facts)
    if facts.get("correction"):
        lines.append(("note", facts["correction"]))
    if "reader" in facts:
        lines.append(("reading adapter", facts["reader"] or "not in this version"))
    if "far_memory" in facts:
        lines.append(("far memory", facts["far_memory"] or "not in this version"))
    if facts["present"]:
        lines.append(("chat template", _template(facts["template"])))
        lines.append(("answers end at", " ".join(facts["stop_tokens"]) or "no token"))
        lines.append(("sampling", _sampling(facts["sampling"])))
        return lines + _file_lines(facts)
    lines.append(("chat template", "yes" if facts["chat_template"] else "no"))
    here = f"no; next: nazx pull {facts['name']}"
    return [*lines, ("sources", ", ".join(facts["sources"])), ("here", here)]


def _registry_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    gated = "; gated: accept it on the Hub and set HF_TOKEN" if facts["gated"] else ""
    return [
        ("good at", facts["good_at"]),
        ("licence", f"{facts['licence']}{gated}"),
        ("download", size_text(facts["download_bytes"])),
        ("quantization", f"{facts['recommended_quantization'] or 'none'} is recommended"),
    ]


def _model_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    heads = f"{facts['heads']} heads of {facts['head_dim']}"
    if facts["kv_heads"] != facts["heads"]:
        heads += f", {facts['kv_heads']} for keys and values"
    tied = "tied" if facts["tied_embeddings"] else "separate"
    rope = facts["rope"]
    scaled = f", {rope['kind']} scaling by {rope['factor']:g}" if "factor" in rope else ""
    return [
        ("architecture", f"{facts['family']}, {facts['layers']} layers"),
        ("parameters", f"{facts['parameters']:,}"),
        ("width", f"{facts['hidden_size']:,}, inner {facts['intermediate_size']:,}"),
        ("attention", f"{_attention(facts['attention'])}; {heads}"),
        ("positions", f"{facts['max_positions']:,}"),
        ("RoPE", f"theta {rope['theta']:g}, {rope['dim']} dimensions of a head{scaled}"),
        ("vocabulary", f"{facts['vocab_size']:,}, embeddings {tied}"),
    ]


def _attention(attention: dict[str, Any]) -> str:
    if attention["kind"] != "windowed":
        seen = attention.get("initial_window", 1)
        states = f", initial states see {seen} tokens" if seen > 1 else ""
        return f"{attention['kind']}{states}"
    return f"windowed, {attention['local_window']:,} and {attention['sink_tokens']} sinks"


def _file_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    source = facts["source"] or "unknown"
    files = (f"{name}  {size:,}" for name, size in facts["files"].items())
    if facts["commit"]:
        source += f" at {facts['commit'][:12]}"
    return [
        ("dtype", facts["dtype"]),
        ("source", source),
        ("size", size_text(facts["bytes"])),
        ("folder", facts["path"]),
        *(("" if at else "files", file) for at, file in enumerate(files)),
    ]


def rm(
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or org/repo.")],
    *,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove models from this machine.

    Those that nazx pull brought; org/repo is removed from the Hub's cache. A converted model may
    share its weights with that cache: their bytes are free once both are removed.

    Example: nazx rm nazx-70m EleutherAI/pythia-70m
    """
    from nazx_cli.catalog.model_ref import ModelRef
    from nazx_cli.catalog.stored import freed_bytes

    removals = [ModelRef.parse(each).removal() for each in dict.fromkeys(name)]
    freed = freed_bytes(removals)
    if not dry_run and not yes:
        names = ", ".join(removal.name for removal in removals)
        confirm(names, f", {size_text(freed)}")
    if not dry_run:
        _execute(removals)
    facts = {
        "removed": [removal.name for removal in removals],
        "paths": [str(folder) for removal in removals for folder in removal.folders],
        "freed_bytes": freed,
        "dry_run": dry_run,
    }
    verb = "would remove" if dry_run else "removed"
    gone = [f"{verb} {each.name}: {', '.join(map(str, each.folders))}" for each in removals]
    freed_text = f"{size_text(freed)} {'would be ' if dry_run else ''}freed"
    Report(json=json).tell(facts, *gone, freed_text, note=_kept_note(removals))


def _execute(removals: Sequence[Removal]) -> None:
    """Remove one after another; where one fails, those before it are told."""
    for number, removal in enumerate(removals):
        try:
            removal.execute()
        except NazxError as error:
            if not number:
                raise
            gone = ", ".join(each.name for each in removals[:number])
            raise NazxError(
                f"{error.message}; {gone} had been removed before", error.hint
            ) from None


def _kept_note(removals: Sequence[Removal]) -> str:
    """What of the removed models stays in the Hub's cache; empty where nothing does."""
    names = {removal.name for removal in removals}
    kept = dict.fromkeys(each.kept for each in removals if each.kept and each.kept not in names)
    repos = " ".join(kept)
    return f"the Hub's cache keeps {repos}; next: nazx rm {repos}" if kept else ""
