"""The package's layout, checked from its source: import order, and who may import what."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import nazx_cli

PACKAGE = Path(nazx_cli.__file__).parent
ORDER = [
    "errors",
    "names",
    "amounts",
    "foreign",
    "ranks",
    "families",
    "config",
    "tokenizer",
    "kernels",
    "documents",
    "context",
    "model",
    "quantization",
    "checkpoint",
    "catalog",
    "memory",
    "engine",
    "reading",
    "index",
    "session",
    "evaluation",
    "training",
    "serving",
    "bench",
    "game",
    "ui",
    "cli",
    "__main__",
]
TERMINAL = {"rich", "prompt_toolkit", "typer", "click"}


@cache
def modules() -> tuple[tuple[Path, ast.Module], ...]:
    return tuple(
        (path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
    )


@cache
def imports(tree: ast.Module) -> tuple[str, ...]:
    """Names of all modules imported anywhere in a file, inside functions too."""
    return tuple(_imports(tree))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    """The first name below the package: ``engine`` of ``nazx_cli.engine.sampling``."""
    return name.split(".")[1]


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    parts = {path.parts[0].removesuffix(".py") for path, _ in modules()} - {"__init__"}
    assert parts <= set(ORDER)


def test_a_part_imports_only_from_those_before_it() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in modules()
        if len(path.parts) > 1 or path.name != "__init__.py"
        for name in imports(tree)
        if name.startswith("nazx_cli.")
        and (other := part(name)) in ORDER
        and ORDER.index(other) > ORDER.index(path.parts[0].removesuffix(".py"))
    ]
    assert wrong == []


def test_only_cli_and_ui_touch_the_terminal() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in modules()
        if path.parts[0] not in ("cli", "ui")
        for name in imports(tree)
        if name.split(".")[0] in TERMINAL
    ]
    assert wrong == []
    printing = [
        str(path)
        for path, tree in modules()
        if path.parts[0] not in ("cli", "ui")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "input")
    ]
    assert printing == []


def test_a_library_is_owned_by_one_package() -> None:
    for library, home in (
        ("huggingface_hub", "catalog"),
        ("bitsandbytes", "quantization"),
        ("triton", "kernels"),
        ("starlette", "serving"),
        ("uvicorn", "serving"),
        ("prompt_toolkit", "ui"),
        ("typer", "cli"),
    ):
        users = {
            path.parts[0]
            for path, tree in modules()
            for name in imports(tree)
            if name.split(".")[0] == library
        }
        assert users <= {home}


def test_typer_is_used_by_its_public_names_only() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in modules()
        for name in imports(tree)
        if name.startswith(("typer._", "click")) or name in ("typer.core", "typer.main")
    ]
    assert wrong == []


def test_files_stay_short_enough_to_read() -> None:
    long = {
        str(path): lines
        for path, _ in modules()
        if (lines := len((PACKAGE / path).read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_folders_hold_few_enough_files_to_find_one() -> None:
    counts = Counter(path.parent for path, _ in modules() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > 14} == {}


def test_the_top_level_holds_what_was_agreed_on() -> None:
    listed = subprocess.run(
        ["git", "-C", str(PACKAGE.parent), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode or "pyproject.toml" not in listed.stdout:
        pytest.skip("not in a checkout")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    agreed = {"nazx_cli", "tests", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
    assert {name for name in top if not name.startswith(".")} == agreed


def test_no_files_import_each_other_in_a_circle() -> None:
    """Of what is imported when a file is; what a function imports later can make no circle."""
    names = {
        ".".join(("nazx_cli", *path.with_suffix("").parts)).removesuffix(".__init__"): tree
        for path, tree in modules()
    }
    after = {
        name: {found for found in imports(ast.Module(_at_import(tree), [])) if found in names}
        for name, tree in names.items()
    }
    left = dict(after)
    while ready := [name for name, found in left.items() if not found & left.keys() - {name}]:
        for name in ready:
            del left[name]
    assert sorted(left) == []


def _at_import(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
