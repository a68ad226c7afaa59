"""What commands share: options, as fields of frozen dataclasses, and the report of what was found.

Every option ``--some-name`` but those that confirm or overwrite can also be set by the environment
variable ``NAZX_SOME_NAME``.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from nazx_cli.amounts import parse_bytes, parse_count
from nazx_cli.documents.control import strip_control
from nazx_cli.errors import UsageError
from nazx_cli.names import (
    DEFAULT_MODEL,
    DEVICES,
    DTYPES,
    LAYOUTS,
)
from nazx_cli.quantization.cost import KINDS
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.terminal.tables import Table

_SHOWN_WORDS = 24  # cells of words behind a flag, with the bars between them


def option(flag: str, help: str, *more: str, choices: Iterable[str] = (), **settings: Any) -> Any:
    """A Typer option with its environment variable; the help names all of those once.

    With ``choices`` it takes one of these words and no other; of a mapping each has a line of
    its own in the help (``parsing``), else they stand behind the flag, or many of them below.
    """
    if words := tuple(choices):
        settings["parser"] = lambda typed: _one_of(words, typed)
        settings["autocompletion"] = lambda: list(words)
        settings["metavar"] = f"<{'|'.join(words)}>"
        if isinstance(choices, Mapping) or len(settings["metavar"]) > _SHOWN_WORDS:
            settings["metavar"] = "WORD"
            help += "" if isinstance(choices, Mapping) else f" One of {', '.join(words)}."
    name = flag.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(
        flag, *more, envvar=f"NAZX_{name}", show_envvar=False, help=help, **settings
    )


def count_option(flag: str, help: str, *more: str, least: int = 1, **settings: Any) -> Any:
    """An option that takes a number of things, as people write it: ``100k``, ``100,000``."""

    count = _checked(lambda typed: parse_count(typed, least))
    return option(flag, help, *more, parser=count, metavar="N", **settings)


def size_option(flag: str, help: str, **settings: Any) -> Any:
    """An option that takes a number of bytes, as people write it: ``8GB``."""
    return option(flag, help, parser=_checked(parse_bytes), metavar="SIZE", **settings)


def _checked(parse: Callable[[str], int]) -> Callable[[object], int]:
    """``parse`` for the option parser, which tells what is wrong in its own way."""

    def checked(typed: object) -> int:
        try:
            return parse(str(typed))  # a default comes as the number it is
        except UsageError as error:
            raise typer.BadParameter(f"{error.message}: {error.hint}") from None

    return checked


def _device(typed: str) -> str:
    """A device's name; whether this machine has it is told where it is used."""
    return typed if re.fullmatch(r"cuda:\d+", typed) else _one_of(DEVICES, typed)


def _one_of(words: Sequence[str], typed: str) -> str:
    if typed not in words:
        raise typer.BadParameter(f"{typed!r} is not one of {', '.join(map(repr, words))}")
    return typed


Files = Annotated[
    list[str] | None,
    option(
        "--file",
        "Document to read: a file, folder, glob, URL, or - for stdin. May be repeated.",
        "-f",
        metavar="PATH",
    ),
]


