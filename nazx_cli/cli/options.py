"""The options that commands share: frozen dataclasses whose fields are command-line options.

Every option ``--some-name`` can also be set by the environment variable ``NAZX_SOME_NAME``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nazx_cli.session.settings import SessionSettings

DEFAULT_MODEL = "nazx-smol-135m"


class ReadMode(str, Enum):
    """How documents reach the model; the same names as ``reading.plan.READ_MODES``, which
    cannot be imported here without numpy."""

    auto = "auto"
    recall = "recall"
    all = "all"
    resident = "resident"
    tail = "tail"


class Dtype(str, Enum):
    """Number formats of weights and arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(str, Enum):
    """How the weights of the blocks are held; the names of ``weights.quantize_cost.KINDS``."""

    int8 = "int8"
    nf4 = "nf4"


def option(flag: str, help: str, *more: str, **settings: Any) -> Any:
    """A Typer option with its environment variable; the help names all of those once."""
    name = flag.split("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(
        flag, *more, envvar=f"NAZX_{name}", show_envvar=False, help=help, **settings
    )


Files = Annotated[
    list[str] | None,
    option(
        "--file",
        "Document to read: a file, folder, glob, or - for stdin. May be repeated.",
        "-f",
        metavar="PATH",
    ),
]


def _go_offline(wanted: bool) -> bool:
    """Tell the Hub's client, which reads its environment only once, when it is imported."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return wanted


Revision = Annotated[
    str | None, option("--revision", "Branch, tag or commit of the model.", metavar="NAME")
]
Offline = Annotated[bool, option("--offline", "Use no network.", callback=_go_offline)]
Json = Annotated[bool, option("--json", "Print JSON.")]
Quiet = Annotated[bool, option("--quiet", "Nothing on stderr but errors.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is held."""

    model: Annotated[str, option("--model", "Name, org/repo or folder.", "-m", metavar="NAME")] = (
        DEFAULT_MODEL
    )
    dtype: Annotated[Dtype, option("--dtype", "Number format of the weights.")] = Dtype.auto
    quantize: Annotated[
        Quantization | None,
        option("--quantize", "Hold the weights in 8 or 4 bits, by bitsandbytes."),
    ] = None
    vram_limit: Annotated[
        str | None,
        option(
            "--vram-limit",
            "Most memory to use, as 8GB. Default: what is free, less a margin.",
            metavar="SIZE",
        ),
    ] = None
    device: Annotated[
        str, option("--device", "auto, cpu, cuda, cuda:N or mps.", metavar="NAME")
    ] = "auto"
    layout: Annotated[
        str, option("--layout", "Memory layout of the context, or auto.", metavar="NAME")
    ] = "auto"
    revision: Annotated[
        str | None, option("--revision", "Branch, tag or commit of the model.", metavar="NAME")
    ] = None
    offline: Annotated[bool, option("--offline", "Use no network.")] = False


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are made."""

    system: Annotated[str | None, option("--system", "System message.", "-s", metavar="TEXT")] = (
        None
    )
    read: Annotated[ReadMode, option("--read", "How documents are read.")] = ReadMode.auto
    max_tokens: Annotated[
        int, option("--max-tokens", "Most tokens of an answer.", min=1, metavar="N")
    ] = 512
    ctx: Annotated[
        int | None, option("--ctx", "Most tokens the context may hold.", min=1, metavar="N")
    ] = None
    temperature: Annotated[
        float, option("--temperature", "0 takes the likeliest token.", metavar="T")
    ] = 0.0
    top_k: Annotated[
        int, option("--top-k", "Draw from the K likeliest; 0: from all.", metavar="K")
    ] = 0
    top_p: Annotated[
        float, option("--top-p", "Draw from the likeliest that sum to P.", metavar="P")
    ] = 1.0
    min_p: Annotated[
        float, option("--min-p", "Leave out below P times the likeliest.", metavar="P")
    ] = 0.0
    repeat_penalty: Annotated[
        float, option("--repeat-penalty", "Above 1 discourages repetition; 1 is off.", metavar="R")
    ] = 1.1
    seed: Annotated[int | None, option("--seed", "Same seed, same answer.", metavar="N")] = None

    def settings(self) -> SessionSettings:
        """The session's settings; ``UsageError`` where a value makes no sense."""
        from nazx_cli.engine.sampling import Sampling
        from nazx_cli.session.settings import SessionSettings

        sampling = Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=self.seed,
        )
        return SessionSettings(
            system=self.system,
            ctx=self.ctx,
            max_tokens=self.max_tokens,
            sampling=sampling,
            read=self.read.value,
        )


@dataclass(frozen=True)
class OutputOptions:
    """What is shown, and where; ``sources`` None means: in a terminal."""

    sources: Annotated[
        bool | None,
        option(
            "--sources/--no-sources",
            "Name the passages an answer was given. Default: in a terminal.",
        ),
    ] = None
    json: Annotated[bool, option("--json", "Print each answer as a JSON object.")] = False
    quiet: Annotated[bool, option("--quiet", "Nothing on stderr but errors.")] = False
    verbose: Annotated[bool, option("--verbose", "Statistics on stderr.")] = False
    plain: Annotated[
        bool, option("--plain", "Show answers as they are, Markdown marks and all.")
    ] = False


@dataclass(frozen=True)
class ChatOptions:
    """Which session a chat goes on with, and whether it is kept; for terminals, the gauge."""

    resume: Annotated[bool, option("--resume", "Go on with the session saved last.")] = False
    session: Annotated[
        str | None,
        option("--session", "Go on with this session, or begin it.", metavar="NAME"),
    ] = None
    force: Annotated[bool, option("--force", "Open the session although its model differs.")] = (
        False
    )
    no_save: Annotated[bool, option("--no-save", "Do not save this chat.")] = False
    no_gauge: Annotated[bool, option("--no-gauge", "Show no gauge of the memory.")] = False
