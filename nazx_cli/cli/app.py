"""The ``nazx`` program: its commands, and the one place where failures become exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NoReturn

import typer

from nazx_cli import __version__
from nazx_cli.cli import (
    ask,
    bench,
    chat,
    config,
    convert,
    doctor,
    gauge,
    help,
    index,
    play,
    serve,
    sessions,
    vram_estimate,
)
from nazx_cli.cli.judge import command as eval
from nazx_cli.cli.models import choose, listing, manage, push
from nazx_cli.cli.shared.options import flatten
from nazx_cli.cli.shared.parsing import Command, Group
from nazx_cli.cli.training import train, tune
from nazx_cli.errors import NazxError, UsageError, is_out_of_memory, without_credentials
from nazx_cli.ranks import world_size
from nazx_cli.ui.terminal.interrupts import (
    INTERRUPTED,
    TERMINATED,
    TerminatedError,
    interruptible,
)
from nazx_cli.ui.terminal.screen import error_line, show
from nazx_cli.ui.terminal.streams import OutputError, open_streams

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("ask", ask.ask),
    ("chat", chat.chat),
    ("serve", serve.serve),
    ("pull", manage.pull),
    ("ls", listing.ls),
    ("use", choose.use),
    ("show", manage.show),
    ("rm", manage.rm),
    ("verify", manage.verify),
    ("push", push.push),
    ("convert", convert.convert),
    ("quantize", convert.quantize),
    ("vram-estimate", vram_estimate.vram_estimate),
    ("gauge", gauge.gauge),
    ("doctor", doctor.doctor),
    ("bench", bench.bench),
    ("train", train.train),
    ("tune", tune.tune),
    ("eval", eval.evaluate),
    ("play", play.play),
    ("help", help.help_on),
)

GROUPS: tuple[tuple[str, Callable[..., None], tuple[tuple[str, Callable[..., None]], ...]], ...] = (
    ("sessions", sessions.sessions, sessions.COMMANDS),
    ("index", index.index, index.COMMANDS),
    ("config", config.config, config.COMMANDS),
)
"""Commands that have commands of their own; without one the first function is run."""

_NO_MEMORY = 3


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nazx {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Chat locally with documents far bigger than the context window.

    Options can be set by environment variables: --max-tokens by NAZX_MAX_TOKENS.
    """
    # Who mends the file, or reads about it, must not be stopped by it.
    if context.invoked_subcommand not in ("config", "help", None):
        config.apply(context)


def handled(body: Callable[..., None]) -> Callable[..., None]:
    """``body`` with every failure told in a line or two and turned into its exit code."""

    @wraps(body)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            with interruptible():
                body(*args, **kwargs)
                sys.stdout.flush()
        except typer.Exit:
            raise
        # Whatever else comes up is a fault of NazX; a person is not to be shown a traceback.
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_tell(error)) from None

    return command


def _tell(error: BaseException) -> int:
    """Say what happened, in a line; its exit code. Called where ``error`` is being handled."""
    if os.environ.get("NAZX_DEBUG", "") not in ("", "0"):
        import traceback

        print(without_credentials(traceback.format_exc()), end="", file=sys.stderr)
    line, code = _line_of(error)
    if line:
        show(line, sys.stderr)
    return code


def _line_of(error: BaseException) -> tuple[str, int]:
    if isinstance(error, NazxError):
        return error_line(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "", TERMINATED if isinstance(error, TerminatedError) else INTERRUPTED
    if isinstance(error, OutputError):
        line = f"error: cannot write to stdout: {error.reason}; next: look where it goes"
        return (line, 1) if error.reason else ("", 0)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        said = f"{str(error.filename)[:40]}… is too long for the name of a file"
        return error_line(UsageError(said, "check it")), UsageError.exit_code
    if is_out_of_memory(error):
        return (
            "error: there is not enough memory for this model or context; "
            "next: use a smaller model, a smaller --ctx, or --device cpu",
            _NO_MEMORY,
        )
    reason = without_credentials(f"{type(error).__name__}: {error}")
    reason = " ".join(reason.split())[:300]
    return f"internal error: {reason} (NAZX_DEBUG=1 shows the traceback)", 1


def build() -> typer.Typer:
    """The program with all its commands."""
    program = _typer(COMMANDS, no_args_is_help=True)
    program.callback()(handled(_root))
    for name, alone, commands in GROUPS:
        group = _typer(commands)
        group.callback(invoke_without_command=True)(handled(flatten(alone)))
        program.add_typer(group, name=name)
    return program


def _typer(commands: tuple[tuple[str, Callable[..., None]], ...], **settings: Any) -> typer.Typer:
    made = typer.Typer(
        cls=Group,
        rich_markup_mode=None,  # importing Rich would double the time of --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
        **settings,
    )
    for name, command in commands:
        made.command(name, cls=Command)(handled(flatten(command)))
    return made


app = build()


def main() -> None:
    """Run the program on the process's own arguments."""
    open_streams()
    try:
        try:
            app(prog_name="nazx")
        finally:
            sys.stdout.flush()
    except OutputError as error:  # where no command was run, as for --help
        sys.exit(_tell(error))
    except SystemExit as end:
        if world_size() > 1:
            _leave(end)
        raise


def _leave(end: SystemExit) -> NoReturn:
    """End at once: while an interpreter is taken down threads of torch.distributed now and then
    abort the process, and torchrun ends the others for it."""
    sys.stderr.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
