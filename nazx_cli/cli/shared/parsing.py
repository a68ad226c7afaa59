"""What the option parser tells: help in the width there is, many options in groups and the words
that some take explained; and in one line what is wrong with what was typed.

Rich would group options too, but importing it doubles the time of ``--help``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer

from nazx_cli.errors import UsageError
from nazx_cli.names import INDEXING, LAYOUTS, READ_MODES, SUMMARIES, THINKING
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.terminal.streams import columns_of

_MANY = 12  # options; fewer are found without groups
_WIDEST, _NARROW = 120, 60  # cells of a line of help

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Documents": (
        *("--file", "--read", "--summaries", "--no-grounding"),
        *("--index", "--index-size"),
    ),
    "Model": ("--model", "--revision", "--offline", "--adapter", "--system", "--prompt"),
    "Memory": ("--device", "--dtype", "--quantize", "--vram-limit", "--layout", "--ctx"),
    "Sampling": (
        "--max-tokens",
        "--think",
        "--max-thinking",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--seed",
    ),
    "Output": ("--sources", "--json", "--quiet", "--verbose", "--plain", "--no-gauge"),
    "Session": ("--continue", "--resume", "--session", "--force", "--no-save"),
    "Several processes": ("--block", "--split-weights"),
    "Server": ("--host", "--port", "--api-key", "--queue", "--max-file"),
    "Other": ("--help",),
}
_EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "--read": READ_MODES,
    "--index": INDEXING,
    "--summaries": SUMMARIES,
    "--layout": LAYOUTS,
    "--think": THINKING,
}


class Command(typer.core.TyperCommand):
    """A command that lists its options by groups, where there are many and each has one.

    Of an option that may be repeated the environment has one value a line: names have spaces.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        each: Any
        for each in self.params:
            if getattr(each, "multiple", False):
                each.value_from_envvar = partial(_lines, each)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart."""
        with _in_one_line(ctx):
            return list(super().parse_args(ctx, args))

    def get_help(self, ctx: Any) -> str:
        """What ``--help`` prints."""
        ctx.terminal_width = _help_width()
        return str(super().get_help(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments and one for each group."""
        arguments: list[tuple[str, str]] = []
        options: dict[str, tuple[str, str]] = {}
        for each in self.get_params(ctx):
            if (record := each.get_help_record(ctx)) is None:
                continue
            if each.param_type_name == "argument":
                # Its record names the Python type too.
                arguments.append((record[0].partition(" <")[0], record[1]))
            else:
                options[max(each.opts, key=len)] = record
        for title, rows in {"Arguments": arguments, **_sections(options)}.items():
            _write(title, rows, formatter)


class Group(typer.core.TyperGroup):
    """Commands under one name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the options before the command's name apart."""
        if not args and self.no_args_is_help:
            return list(super().parse_args(ctx, args))  # what it raises prints the help
        with _in_one_line(ctx):
            return list(super().parse_args(ctx, args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named."""
        with _in_one_line(ctx):
            return super().resolve_command(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """What ``--help`` prints."""
        ctx.terminal_width = _help_width()
        return str(super().get_help(ctx))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the commands, what each is for in full."""
        _write(
            "Commands",
            [(n, c.get_short_help_str(200)) for n, c in self.commands.items()],
            formatter,
        )


def _lines(parameter: Any, ctx: Any) -> list[str] | None:
    """What the environment has for ``parameter``, which else would be split at its spaces."""
    value = parameter.resolve_envvar_value(ctx)
    return None if value is None else [each for each in value.splitlines() if each.strip()]


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    """Have what is wrong with the command line told as every other mistake is."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "format_message"):  # of a class that Typer does not make public
            raise
        message = error.format_message().rstrip(".")
        Screen(sys.stdout, sys.stderr).error(UsageError(message, f"{ctx.command_path} --help"))
        raise typer.Exit(getattr(error, "exit_code", 2)) from None


def _help_width() -> int | None:
    """Cells for a line of help; None where there is no terminal: as the parser has it."""
    width = columns_of(sys.stdout)
    return None if width is None else min(width, _WIDEST) - 2


def _write(title: str, rows: Sequence[tuple[str, str]], formatter: Any) -> None:
    """A section of names and what they mean, beside them or, where it is narrow, below."""
    if rows:
        longest = max(len(name) for name, _ in rows)
        is_narrow = formatter.width < _NARROW and longest > formatter.width // 2
        with formatter.section(title):
            formatter.write_dl(rows, col_max=2 if is_narrow else 30)


def _sections(options: Mapping[str, tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    known = {flag for flags in _GROUPS.values() for flag in flags}
    if len(options) <= _MANY or not options.keys() <= known:
        return {"Options": [row for each in options.items() for row in _rows(*each)]}
    return {
        title: [row for flag in flags if flag in options for row in _rows(flag, options[flag])]
        for title, flags in _GROUPS.items()
    }


def _rows(flag: str, record: tuple[str, str]) -> list[tuple[str, str]]:
    words = _EXPLAINED.get(flag, {})
    return [record, *((f"  {word}", meaning) for word, meaning in words.items())]
