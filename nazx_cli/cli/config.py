"""``nazx config``: defaults for options, kept in a file, and prompts that have names.

The file is TOML: ``model = "nazx-smol-360m"``, a line for each option, named as on the command line
without the dashes before it. A flag beats the environment, which beats the file.
"""

from __future__ import annotations

import json as _json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nazx_cli.cli.shared.options import Json, Report
from nazx_cli.errors import NazxError, UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_T = TypeVar("_T")
_SUFFIX = ".txt"
_EXAMPLE = "nazx config set model nazx-smol-360m"


def folder() -> Path:
    """``NAZX_HOME``, else ``nazx`` in the platform's folder for settings."""
    from nazx_cli.catalog.stored import nazx_home

    chosen = os.environ.get("XDG_CONFIG_HOME")
    if os.environ.get("NAZX_HOME") or sys.platform in ("darwin", "win32"):
        return nazx_home()
    # The XDG specification has relative values ignored.
    base = Path(chosen) if chosen and Path(chosen).is_absolute() else Path.home() / ".config"
    return base / "nazx"


def _file() -> Path:
    return folder() / "config.toml"


def read() -> dict[str, Any]:
    """What the file says; ``UsageError`` where it cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib  # quicker: every command reads this

        return _parsed(tomllib.loads)
    return _document().unwrap()


def _document() -> TOMLDocument:
    """The file, to be changed, all else of it kept as it stands; errors as ``read``."""
    import tomlkit

    return _parsed(tomlkit.parse)


def _parsed(parse: Callable[[str], _T]) -> _T:
    """The file by ``parse``; one that is not there is empty."""
    path = _file()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return parse("")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}", "mend it, or remove it") from None


def apply(context: typer.Context) -> None:
    """Make the file's values the defaults of all commands' options, beneath the environment."""
    values = read()
    if not values:
        return
    commands = _commands(context)
    for key, value in values.items():
        try:
            _check(context, commands, key, value)
        except UsageError as error:
            raise UsageError(f"{_file()}: {error.message}", f"nazx config unset {key}") from None
    context.default_map = {
        name: {
            parameter.name: _fitted(parameter, values[key])
            for key, parameter in parameters.items()
            if key in values
        }
        for name, parameters in commands.items()
    }


def _commands(context: typer.Context) -> dict[str, dict[str, Any]]:
    """Each command's options that can have a default here: those with a variable of their own."""
    found: dict[str, dict[str, Any]] = {}
    for name, command in context.find_root().command.commands.items():  # type: ignore[attr-defined]
        found[name] = {
            str(parameter.envvar).removeprefix("NAZX_").replace("_", "-").lower(): parameter
            for parameter in command.params
            if getattr(parameter, "envvar", None)
        }
    return found


def _check(
    context: typer.Context, commands: Mapping[str, Mapping[str, Any]], key: str, value: Any
) -> None:
    """``UsageError`` for an option that there is not and a value that no command takes."""
    owners = [parameters[key] for parameters in commands.values() if key in parameters]
    if not owners:
        from difflib import get_close_matches

        near = get_close_matches(key, {key for each in commands.values() for key in each}, n=1)
        hint = f"did you mean {near[0]}?" if near else f"as in: {_EXAMPLE}"
        raise UsageError(f"there is no option {key!r} to set a default for", hint)
    problem = ""
    for parameter in owners:
        try:
            parameter.process_value(context, _fitted(parameter, value))
            return
        except typer.BadParameter as error:
            problem = error.message
    raise UsageError(f"{key} cannot be {value!r}: {problem}", "see nazx config list")


def _fitted(parameter: Any, value: Any) -> Any:
    """``value`` in the form in which an option takes a default."""
    if getattr(parameter, "is_flag", False):
        return value if isinstance(value, bool) else str(value)
    values = value if isinstance(value, list) else [value]
    texts = [str(each) for each in values]
    return texts if parameter.multiple else " ".join(texts)


