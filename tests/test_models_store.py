"""``nazx ls``, ``show``, ``rm``, ``verify`` and ``doctor`` on models of every kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, random_tensors, write_checkpoint
from cli_helpers import tiny_checkpoint
from fake_hub import FakeHub, FakeRepo
from resolve_helpers import resolve_model
from typer.testing import CliRunner

from nazx_cli.catalog.hub import cached_snapshot
from nazx_cli.catalog.stored import models_folder
from nazx_cli.cli.app import app

ROOT = Path(__file__).parents[1]
PYTHIA = "EleutherAI/pythia-70m"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A machine with ``org/tiny`` from a Hub and nazx-70m, made from the Hub's Pythia."""
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    repos = {}
    for name, config in (("org/tiny", LLAMA), (PYTHIA, GPT_NEOX)):
        folder = write_checkpoint(tmp_path / name.replace("/", "-"), config)
        repos[name] = FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()})
    with FakeHub(repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        resolve_model("org/tiny")
        resolve_model("nazx-70m")
        yield hub


def nazx(*arguments: str, stdin: str = "") -> tuple[str, str, int]:
    """Run in this process; stdout, stderr, exit code."""
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout, result.stderr, result.exit_code


def facts(*arguments: str) -> Any:
    out, err, code = nazx(*arguments, "--json")
    assert (err, code) == ("", 0)
    return json.loads(out)


def weights_of(name: str) -> Path:
    return resolve_model(name, offline=True) / "model.safetensors"


def overwrite(path: Path, data: bytes) -> None:
    """Change a file where it lies, as a failing disk does: all its names see it."""
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(data)


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


# verify


def broken(name: str, wanted: str) -> None:
    """``verify`` finds ``name`` broken, says ``wanted``, and how to mend it."""
    out, err, code = nazx("verify", name, "--json")
    assert code == 5
    found = json.loads(out)
    assert not found["ok"] and wanted in found["problem"], found
    assert err.startswith("error: ") and err.count("\n") == 1
    assert found["next"] in err


def test_a_sound_model_passes_by_every_recorded_hash(hub: FakeHub) -> None:
    out, err, code = nazx("verify", "nazx-70m")
    assert (err, code) == ("verifying nazx-70m\n", 0)
    assert out.startswith("nazx-70m is whole: 40 tensors, ") and out.endswith(
        "files that match: 1\n"
    )
    assert facts("verify", "org/tiny")["hashed_files"] >= 1


def test_a_flipped_bit_is_found_and_the_repair_works(hub: FakeHub) -> None:
    path = weights_of("nazx-70m")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    overwrite(path, bytes(data))
    broken("nazx-70m", str(path))
    repair = json.loads(nazx("verify", "nazx-70m", "--json")[0])["next"]
    assert repair == f"nazx rm nazx-70m {PYTHIA} && nazx pull nazx-70m"
    assert nazx("rm", "nazx-70m", PYTHIA, "--yes")[2] == 0
    assert nazx("pull", "nazx-70m")[2] == 0
    assert facts("verify", "nazx-70m")["ok"]


def test_a_flipped_bit_in_a_hub_snapshot_is_found(hub: FakeHub) -> None:
    path = weights_of("org/tiny")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    overwrite(path, bytes(data))
    broken("org/tiny", "hash")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_found(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(LLAMA).items()}
    folder = write_checkpoint(tmp_path / "mine", LLAMA, tensors)
    assert facts("verify", str(folder))["ok"]
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    write_checkpoint(folder, LLAMA, tensors)
    broken(str(folder), "model.layers.1.mlp.up_proj.weight")


def test_large_finite_values_are_no_damage(tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in random_tensors(LLAMA).items()}
    tensors["model.norm.weight"][:] = 65504.0  # their sum is beyond float16
    folder = write_checkpoint(tmp_path / "mine", LLAMA, tensors)
    assert facts("verify", str(folder))["ok"]


def test_missing_and_misshapen_tensors_are_found(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    whole = dict(tensors)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    broken(str(write_checkpoint(tmp_path / "a", LLAMA, tensors)), "lacks the tensor")
    whole["model.norm.weight"] = torch.ones(47)
    broken(str(write_checkpoint(tmp_path / "b", LLAMA, whole)), "has the shape")


def test_truncated_weights_and_a_broken_tokenizer_are_found(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", LLAMA)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[:-40])
    broken(str(folder), "tokenizer.json")
    (folder / "tokenizer.json").write_text(text)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    out, err, code = nazx("verify", str(folder))
    assert (out, code) == ("", 5)
    assert "model.safetensors" in err


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantized_model_is_verified_and_shown_as_what_it_is(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    source = write_checkpoint(tmp_path / "source", LLAMA)
    made = str(tmp_path / "made")
    assert nazx("quantize", str(source), made, "--kind", kind)[2] == 0
    assert facts("verify", made)["ok"]
    assert facts("show", made)["dtype"] == kind
    assert nazx("convert", made, str(tmp_path / "full"), "--attention", "full")[2] == 0
    assert facts("show", str(tmp_path / "full"))["dtype"] == kind


def test_verify_of_what_is_not_here_says_to_pull_it(hub: FakeHub) -> None:
    assert "nazx pull nazx-1b" in nazx("verify", "nazx-1b")[1]
    shutil.rmtree(models_folder() / "nazx-70m")
    assert nazx("verify", "nazx-70m")[2] == 5


# doctor


def test_doctor_reports_all_parts_and_leaves_with_0(hub: FakeHub) -> None:
    found = facts("doctor")
    assert found["versions"]["torch"] == torch.__version__
    assert found["devices"][0]["name"] == "cpu"
    assert 0 < found["devices"][0]["free_bytes"] <= found["devices"][0]["total_bytes"]
    assert found["hub"] == {"endpoint": hub.endpoint, "reachable": True, "problem": None}
    assert found["models"]["nazx-70m"] and not found["models"]["nazx-1b"]
    sizes = {place["name"]: place["bytes"] for place in found["storage"]}
    weights = sum(weights_of(name).stat().st_size for name in ("org/tiny", "nazx-70m"))
    assert sizes["NAZX_HOME"] < weights < sizes["Hub cache"] + sizes["NAZX_HOME"] < 1.5 * weights
    out, err, code = nazx("doctor")
    assert (err, code) == ("looking at this machine\n", 0)
    assert len(out.splitlines()) < 24


def test_doctor_says_that_the_hub_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts("doctor")
    assert not found["hub"]["reachable"]
    assert "127.0.0.1:9" in found["hub"]["problem"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in facts("doctor")["hub"]["problem"]


@pytest.mark.parametrize(
    ("arguments", "library"),
    [
        (["ls"], "torch"),
        (["show", "org/tiny"], "torch"),
        (["rm", "org/tiny", "--dry-run"], "torch"),
        (["doctor", "--offline"], "bitsandbytes"),
    ],
)
def test_what_only_looks_does_not_wait_for_large_libraries(
    hub: FakeHub, arguments: list[str], library: str
) -> None:
    code = (
        "import sys\nfrom nazx_cli.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        f"print({library!r} in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "False", (arguments, done.stderr)
