"""Which model is used where none is named: ``nazx use``, and the question on first use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import huggingface_hub.constants  # noqa: F401 - it reads once whether to be offline
import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint
from fake_hub import FakeHub, FakeRepo
from pseudo_terminal import Terminal

from nazx_cli.catalog.stored import converted_folder
from nazx_cli.cli.models import choose
from nazx_cli.cli.models.choose import remember
from nazx_cli.cli.shared.options import ModelOptions, OutputOptions
from nazx_cli.memory import machine as machines
from nazx_cli.memory.choosing import suggestions
from nazx_cli.memory.machine import Hardware, this_machine
from nazx_cli.memory.plan import GPU_WORK, Machine
from nazx_cli.ui.terminal import keys
from nazx_cli.ui.terminal.screen import Screen

DEFAULT = "nazx-smol-135m"
ASKED = "Press 1 to 3"


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def hub(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that answers, and has nothing; the machine's memory is quick, its arithmetic slow."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machines, "_measure_cpu", lambda: 1e11)
    monkeypatch.setattr(machines, "_measure_products", lambda: 1e9)
    this_machine()  # what it is found to be is kept for the processes of the test
    with FakeHub({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def kept(home: Path) -> str:
    file = home / "config.toml"
    return file.read_text() if file.exists() else ""


# nazx use


def test_use_chooses_a_model_and_alone_says_which_it_is(isolated_home: Path) -> None:
    assert nazx("use")[0] == f"{DEFAULT} (the default)\n"
    out, err, code = nazx("use", "NAZX-1B")
    assert (out, code) == ("nazx-1b is used from now on\n", 0)
    assert "2.09 GB" in err
    assert nazx("config", "get", "model")[0] == "nazx-1b\n"
    assert nazx("use")[0] == "nazx-1b (nazx use)\n"
    assert nazx("use", env={"NAZX_MODEL": "org/tiny"})[0] == "org/tiny (NAZX_MODEL)\n"
    assert (
        "NAZX_MODEL is set to org/tiny"
        in nazx("use", "nazx-70m", env={"NAZX_MODEL": "org/tiny"})[1]
    )


def test_use_takes_folders_and_keeps_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_checkpoint(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert nazx("use", "./mine")[2] == 0
    monkeypatch.chdir("/")
    assert nazx("use")[0] == f"{folder} (nazx use)\n"
    assert nazx("ask", "--max-tokens", "2", "Hello?")[2] == 0


def test_use_refuses_what_is_no_model(isolated_home: Path) -> None:
    _, err, code = nazx("use", "nazx-smol-135")
    assert code == 5 and f"did you mean {DEFAULT}" in err
    assert kept(isolated_home) == ""


# First use


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--offline",), "offline: "),
        ((), "no model was chosen: "),
        (("--quiet",), "no model was chosen: "),
    ],
)
def test_where_nobody_can_be_asked_the_default_is_taken_and_a_line_says_so(
    arguments: tuple[str, ...], reason: str, isolated_home: Path
) -> None:
    _, err, code = nazx("ask", *arguments, "Who?")
    assert code == 5  # there is nothing to fetch it from
    assert f"\n{reason}using {DEFAULT} (92.9 MB, Apache-2.0)" in f"\n{err}"
    assert kept(isolated_home) == ""


def test_nothing_is_asked_before_what_is_wrong_is_told(hub: FakeHub) -> None:
    for arguments in (("-f", "/no/such/book.txt"), ("--temperature", "-1")):
        terminal = Terminal("ask", "Who?", *arguments)
        assert terminal.end() > 0
        assert "error: " in terminal.text and ASKED not in terminal.text


def test_a_model_that_was_named_or_is_here_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_checkpoint(converted_folder(DEFAULT))
    assert "using" not in nazx("ask", "--max-tokens", "2", "Who?")[1]
    monkeypatch.setenv("NAZX_HOME", str(tmp_path))
    folder = str(tiny_checkpoint(tmp_path / "tiny"))
    assert "using" not in nazx("ask", "-m", folder, "--max-tokens", "2", "Who?")[1]
    assert "using" not in nazx("ask", "--max-tokens", "2", "Who?", env={"NAZX_MODEL": folder})[1]


@pytest.mark.slow
def test_a_person_on_a_terminal_chooses_by_one_key_and_again_where_it_cannot_be_had(
    hub: FakeHub, isolated_home: Path
) -> None:
    terminal = Terminal("ask", "Who?")
    shown = terminal.until(ASKED)
    rows = [line.split() for line in shown.splitlines() if re.match(r"\d  ", line)]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert {DEFAULT, "92.9", "Apache-2.0"} <= set(rows[2])
    terminal.send("x")  # is none of them
    terminal.send("2")
    assert terminal.end() == 5  # this Hub does not have it
    assert rows[1][1] in terminal.text and "from now on" not in terminal.text
    assert kept(isolated_home) == "" and "no model was chosen" in nazx("ask", "Who?")[1]


@pytest.mark.slow
def test_enter_takes_the_smallest_which_is_remembered_once_it_is_here(
    hub: FakeHub, isolated_home: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    hub.repos["HuggingFaceTB/SmolLM2-135M-Instruct"] = FakeRepo(
        {path.name: path.read_bytes() for path in folder.iterdir()}
    )
    terminal = Terminal("ask", "--max-tokens", "2", "Who?")
    terminal.until(ASKED)
    terminal.send("\r")
    assert terminal.end() == 0, terminal.text
    assert f"{DEFAULT} is used from now on" in " ".join(terminal.text.split())
    assert kept(isolated_home) == f'model = "{DEFAULT}"\n'


@pytest.mark.parametrize(
    ("operations", "taken", "told"),
    [
        (math.inf, "qwen2.5-coder-1.5b", ""),
        (2e11, "qwen2.5-coder-1.5b", r" 11 s .* 1 s "),
        (4e10, "qwen2.5-coder-0.5b", r" 15 s .* 5 s "),
        (1e9, DEFAULT, r" 2,0\d\d s .* 17\d s "),
    ],
)
def test_enter_takes_the_largest_reader_that_answers_soon(
    operations: float, taken: str, told: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Machine("bfloat16", 11 << 30, can_quantize=True, work=GPU_WORK)
    card = Hardware("cuda", "a card", 3.4e11, place, operations)
    monkeypatch.setattr(choose, "_look", lambda limit: (card, suggestions(card), ""))
    monkeypatch.setattr(choose, "_why_not_ask", lambda *_: "")
    monkeypatch.setattr(keys, "read_key", lambda: "\n")
    shown = StringIO()
    model = choose.first_choice(ModelOptions(), OutputOptions(), Screen(StringIO(), shown))
    assert model.model == taken
    which = "Enter takes 3, the smallest" if taken == DEFAULT else "Enter takes 2, which answers"
    assert which in shown.getvalue() and re.search(told, shown.getvalue(), re.DOTALL)
    assert bool(told) == (re.search(r"\d s ", shown.getvalue()) is not None)


def test_a_choice_that_cannot_be_kept_is_told_and_no_more(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (isolated_home / "file").write_text("")  # nothing can be written below it
    monkeypatch.setenv("NAZX_HOME", str(isolated_home / "file"))
    err = StringIO()
    remember("some-model", Screen(StringIO(), err))
    told = err.getvalue()
    assert "error: " in told and "from now on" not in told


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_leaving_changes_nothing(key: str, hub: FakeHub, isolated_home: Path) -> None:
    terminal = Terminal("chat")
    terminal.until(ASKED)
    terminal.send(key)
    assert terminal.end() == 130
    assert "nothing was changed" in terminal.text
    assert kept(isolated_home) == "" and not any("api" in each for each in hub.requests)


def test_a_hub_that_is_away_leaves_what_the_package_index_has_and_that_is_said(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_measure_cpu", lambda: 1e11)
    this_machine()
    terminal = Terminal("ask", "Who?", columns=200)
    shown = terminal.until(ASKED)
    rows = [line.split() for line in shown.splitlines() if re.match(r"\d  ", line)]
    assert [row[1] for row in rows] == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", DEFAULT]
    assert "cannot be reached" in shown
    terminal.kill()
    assert kept(isolated_home) == ""


def test_where_nothing_larger_fits_the_smallest_is_taken_and_that_is_said(
    isolated_home: Path,
) -> None:
    terminal = Terminal("ask", "Who?", "--vram-limit", "1.2GB", columns=200)
    shown = terminal.until(f"using {DEFAULT}")
    terminal.kill()
    assert "cannot be reached" in shown and ASKED not in shown
    assert kept(isolated_home) == ""
