"""Values for every option of every command: on the command line, in the environment, in the file of
defaults; and what the shell asks to complete. Commands and options are those of the program itself,
so a new one is among them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import typer

from fuzz import values
from fuzz.law import MODEL, Case
from fuzz.sessions import saved
from nazx_cli.cli.app import app

_SETTINGS = {
    "NAZX_HOME": "home",
    "HOME": "home",
    "NAZX_MODEL": MODEL,
    "NAZX_MAX_TOKENS": "2",
    "NAZX_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
}
_USUAL = {  # what a command is given where no other value is drawn
    "ask": ("Who saw the fox?",),
    "bench": ("none",),  # no workload: they take long, and say nothing about options
    "train": ("none.txt",),
    "tune": ("none.jsonl",),
    "eval": ("none.jsonl",),
    "convert": (MODEL, "out"),
    "quantize": (MODEL, "out", "--kind", "int8"),
}
_ENDING = {"serve": ("--file", "none.txt")}  # with which a command that would wait does not
_LEFT_OUT = frozenset({"--install-completion", "--show-completion", *values.ENDLESS})


@dataclass(frozen=True)
class _Command:
    """A command by the words that name it, with its arguments and options as Typer has them."""

    words: tuple[str, ...]
    arguments: tuple[Any, ...]
    options: tuple[Any, ...]


@cache
def _commands() -> tuple[_Command, ...]:
    return tuple(_below((), typer.main.get_command(app)))


def _below(words: tuple[str, ...], command: Any) -> Iterator[_Command]:
    options = [each for each in command.params if each.param_type_name == "option"]
    arguments = tuple(each for each in command.params if each.param_type_name == "argument")
    wanted = tuple(each for each in options if not _LEFT_OUT & {*each.opts})
    yield _Command(words, arguments, wanted)
    for name, each in getattr(command, "commands", {}).items():
        yield from _below((*words, name), each)


def cases(rng: random.Random) -> Iterator[Case]:
    """Every option of every command in turn, by itself or with others; then anew."""
    while True:
        turns = [(command, option) for command in _commands() for option in command.options]
        rng.shuffle(turns)
        for command, option in turns:
            yield rng.choice(_WAYS)(rng, command, option)


def _on_the_command_line(rng: random.Random, command: _Command, option: Any) -> Case:
    others = rng.choices(command.options, k=rng.choice((0, 0, 1, 2, 4)))
    typed = [word for each in (option, *others) for word in _typed(rng, each)]
    given = _arguments(rng, command)
    both = [*typed, *given] if rng.random() < 0.7 else [*given, *typed]
    return _case(rng, command, both)


def _in_the_environment(rng: random.Random, command: _Command, option: Any) -> Case:
    case = _case(rng, command, _arguments(rng, command))
    if not option.envvar:
        return case
    value = _value(rng, option).replace("\0", "")
    return replace(
        case, env={**case.env, str(option.envvar): value}, name=f"{option.envvar}: {case.name}"
    )


def _in_the_file(rng: random.Random, command: _Command, option: Any) -> Case:
    """A default for the option, of a type that may be wrong, in TOML that may be wrong."""
    key = option.opts[0].lstrip("-")
    value = _value(rng, option)
    written = rng.choice((value, json.dumps(value), json.dumps([value, value]), "true", "{}"))
    line = f"{rng.choice((key, key, key, json.dumps(_text(rng))))} = {written}\n"
    case = _case(rng, command, _arguments(rng, command))
    files = {**case.files, "home/config.toml": line.encode("utf-8", "surrogateescape")}
    env = {name: each for name, each in case.env.items() if name != option.envvar}
    return replace(case, files=files, env=env, name=f"{key} in the file: {case.name}")


def _completed(rng: random.Random, command: _Command, option: Any) -> Case:
    words = ["nazx", *command.words, option.opts[0], _value(rng, option)]
    env = {"_NAZX_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words).replace("\0", "")}
    env["COMP_CWORD"] = rng.choice((str(len(words) - 1), str(len(words)), "1", "0"))
    case = _case(rng, replace(command, words=()), [])
    return replace(case, argv=(), env={**case.env, **env}, name="completion")


_WAYS = (_on_the_command_line,) * 4 + (_in_the_environment,) * 2 + (_in_the_file, _completed)


def _case(rng: random.Random, command: _Command, rest: list[str]) -> Case:
    argv = (*command.words, *rest)
    stdin = "\n".join(_text(rng) for _ in range(rng.choice((0, 1, 3))))
    return Case(
        " ".join(command.words) or "nazx",
        argv,
        {**values.FILES, "home/sessions/work.nazx": saved(0)},
        stdin.encode("utf-8", "surrogateescape"),
        _SETTINGS,
        values.prepare,
        # A command may write what it is told to.
        may_change=("home", "out", ".out.lock", *(word for word in rest if word in values.FILES)),
        may_add=True,
    )


def _arguments(rng: random.Random, command: _Command) -> list[str]:
    """Mostly what the command needs; else values that are drawn, too many or too few."""
    name = " ".join(command.words)
    if name in _ENDING:
        return list(_ENDING[name])
    usual = _USUAL.get(name)
    if usual is not None and rng.random() < 0.7:
        return list(usual)
    if rng.random() < 0.1:
        return [_text(rng) for _ in range(rng.randrange(3))]
    found = []
    for each in command.arguments:
        for _ in range(1 if each.nargs == 1 else rng.choice((1, 1, 3))):
            found.append(_argument(rng, command, each))
    return found


def _argument(rng: random.Random, command: _Command, argument: Any) -> str:
    if argument.name == "dest":  # the one folder that a command may replace
        return rng.choice(("out", "folder/out", "a.txt/out", "\x1b[2J"))
    usual = {"ls": "", "sessions": "work", "config": "max-tokens"}.get(command.words[0], MODEL)
    return usual if rng.random() < 0.5 else values.anything(rng, str(argument.name))


def _typed(rng: random.Random, option: Any) -> list[str]:
    name = rng.choice((*option.opts, *option.secondary_opts))
    if option.is_flag:
        return [name] if rng.random() < 0.95 else [f"{name}={_text(rng)}"]
    value = _value(rng, option)
    return [f"{name}={value}"] if name.startswith("--") and rng.random() < 0.5 else [name, value]


def _value(rng: random.Random, option: Any) -> str:
    """A value of the kind that the option takes, or of any other."""
    name, shown = option.opts[0].lstrip("-"), str(option.metavar or "")
    if option.is_flag:
        return rng.choice(("1", "0", "true", "no", "", "2", "nan", "\x1b[2J"))
    if rng.random() < 0.2:
        return values.anything(rng, name)
    if "|" in shown:
        return rng.choice((*shown.strip("<>").split("|"), "", "AUTO", _text(rng)))
    if shown in ("PATH", "FILE", "FOLDER", "DIR"):
        return values.path(rng)
    if shown in ("NAME", "TEXT", "WORD", "TAG"):
        return rng.choice((MODEL, "work", "auto", _text(rng), _text(rng)))
    return values.number(rng, name)


def _text(rng: random.Random) -> str:
    return values.text(rng)
