"""Commands on how answers are made, and by which model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nazx_cli.errors import UsageError
from nazx_cli.ui.commands.command import Argument, Command, Words
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from nazx_cli.ui.chat import Chat


def _set(chat: Chat, words: Words) -> None:
    what, _, rest = words.text.partition(" ")
    rest = rest.strip()
    if what == "system":
        chat.workspace.set_system(rest or None)
        chat.say("The system message is set." if rest else "There is no system message any more.")
        return
    key, _, value = rest.partition(" ") if what == "parameter" else (what, "", rest)
    value = value.strip()
    if not key or not value:
        raise UsageError(
            f"/set needs {'a value' if key else 'a parameter and its value'}",
            "type /set parameter temperature 0.7, or /set system TEXT; /show lists the parameters",
        )
    chat.say(chat.workspace.set_parameter(key, value))


def _show(chat: Chat, _: Words) -> None:
    workspace, lm = chat.workspace, chat.lm
    window = "no limit" if lm.window is None else f"{lm.window:,} tokens"
    weights = lm.quantization or lm.dtype
    rows = [
        ("model", lm.name),
        ("", f"{lm.config.num_parameters:,} weights in {weights} on {lm.device}"),
        ("", f"{lm.config.attention.kind} attention, window {window}, layout {lm.layout}"),
        ("system", workspace.settings.system or "none"),
        *workspace.parameters().items(),
        ("session", chat.autosave.name or "not saved (/save keeps it)"),
        ("branch", _branches(chat)),
        ("turns", str(len(workspace.turns))),
        ("documents", str(len(workspace.documents))),
    ]
    chat.say(Table(rows))


def _branches(chat: Chat) -> str:
    others = [name for name in chat.workspace.branches if name != chat.workspace.branch]
    return chat.workspace.branch + (f" (others: {', '.join(others)})" if others else "")


def _model(chat: Chat, words: Words) -> None:
    found = chat.models.find(words.values[0])
    workspace = chat.workspace
    with chat.screen.bar("tokenizing") as bar:
        anew = workspace.retokenized(found.tokenizer, found.folder, bar.update)
    documents = [anew.get(document, document) for document in workspace.documents]
    lm = chat.models.load(found, documents, workspace.settings.ctx)
    workspace.use_model(lm, anew)
    chat.follow_model()
    chat.done(f"now {lm.name}, the conversation kept,")


COMMANDS = (
    Command(
        ("/set",),
        "set a parameter, or the system message",
        _set,
        (Argument("parameter K V | system TEXT", "setting"),),
        "/set parameter temperature 0.7",
        "/show lists the parameters. /set system without a text takes the message away.",
        raw=True,
    ),
    Command(("/show",), "the model, the settings, the session", _show),
    Command(
        ("/model",),
        "go on with another model",
        _model,
        (Argument("NAME", "model"),),
        "/model nazx-smol-360m",
    ),
)
