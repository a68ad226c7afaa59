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
from models import CONVOLVED
from rank_helpers import Command, commands, free_port, group_of

from nazx_cli.engine import following
from nazx_cli.engine.language_model import load_planned
from nazx_cli.errors import NazxError
from nazx_cli.memory.estimate import TextSize
from nazx_cli.memory.plan import LoadOptions
from nazx_cli.model.decoder import Decoder


def asked(folder: Path, size: int, tmp_path: Path, **settings: str) -> list[Command]:
    document = tmp_path / "book.txt"
    document.write_text("a rose is a rose. " * 200)
    return commands(
        size,
        tmp_path,
        *("ask", "-m", str(folder), "--temperature", "0", "--max-tokens", "12"),
        *("--file", str(document), "who is?"),
        **settings,
    )


def test_only_the_first_rank_talks_and_says_what_one_process_would(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")
    ranks = asked(folder, 2, tmp_path)
    assert [rank.wait() for rank in ranks] == [0, 0]
    book = str(tmp_path / "book.txt")
    alone, _, _ = run_nazx(
        *("ask", "-m", str(folder), "--temperature", "0", "--max-tokens", "12"),
        *("--file", book, "who is?"),
    )
    assert ranks[0].out == alone != ""
    assert ranks[1].out == ranks[1].err == ""


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
    ranks = asked(folder, 2, tmp_path)
    assert [rank.wait() for rank in ranks] == [2, 0]
    assert [line for line in ranks[0].err.splitlines() if line.startswith("error")] == [
        "error: a model with windowed attention cannot hold a context over several processes; "
        "next: use one process, or a model with InAttention"
    ]
    assert ranks[1].err == ""


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")

    def change() -> None:
        load = following.load_decoder

        def other(*given: Any) -> Decoder:
            decoder = load(*given)
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


@pytest.mark.parametrize("how", (signal.SIGKILL, signal.SIGSTOP))
def test_a_rank_that_dies_or_stalls_ends_the_others_with_a_line(
    how: signal.Signals, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "m", kind="inattention")
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
