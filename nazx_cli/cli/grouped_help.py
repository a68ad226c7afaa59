"""``--help`` of a command: many options in groups, and the words that some take explained.

Rich would group them too, but importing it doubles the time of ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from nazx_cli.names import LAYOUTS, READ_MODES, SUMMARIES

_MANY = 12  # options; fewer are found without groups

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Documents": ("--file", "--read", "--summaries", "--no-grounding"),
    "Model": ("--model", "--revision", "--offline", "--adapter", "--system", "--prompt"),
    "Memory": ("--device", "--dtype", "--quantize", "--vram-limit", "--layout", "--ctx"),
    "Sampling": (
        "--max-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--seed",
    ),
    "Output": ("--sources", "--json", "--quiet", "--verbose", "--plain", "--no-gauge"),
    "Session": ("--continue", "--resume", "--session", "--force", "--no-save"),
    "Other": ("--help",),
}
_EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "--read": READ_MODES,
    "--summaries": SUMMARIES,
    "--layout": LAYOUTS,
}


class GroupedCommand(typer.core.TyperCommand):
    """A command that lists its options by groups, where there are many and each has one."""

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
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


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
