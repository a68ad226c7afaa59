"""``nazx ls``, ``show`` and ``rm`` on models of every kind."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pexpect
import pytest
from checkpoints import LLAMA, write_checkpoint
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint
from fake_hub import FakeHub
from resolve_helpers import resolve_model
from stored_models import PYTHIA, facts, weights_of

from nazx_cli.catalog.hub import cached_snapshot
from nazx_cli.catalog.stored import models_folder

ROOT = Path(__file__).parents[1]


# ls


def test_ls_lists_converted_models_and_usable_snapshots(hub: FakeHub) -> None:
    listed = {model["name"]: model for model in facts("ls")}
    assert list(listed) == ["nazx-70m", PYTHIA, "org/tiny"]
    assert listed["nazx-70m"]["attention"] == "windowed"
    assert listed["nazx-70m"]["source"] == PYTHIA
    assert listed["org/tiny"]["attention"] == "full"
    assert listed["org/tiny"]["where"] == "hub"
    assert {model["dtype"] for model in listed.values()} == {"float32"}
    repo = hub.repos["org/tiny"]
    assert listed["org/tiny"]["bytes"] == sum(map(len, repo.files.values()))
    out, _, _ = nazx("ls")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", *listed]


def test_every_listed_name_can_be_shown_and_verified(hub: FakeHub) -> None:
    resolve_model("nazx-70m", revision="v1")
    names = [model["name"] for model in facts("ls")]
    assert "nazx-70m@v1" in names
    for name in names:
        assert facts("show", name)["present"]
        assert facts("verify", name)["ok"]


def test_ls_leaves_out_what_is_not_whole(hub: FakeHub) -> None:
    (weights_of("org/tiny")).unlink()
    partial = models_folder() / ".nazx-160m.abc.partial" / "new"
    write_checkpoint(partial, LLAMA)
    assert [model["name"] for model in facts("ls")] == ["nazx-70m", PYTHIA]


def test_ls_names_a_damaged_conversion(hub: FakeHub) -> None:
    path = weights_of("nazx-70m")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-9])
    assert "truncated" in facts("ls")[0]["problem"]
    assert "nazx verify nazx-70m" in nazx("ls")[0]


def test_ls_all_adds_the_known_models_that_are_not_here(hub: FakeHub) -> None:
    present = {model["name"]: model["present"] for model in facts("ls", "--all")}
    assert present["nazx-70m"] and not present["nazx-1b"]
    shown = {line.split()[0] for line in nazx("ls", "--all")[0].splitlines()}
    assert {"nazx-70m", PYTHIA, "nazx-1b"} <= shown


def test_an_empty_machine_lists_nothing_and_says_what_to_do() -> None:
    assert facts("ls") == []
    out, err, code = nazx("ls")
    assert (out, code) == ("", 0)
    assert "nazx pull" in err


# show


def test_show_knows_a_registered_model_without_its_files() -> None:
    shown = facts("show", "nazx-1b")
    assert not shown["present"]
    assert shown["parameters"] == 1_011_781_632
    assert shown["sources"] == ["EleutherAI/pythia-1b"]
    out, _, _ = nazx("show", "NAZX-1B")
    assert "1,011,781,632" in out and "nazx pull" in out


def test_show_tells_how_a_model_is_asked_and_how_its_answers_end_and_are_drawn(
    tmp_path: Path,
) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    folder = tiny_checkpoint(tmp_path / "m", template=template)
    drawn = {"do_sample": True, "temperature": 0.6, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps(drawn))
    shown = facts("show", str(folder))
    asked, sampling = shown["template"], shown["sampling"]
    assert (asked["form"], asked["characters"]) == ("chat", len(template))
    assert asked["thinks_between"] == ["<think>", "</think>"] and asked["thinking_switch"]
    assert set(shown["stop_tokens"]) == {"<|im_start|>", "<|im_end|>"}
    assert (sampling["temperature"], sampling["top_k"], sampling["top_p"]) == (0.6, 20, 1.0)
    out, _, _ = nazx("show", str(folder))
    for part in ("thinks between <think> and </think>", "temperature 0.6", "answers end at"):
        assert part in out
    bare = tiny_checkpoint(tmp_path / "bare", template="{% for %}")
    assert "chat template failed" in nazx("show", str(bare))[0]
    assert facts("show", str(bare))["sampling"] is None


def test_show_tells_what_the_files_say(hub: FakeHub) -> None:
    shown = facts("show", "org/tiny")
    assert shown["stop_tokens"] == ["<|im_end|>"]
    assert shown["chat_template"]
    assert shown["commit"] == "a" * 40
    assert shown["rope"] == {"kind": "default", "theta": 10000.0, "dim": 8}
    assert shown["files"]["model.safetensors"] == weights_of("org/tiny").stat().st_size
    out, _, _ = nazx("show", "org/tiny")
    for part in (
        "llama, 3 layers",
        "6 heads of 8, 2 for keys and values",
        "<|im_end|>",
        "org/tiny at a",
    ):
        assert part in out


def test_show_of_a_hub_model_that_is_not_here_says_to_pull_it() -> None:
    out, err, code = nazx("show", "org/other")
    assert (out, code) == ("", 5)
    assert "nazx pull org/other" in err


# rm


def test_rm_without_a_terminal_needs_yes(hub: FakeHub) -> None:
    out, err, code = nazx("rm", "nazx-70m", stdin="y\n")
    assert (out, code) == ("", 2)
    assert "--yes" in err
    assert weights_of("nazx-70m").is_file()


def test_a_dry_run_removes_nothing(hub: FakeHub) -> None:
    planned = facts("rm", "nazx-70m", PYTHIA, "org/tiny", "--dry-run")
    assert planned["dry_run"] and planned["freed_bytes"] > 0
    assert len(facts("ls")) == 3


def test_a_shared_file_is_freed_with_its_last_name(hub: FakeHub) -> None:
    size = weights_of("nazx-70m").stat().st_size
    alone = facts("rm", "nazx-70m", "--dry-run")["freed_bytes"]
    both = facts("rm", "nazx-70m", PYTHIA, "--dry-run")["freed_bytes"]
    assert alone < size < both
    out, err, code = nazx("rm", "nazx-70m", "--yes")
    assert code == 0 and out.startswith("removed nazx-70m: ")
    assert f"nazx rm {PYTHIA}" in err
    assert facts("rm", PYTHIA, "--yes")["freed_bytes"] > size
    assert [model["name"] for model in facts("ls")] == ["org/tiny"]


def test_what_is_said_to_be_freed_is_freed(hub: FakeHub) -> None:
    def used() -> int:
        tops = (models_folder(), Path(os.environ["HF_HOME"]))
        files = [path for top in tops for path in top.rglob("*")]
        stats = {(s := path.lstat()).st_ino: s.st_size for path in files if path.is_file()}
        return sum(stats.values())

    before = used()
    freed = facts("rm", "nazx-70m", PYTHIA, "org/tiny", "--yes")["freed_bytes"]
    left = before - used()
    assert 0 <= left - freed < 1000  # links and references of the cache count a few bytes
    assert facts("ls") == []
    assert cached_snapshot("org/tiny") is None


def test_rm_refuses_folders_and_models_that_are_not_here(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", LLAMA)
    assert nazx("rm", str(folder), "--yes")[2] == 2
    assert folder.is_dir()
    assert nazx("rm", "nazx-1b", "--yes")[2] == 5
    assert nazx("rm", "org/other", "--yes")[2] == 5


def test_one_wrong_name_keeps_all_of_them(hub: FakeHub) -> None:
    assert nazx("rm", "org/tiny", "org/other", "--yes")[2] == 5
    assert len(facts("ls")) == 3


def test_rm_clears_away_what_a_killed_pull_left() -> None:
    write_checkpoint(models_folder() / ".nazx-1b.abc.partial" / "new", LLAMA)
    assert facts("rm", "nazx-1b", "--yes")["freed_bytes"] > 0
    assert not list(models_folder().glob(".*.partial"))


@pytest.mark.skipif(os.name == "nt", reason="needs a pty")
def test_rm_asks_on_a_terminal(hub: FakeHub) -> None:
    for answer, code in (("n", 1), ("y", 0)):
        child = pexpect.spawn(
            sys.executable,
            ["-m", "nazx_cli", "rm", "org/tiny"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=20,
            encoding="utf-8",
        )
        child.expect(r"remove org/tiny, .*\? \[y/N\] ")
        assert cached_snapshot("org/tiny") is not None
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == code
    assert cached_snapshot("org/tiny") is None
