"""Help and completion: what they say, and that they take no time."""

from __future__ import annotations

import io
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from typer.testing import CliRunner

from nazx_cli import __version__, names
from nazx_cli.cli import app as app_module
from nazx_cli.ui import topics

HEAVY = ("torch", "tokenizers", "huggingface_hub", "numpy", "gguf", "rich", "prompt_toolkit")


def test_help_names_the_commands() -> None:
    out, err, code = nazx("--help")
    assert (code, err) == (0, "")
    for name, _ in app_module.COMMANDS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", ["ask", "chat"])
def test_every_option_of_a_conversation_has_an_environment_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, code = nazx(name, "--help")
    assert code == 0
    for option in ("--model", "--file", "--system", "--ctx", "--max-tokens", "--read", "--json"):
        assert option in out
    monkeypatch.setenv("NAZX_MAX_TOKENS", "many")
    assert nazx(name, "hello")[2] == 2


def test_help_on_a_topic_is_markdown_in_a_pipe_and_rendered_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(app_module.__file__).parent.parent / "help"
    files = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert {"chat", "memory", "models", "reading"} <= set(files)
    out, err, code = nazx("help")
    assert (code, err) == (0, "")
    for name, text in files.items():
        heading = text.partition("\n")[0].partition(": ")[2]
        assert heading and f"{heading}\n" in out
        assert nazx("help", name) == (text, "", 0)
    _, err, code = nazx("help", "nothing")
    assert code == 2 and "there is no topic 'nothing'; next: choose from chat, " in err

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    topics.show("memory", terminal)
    assert "vram-estimate" in terminal.getvalue() and "`" not in terminal.getvalue()


def test_version() -> None:
    assert nazx("--version") == (f"nazx {__version__}\n", "", 0)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ask", "--help"], ["--version"], ["help"], ["help", "memory"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from nazx_cli.cli.app import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_help_takes_little_more_than_importing_typer() -> None:
    """Processor time, medians of five turns each: a slow or busy machine slows both."""
    resource = pytest.importorskip("resource")

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return float(usage.ru_utime + usage.ru_stime)

    def seconds(*arguments: str) -> float:
        before = used()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return used() - before

    turns = [(seconds("-m", "nazx_cli", "--help"), seconds("-c", "import typer")) for _ in range(5)]
    ours, typer = (statistics.median(times) for times in zip(*turns, strict=True))
    assert 0 < ours < 3.5 * typer


# Completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ask --model nazx-s", "nazx-smol-135m"),
        ("show nazx-s", "nazx-smol-135m"),
        ("eval --model nazx-s", "nazx-smol-135m"),
        ("ask --layout pos", "postings"),
        ("vram-estimate --layout pos", "postings"),
        ("bench --layout pos", "postings"),
        ("bench de", "decode-long"),
        ("ask --device c", "cuda"),
    ],
)
def test_completion_offers_names(typed: str, offered: str) -> None:
    env = {
        "_NAZX_COMPLETE": "complete_bash",
        "COMP_WORDS": f"nazx {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    result = CliRunner().invoke(app_module.app, [], prog_name="nazx", env=env)
    *_, start = typed.split()
    words = result.stdout.split()
    assert offered in words and all(word.startswith(start) for word in words)


def test_what_completion_offers_is_what_there_is() -> None:
    from nazx_cli.bench.workloads import WORKLOADS
    from nazx_cli.context.layouts import LAYOUTS

    assert {*names.LAYOUTS} == {"auto", *LAYOUTS}
    assert {*names.WORKLOADS} == {*WORKLOADS}


@pytest.mark.parametrize("name", ["ask", "chat"])
def test_help_groups_the_options_and_explains_their_words(name: str) -> None:
    out, _, code = nazx(name, "--help")
    assert code == 0
    titles = ["Documents", "Model", "Memory", "Sampling", "Output", "Session"]
    titles += ["Several processes", "Other"]
    places = [out.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places) and "\nOptions:\n" not in out
    for word in (
        *(*names.READ_MODES, *names.INDEXING, *names.SUMMARIES),
        *(*names.LAYOUTS, *names.THINKING),
    ):
        assert re.search(rf"^    {word} +\w", out, re.MULTILINE)
    assert not re.search(r"<list|<str>|INTEGER|FLOAT|RANGE|BOOLEAN", out)
