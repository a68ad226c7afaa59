"""``nazx show``: what a model is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nazx_cli.cli.options import Json, OutputOptions, Revision


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, org/repo or folder.")],
    *,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Show what a model is.

    Architecture, tokens, files, size and source. Uses no network: a model that is not here is
    shown from what NazX knows of it.

    Example: nazx show nazx-1b
    """
    from nazx_cli.catalog.describe import describe_model
    from nazx_cli.cli.options import make_screen
    from nazx_cli.ui.phrases import columns

    screen = make_screen(OutputOptions(json=json))
    facts = describe_model(name, revision)
    if json:
        screen.data(facts)
    else:
        screen.line(columns(_lines(facts)))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("name", facts["name"])]
    if "description" in facts:
        lines.append(("description", facts["description"]))
    lines += _model_lines(facts)
    lines.append(("chat template", "yes" if facts["chat_template"] else "no"))
    return lines + (_file_lines(facts) if facts["present"] else _absent_lines(facts))


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
        return str(attention["kind"])
    return f"windowed, {attention['local_window']:,} and {attention['sink_tokens']} sinks"


def _file_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from nazx_cli.ui.phrases import size_text

    source = facts["source"] or "unknown"
    if facts["commit"]:
        source += f" at {facts['commit'][:12]}"
    files = [(name, size) for name, size in facts["files"].items()]
    return [
        ("stop tokens", " ".join(facts["stop_tokens"]) or "none"),
        ("dtype", facts["dtype"]),
        ("source", source),
        ("size", size_text(facts["bytes"])),
        ("folder", facts["path"]),
        *(("" if at else "files", f"{name}  {size:,}") for at, (name, size) in enumerate(files)),
    ]


def _absent_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("sources", ", ".join(facts["sources"])),
        ("here", f"no; next: nazx pull {facts['name']}"),
    ]