def _typed(parameter: Any, text: str) -> Any:
    """What was typed, as it stands in the file."""
    if getattr(parameter, "is_flag", False):
        return {"true": True, "false": False}.get(text.lower(), text)
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text:
            return number
    return text


def _write(document: TOMLDocument) -> None:
    from nazx_cli.checkpoint.atomic import write_whole

    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, document.as_string())
    except OSError as error:
        raise NazxError(
            f"{path} cannot be written: {error.strerror or error}", "look at the folder"
        ) from None


def _canonical(key: str) -> str:
    return key.removeprefix("--").replace("_", "-").lower()


Key = Annotated[str, typer.Argument(metavar="OPTION", help="As max-tokens.")]


def config(context: typer.Context, *, json: Json = False) -> None:
    """Keep defaults for options: a flag beats the environment, which beats these.

    Example: nazx config set model nazx-smol-360m
    """
    if context.invoked_subcommand is None:
        list_all(json=json)


def list_all(*, json: Json = False) -> None:
    """List the defaults that are set.

    Example: nazx config list
    """
    from nazx_cli.ui.terminal.tables import Table

    values = read()
    rows = [(key, _json.dumps(value, ensure_ascii=False)) for key, value in values.items()]
    note = "" if rows else f"no default is set yet; next: {_EXAMPLE}"
    Report(json=json).tell(values, *([Table(rows)] if rows else []), note=note)


def get(key: Key, *, json: Json = False) -> None:
    """Print a default.

    Example: nazx config get model
    """
    values = read()
    key = key if key in values else _canonical(key)
    if key not in values:
        raise UsageError(f"no default is set for {key}", f"as in: {_EXAMPLE}")
    Report(json=json).tell({key: values[key]}, str(values[key]))


def set_one(
    context: typer.Context,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="What it is to be.")],
) -> None:
    """Set a default for an option, of all commands that have it.

    Example: nazx config set model nazx-smol-360m
    """
    key, commands = _canonical(key), _commands(context)
    owner = next((each[key] for each in commands.values() if key in each), None)
    typed = value if owner is None else _typed(owner, value)
    _check(context, commands, key, typed)
    keep(key, typed)


def keep(key: str, value: Any) -> None:
    """Write a default down; errors as ``read``."""
    document = _document()
    document[key] = value
    _write(document)


def unset(key: Key) -> None:
    """Take a default away.

    Example: nazx config unset model
    """
    document = _document()
    key = key if key in document else _canonical(key)  # somebody may have typed it in
    if key not in document:
        raise UsageError(f"no default is set for {key}", "list them: nazx config list")
    del document[key]
    _write(document)


def path() -> None:
    """Print where the file is.

    Example: nazx config path
    """
    Report(json=False).tell(None, str(_file()))


def prompt_names() -> list[str]:
    """Names of the prompts that are kept."""
    return sorted(each.stem for each in (folder() / "prompts").glob(f"[!.]*{_SUFFIX}"))


def prompt(name: str) -> str:
    """The prompt called ``name``; ``UsageError`` where there is none."""
    place = folder() / "prompts"
    if name not in prompt_names():
        known = ", ".join(prompt_names()) or "none yet"
        raise UsageError(f"there is no prompt {name!r} in {place}", f"there are: {known}")
    try:
        return (place / f"{name}{_SUFFIX}").read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"the prompt {name} cannot be read: {reason}", f"look in {place}"
        ) from None


def prompts(*, json: Json = False) -> None:
    """List the prompts for nazx ask --prompt NAME: text files that you put into their folder.

    Example: nazx config prompts
    """
    names, place = prompt_names(), folder() / "prompts"
    Report(json=json).tell(names, *names, note=f"a prompt is a file NAME{_SUFFIX} in {place}")


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("list", list_all),
    ("get", get),
    ("set", set_one),
    ("unset", unset),
    ("path", path),
    ("prompts", prompts),
)