def _go_offline(wanted: bool) -> bool:
    """Tell the Hub's client, which reads its environment only once, when it is imported."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return wanted


def model_names() -> list[str]:
    """Names of the models that NazX knows or has converted, for completion."""
    from nazx_cli.catalog.registry import Registry
    from nazx_cli.catalog.stored import models_folder

    folder = models_folder()
    here = (each.name for each in folder.glob("[!.]*")) if folder.is_dir() else ()
    return sorted({*Registry.load().names, *here})


ModelArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name, org/repo or folder.", autocompletion=model_names),
]
ModelName = Annotated[
    str,
    option(
        "--model", "Name, org/repo or folder.", "-m", metavar="NAME", autocompletion=model_names
    ),
]
Device = Annotated[
    str,
    option(
        "--device",
        "auto, cpu, cuda, cuda:N or mps.",
        parser=_device,
        metavar="NAME",
        autocompletion=lambda: list(DEVICES),
    ),
]
VramLimit = Annotated[
    int | None,
    size_option(
        "--vram-limit", "Most memory to use, as 8GB. Default: what is free, less a margin."
    ),
]
Revision = Annotated[
    str | None, option("--revision", "Branch, tag or commit of the model.", metavar="NAME")
]
Offline = Annotated[bool, option("--offline", "Use no network.", callback=_go_offline)]
Json = Annotated[bool, option("--json", "Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Quiet = Annotated[bool, option("--quiet", "Nothing on stderr but errors.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is held."""

    model: ModelName = DEFAULT_MODEL
    dtype: Annotated[str, option("--dtype", "Number format of the weights.", choices=DTYPES)] = (
        "auto"
    )
    quantize: Annotated[
        str | None,
        option("--quantize", "Hold the weights in 8 or 4 bits, by bitsandbytes.", choices=KINDS),
    ] = None
    vram_limit: VramLimit = None
    device: Device = "auto"
    layout: Annotated[
        str,
        option("--layout", "Memory layout of the context.", choices=LAYOUTS),
    ] = "auto"
    revision: Revision = None
    offline: Offline = False
    adapter: Annotated[
        str | None,
        option(
            "--adapter",
            "Folder of an adapter, or none. Default: the model's own, where documents are asked "
            "about.",
            metavar="NAME",
        ),
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """What is shown, and where; ``sources`` None means: in a terminal."""

    sources: Annotated[
        bool | None,
        option(
            "--sources/--no-sources",
            "Name passages that the model was given. Default: in a terminal.",
        ),
    ] = None
    json: Annotated[bool, option("--json", "Print each answer as a JSON object.")] = False
    quiet: Quiet = False
    verbose: Annotated[bool, option("--verbose", "Statistics on stderr.")] = False
    plain: Annotated[
        bool, option("--plain", "Show answers as they are, Markdown marks and all.")
    ] = False


def session_names() -> list[str]:
    """Names of the saved sessions, for completion."""
    from nazx_cli.catalog.stored import nazx_home
    from nazx_cli.session.saving.store import Store

    return Store(nazx_home() / "sessions").names()


SessionName = Annotated[
    str | None,
    option(
        "--session",
        "Go on with this session, or begin it.",
        metavar="NAME",
        autocompletion=session_names,
    ),
]
Force = Annotated[bool, option("--force", "Open the session although its model differs.")]


@dataclass(frozen=True)
class AskOptions:
    """Which session a question goes on with, if any, and by which prompt it is asked."""

    go_on: Annotated[bool, option("--continue", "Go on with the session saved last.")] = False
    session: SessionName = None
    force: Force = False
    prompt: Annotated[
        str | None,
        option("--prompt", "Ask with this prompt; see nazx config prompts.", metavar="NAME"),
    ] = None


@dataclass(frozen=True)
class ChatOptions:
    """Which session a chat goes on with, and whether it is kept; for terminals, the gauge."""

    resume: Annotated[bool, option("--resume", "Go on with the session saved last.")] = False
    session: SessionName = None
    force: Force = False
    no_save: Annotated[bool, option("--no-save", "Do not save this chat.")] = False
    no_gauge: Annotated[bool, option("--no-gauge", "Show no gauge of the memory.")] = False


def flatten(body: Callable[..., None]) -> Callable[..., None]:
    """``body`` with each parameter that is an options dataclass spread into its fields."""
    hints = get_type_hints(body, include_extras=True)
    groups: dict[str, type] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(body).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[name] = kind
            flat += _spread(kind)
        else:
            flat.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(body)
    def command(**values: Any) -> None:
        built = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        body(**values, **built)

    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    del command.__wrapped__  # else Typer looks through to the body
    return command


def _spread(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def make_screen(options: OutputOptions) -> Screen:
    """The process's own streams, with what the options ask for."""
    return Screen(
        sys.stdout,
        sys.stderr,
        quiet=options.quiet,
        verbose=options.verbose,
        sources=options.sources,
        plain=options.plain,
    )


def confirm(names: str, more: str = "") -> None:
    """Ask whether to remove ``names``; leave where the answer is not yes.

    ``UsageError`` where there is nobody to ask.
    """
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError(
            f"removing {names} needs a yes, and there is no terminal to ask on", "add --yes"
        )
    question = strip_control(f"remove {names}{more}? [y/N] ")
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing was removed", file=sys.stderr)
        raise typer.Exit(1)


class Report:
    """Tells what a command that is no chat has found: as one JSON value, or in lines.

    ``quiet`` leaves progress and notes out.
    """

    def __init__(self, *, json: bool, quiet: bool = False) -> None:
        self.json = json
        self.screen = make_screen(OutputOptions(json=json, quiet=quiet))

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[..., None]]:
        """What to call with (stage, done, in all), or with the last two, while the body runs.

        Where no bar can be drawn ``label`` is a line of its own, but not for scripts (--json).
        """
        with self.screen.bar(label) if self.json else self.screen.long_work(label) as bar:
            bar.start()
            yield bar.update

    def tell(self, facts: Any, *lines: str | Table, note: str = "") -> None:
        """``facts`` with --json; for a person ``lines`` on stdout and ``note`` on stderr."""
        if self.json:
            self.screen.data(facts)
            return
        for line in lines:
            self.screen.line(line)
        if note:
            self.screen.note(note)
