"""``nazx`` as several processes: real ones, over gloo on the loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import LLAMA, nazx, write_checkpoint
from cli_helpers import run_nazx, tiny_checkpoint
from family_configs import write_family
from far_models import base_model, far_tensors, write_memory
from models import CONVOLVED, WINDOWED
from rank_helpers import commands, free_port, group_of

from nazx_cli.config import ModelConfig
from nazx_cli.context.ranks.sharing import Share, check_share
from nazx_cli.engine import following
from nazx_cli.engine.language_model import load_planned
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.model.decoder import Decoder


@pytest.mark.parametrize(
    ("kind", "more"), (("inattention", ()), ("full", ()), ("windowed", ("--split-weights",)))
)
def test_only_the_first_rank_talks_and_says_what_one_process_would(
    kind: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    if more:
        import torch._dynamo  # noqa: F401

        import nazx_cli.model.split  # noqa: F401  # before processes are forked: it takes seconds
    document = tmp_path / "book.txt"
    document.write_text("a rose is a rose. " * 200)
    folder = tiny_checkpoint(tmp_path / "m", kind=kind)
    command = (
        *("chat", "-m", str(folder), "--temperature", "0", "--max-tokens", "12"),
        *("--file", str(document), "--dtype", "float32"),
    )
    (tmp_path / "stdin").write_text("who is?\nwhat is it?\n")
    ranks = commands(2, tmp_path, *command, *more)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].err
    alone, _, _ = run_nazx(*command, stdin="who is?\nwhat is it?\n")
    assert ranks[0].out == alone != ""
    assert ranks[1].out == ranks[1].err == ""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["ask", "--no"], 2)])
@pytest.mark.parametrize(("size", "is_torn_down"), [("1", True), ("2", False)])
def test_a_rank_ends_without_taking_the_interpreter_down(
    size: str, is_torn_down: bool, arguments: list[str], code: int
) -> None:
    body = "import atexit, sys; atexit.register(print, 'torn down')\n"
    body += f"sys.argv = ['nazx', *{arguments}]\nfrom nazx_cli.cli.app import main\nmain()"
    settings = {**os.environ, "WORLD_SIZE": size, "RANK": "0"}
    run = [sys.executable, "-c", body]
    done = subprocess.run(run, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and (done.stdout + done.stderr).strip()
    assert ("torn down" in done.stdout) == is_torn_down


@pytest.mark.slow  # what it runs is run above, with what torchrun tells a process
def test_torchrun_starts_it(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(free_port()), "-m", "nazx_cli", "chat", "-m", str(folder)),
        *("--temperature", "0", "--max-tokens", "3"),
    )
    found = subprocess.run(
        command,
        input="one?\ntwo?\n",
        capture_output=True,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 2


def test_a_server_is_one_process(tmp_path: Path) -> None:
    ranks = commands(2, tmp_path, "serve", "--port", "0")
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert [rank.err for rank in ranks] == [
        "error: nazx serve is one process, and 2 were started; "
        "next: run it without torchrun: nazx serve\n",
        "",
    ]


def test_what_cannot_be_split_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    ranks = commands(3, tmp_path, "ask", "-m", str(folder), "--split-weights", "who is?")
    assert [rank.wait() for rank in ranks] == [2, 0, 0]
    assert [line for line in ranks[0].err.splitlines() if line.startswith("error")] == [
        "error: 4 heads, 2 of keys and 48 features between do not divide by 3 processes; "
        "next: start 2"
    ]
    assert ranks[1].err == ranks[2].err == ""


def test_a_far_memory_is_one_process_s(tmp_path: Path) -> None:
    """Of which nothing is said where it is not wanted."""
    base = base_model(tmp_path, {**WINDOWED, "local_window": 600})
    far = write_memory(tmp_path, far_tensors())
    document = tmp_path / "book.txt"
    document.write_text("a rose is a rose. " * 20)
    asked = ("ask", "-m", str(base), "--adapter", str(far), "--max-tokens", "3", "--quiet")
    for read, code, said in (
        ("auto", 0, ""),
        (
            "resident",
            2,
            "error: a far memory is one process's; next: use one process, or --read recall\n",
        ),
    ):
        own = tmp_path / read
        own.mkdir()
        ranks = commands(2, own, *asked, "--file", str(document), "--read", read, "who is?")
        assert [rank.wait() for rank in ranks] == [code, 0], ranks[0].err
        assert [rank.err for rank in ranks] == [said, ""]


@pytest.mark.parametrize(
    ("name", "by", "says"),
    (
        ("gemma2-caps", Share(2), "windows of their own"),
        ("phi3", Share(2, split=True), "fuses matrices"),
        ("olmo2", Share(2, split=True), "olmo2 is not split"),
        ("llama3", Share(1, split=True), "one process"),
    ),
)
def test_families_that_cannot_be_shared_so_are_named(
    name: str, by: Share, says: str, tmp_path: Path
) -> None:
    config = ModelConfig.from_folder(write_family(tmp_path, name))
    with pytest.raises(UsageError, match=says):
        check_share(config, by)


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")

    def change() -> None:
        load = following.load_decoder

        def other(*given: Any, **more: Any) -> Decoder:
            decoder = load(*given, **more)
            decoder.final_norm.weight.data *= 2
            return decoder

        following.load_decoder = other

    with pytest.raises(NazxError, match="different weights"), group_of(2, change) as group:
        load_planned("tiny", folder, TextSize(), LoadOptions("cpu", "float32"), group)


def test_ranks_wait_for_the_first_one_while_it_waits_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_RANKS_TIMEOUT", "4")
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")
    with group_of(2) as group:
        lm = load_planned("tiny", folder, TextSize(), LoadOptions("cpu", "float32"), group)
        context = lm.new_context()
        context.append([1, 2])
        before = lm.next_logits(context)
        time.sleep(6)
        assert torch.equal(lm.next_logits(context), before)


@pytest.mark.parametrize(
    ("how", "kind"), ((signal.SIGKILL, "full"), (signal.SIGSTOP, "inattention"))
)
def test_a_rank_that_dies_or_stalls_ends_the_others_with_a_line(
    how: signal.Signals, kind: str, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind=kind)
    document = tmp_path / "book.txt"
    document.write_text("a rose is a rose. " * 200)
    ranks = commands(
        3,
        tmp_path,
        *("ask", "-m", str(folder), "--temperature", "0", "--max-tokens", "100000"),
        *("--file", str(document), "who is?"),
        NAZX_RANKS_TIMEOUT="60" if how == signal.SIGKILL else "10",
    )
    limit = time.monotonic() + 60
    while not ranks[0].out and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(ranks[1].pid, how)
    assert [rank.wait() for rank in (ranks[0], ranks[2])] == [1, 1]
    if how == signal.SIGSTOP:
        os.kill(ranks[1].pid, signal.SIGKILL)
    assert ranks[1].wait() == -signal.SIGKILL
    for number in (0, 2):
        errors = [each for each in ranks[number].err.splitlines() if "error" in each]
        assert len(errors) == 1
        assert errors[0].startswith(f"error: rank {number} of 3: another process ")


@pytest.mark.gpu
def test_gpus_gather_over_nccl(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    folder = write_checkpoint(tmp_path / "m", nazx(LLAMA, CONVOLVED))
    document = tmp_path / "book.txt"
    document.write_text("a rose is a rose. " * 200)
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("-m", "nazx_cli", "ask", "-m", str(folder), "--device", "cuda", "--file", str(document)),
    )
    assert subprocess.run([*command, "who is?"], env=os.environ, check=False).returncode == 0
