"""``nazx pull`` against a small Hub on loopback: what comes down, and what a fault leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from checkpoints import GPT_NEOX, LLAMA, write_checkpoint
from fake_hub import FakeHub, FakeRepo
from typer.testing import CliRunner

from nazx_cli.catalog.hub import cached_snapshot
from nazx_cli.catalog.stored import models_folder
from nazx_cli.checkpoint.checkpoint import is_complete
from nazx_cli.checkpoint.write import Origin
from nazx_cli.cli.app import app

ROOT = Path(__file__).parents[1]
MEGABYTE = 1 << 20


def repo_of(folder: Path, **settings: Any) -> FakeRepo:
    return FakeRepo({path.name: path.read_bytes() for path in folder.iterdir()}, **settings)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with a Llama and the Pythia that nazx-70m is made from."""
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    tiny = write_checkpoint(tmp_path / "tiny", LLAMA)
    pythia = write_checkpoint(tmp_path / "pythia", GPT_NEOX, chat=False)
    repos = {"org/tiny": repo_of(tiny), "EleutherAI/pythia-70m": repo_of(pythia)}
    with FakeHub(repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def large(hub: FakeHub, tmp_path: Path) -> bytes:
    """The weights of ``org/large``: more than the client writes at once."""
    shape = {**LLAMA, "hidden_size": 288, "intermediate_size": 2600, "num_hidden_layers": 4}
    hub.repos["org/large"] = repo_of(write_checkpoint(tmp_path / "large", shape))
    data = hub.repos["org/large"].files["model.safetensors"]
    assert len(data) > 32 * MEGABYTE
    return data


def nazx(*arguments: str) -> tuple[str, str, int]:
    """Run in this process; stdout, stderr, exit code."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout, result.stderr, result.exit_code


def start(*arguments: str, code: str = "") -> subprocess.Popen[str]:
    """Run as a process of its own; ``code`` runs before it."""
    program = f"{code}\nfrom nazx_cli.cli.app import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def partial_bytes() -> int:
    blobs = Path(os.environ["HF_HOME"]).rglob("*.incomplete")
    return max((path.stat().st_size for path in blobs), default=0)


def wait_for_partial(nbytes: int) -> None:
    deadline = time.monotonic() + 20
    there = 0
    while there < nbytes:
        assert time.monotonic() < deadline, "nothing came down"
        time.sleep(0.02)
        # The client makes and removes folders of its own while this looks.
        with suppress(FileNotFoundError):
            there = partial_bytes()


def failure(name: str, *more: str, code: int = 5) -> str:
    """What a pull that fails says last; before it only what it was doing."""
    out, err, got = nazx("pull", name, *more)
    assert (out, got) == ("", code)
    *said, error = err.splitlines()
    assert said in ([], [f"pulling {name}"])
    assert error.startswith("error: ") and "; next: " in error
    return error


# What comes down


def test_a_pull_tells_scripts_where_the_model_is(hub: FakeHub) -> None:
    out, err, code = nazx("pull", "org/tiny", "--json")
    assert (err, code) == ("", 0)
    facts = json.loads(out)
    folder = cached_snapshot("org/tiny")
    assert facts == {
        "name": "org/tiny",
        "path": str(folder),
        "bytes": sum(map(len, hub.repos["org/tiny"].files.values())),
        "source": "org/tiny",
        "revision": None,
        "commit": "a" * 40,
        "correction": None,
    }


def test_a_pull_says_what_it_does_before_the_hub_answers_but_not_to_scripts(hub: FakeHub) -> None:
    hub.repos["org/tiny"].held["config.json"] = 0
    process = start("pull", "org/tiny")
    assert process.stderr is not None
    assert process.stderr.readline() == "pulling org/tiny\n"
    hub.release.set()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert nazx("pull", "org/tiny", "--quiet")[1:] == ("", 0)


def test_a_second_pull_asks_for_the_commit_and_fetches_nothing(hub: FakeHub) -> None:
    nazx("pull", "org/tiny")
    hub.requests.clear()
    assert nazx("pull", "org/tiny")[2] == 0
    assert [line for line in hub.requests if "resolve" in line] == []
    assert any("/api/models/org/tiny" in line for line in hub.requests)


def test_a_pull_brings_the_new_commit_of_a_hub_model(hub: FakeHub, tmp_path: Path) -> None:
    nazx("pull", "org/tiny")
    newer = write_checkpoint(tmp_path / "newer", LLAMA, seed=1)
    hub.repos["org/tiny"] = repo_of(newer, commit="b" * 40)
    out, _, _ = nazx("pull", "org/tiny", "--json")
    folder = Path(json.loads(out)["path"])
    assert folder.name == "b" * 40
    weights = (newer / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    out, _, _ = nazx("pull", "org/tiny@" + "b" * 40, "--json")
    assert Path(json.loads(out)["path"]) == folder
    assert json.loads(out)["revision"] == "b" * 40


def test_a_pull_that_breaks_off_leaves_the_older_commit_in_use(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between tries
    nazx("pull", "org/tiny")
    newer = write_checkpoint(tmp_path / "newer", LLAMA, seed=1)
    hub.repos["org/tiny"] = repo_of(newer, commit="b" * 40, cut={"model.safetensors": 7000})
    assert "connection" in failure("org/tiny")
    folder = cached_snapshot("org/tiny")
    assert folder is not None and folder.name == "a" * 40
    hub.repos["org/tiny"].cut.clear()
    assert nazx("pull", "org/tiny")[2] == 0
    folder = cached_snapshot("org/tiny")
    assert folder is not None and folder.name == "b" * 40


def test_a_registered_model_is_converted_from_pythia(hub: FakeHub) -> None:
    out, err, code = nazx("pull", "nazx-70m")
    assert code == 0
    assert out.startswith("nazx-70m is ready: ") and "EleutherAI/pythia-70m at aaaaaaaaaaaa" in out
    assert str(models_folder() / "nazx-70m") in err
    origin = Origin.read(models_folder() / "nazx-70m")
    assert origin is not None and origin.commit == "a" * 40


def test_a_registered_model_is_made_anew_for_a_new_commit_only(
    hub: FakeHub, tmp_path: Path
) -> None:
    nazx("pull", "nazx-70m")
    target = models_folder() / "nazx-70m"
    before = target.stat().st_ino
    nazx("pull", "nazx-70m")
    assert target.stat().st_ino == before
    newer = write_checkpoint(tmp_path / "newer", GPT_NEOX, seed=1, chat=False)
    hub.repos["EleutherAI/pythia-70m"] = repo_of(newer, commit="b" * 40)
    nazx("pull", "nazx-70m")
    weights = (newer / "model.safetensors").read_bytes()
    assert (target / "model.safetensors").read_bytes() == weights


def test_the_namespace_is_asked_before_pythia(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HUB_NAMESPACE", "lab")
    out, _, _ = nazx("pull", "nazx-70m", "--json")
    assert json.loads(out)["source"] == "EleutherAI/pythia-70m"
    attention = {"kind": "inattention"}
    config = {**GPT_NEOX, "model_type": "nazx", "base_model_type": "gpt_neox"}
    mine = write_checkpoint(tmp_path / "mine", {**config, "attention": attention}, seed=2)
    hub.repos["lab/nazx-70m"] = repo_of(mine)
    out, _, _ = nazx("pull", "nazx-70m", "--json")
    assert json.loads(out)["source"] == "lab/nazx-70m"
    folder = models_folder() / "nazx-70m"
    assert json.loads((folder / "config.json").read_text())["attention"] == attention
    # A namespace that fails later does not put Pythia in its place.
    hub.repos["lab/nazx-70m"].token = "secret"
    assert "stays as it is" in failure("nazx-70m")
    assert json.loads((folder / "config.json").read_text())["attention"] == attention


def test_a_revision_can_follow_the_name(hub: FakeHub) -> None:
    out, _, _ = nazx("pull", "nazx-70m@v1", "--json")
    facts = json.loads(out)
    assert (facts["name"], facts["revision"]) == ("nazx-70m", "v1")
    assert facts["path"] == str(models_folder() / "nazx-70m@v1")
    assert "two revisions" in failure("nazx-70m@v1", "--revision", "v2")


def test_offline_is_told_to_the_hubs_client_before_it_is_imported(hub: FakeHub) -> None:
    nazx("pull", "org/tiny")
    hub.requests.clear()
    code = (
        "import sys; from typer.testing import CliRunner; from nazx_cli.cli.app import app\n"
        "result = CliRunner().invoke(app, ['pull', 'org/tiny', '--offline'])\n"
        "from huggingface_hub import constants\n"
        "print(result.exit_code, constants.HF_HUB_OFFLINE)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "0 True\n", done.stderr
    assert hub.requests == []


# Faults


def test_each_refusal_is_one_line_with_a_next_step(hub: FakeHub) -> None:
    repo = hub.repos["org/tiny"]
    assert "no model org/other" in failure("org/other")
    assert "no revision 'v9'" in failure("org/tiny", "--revision", "v9")
    repo.token = "secret"
    assert "HF_TOKEN" in failure("org/tiny")
    repo.gated = True
    assert "licence" in failure("org/tiny")
    assert cached_snapshot("org/tiny") is None


def test_a_refresh_without_a_hub_fails_and_keeps_what_is_there(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    nazx("pull", "org/tiny")
    nazx("pull", "nazx-70m")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in failure("org/tiny")
    assert "stays as it is" in failure("nazx-70m")
    assert cached_snapshot("org/tiny") is not None
    assert is_complete(models_folder() / "nazx-70m")


def test_a_folder_is_not_pulled(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", LLAMA)
    assert "on this machine already" in failure(str(folder), code=2)


def test_a_killed_pull_leaves_no_model_and_goes_on_where_it_was(hub: FakeHub, large: bytes) -> None:
    hub.repos["org/large"].held["model.safetensors"] = 25 * MEGABYTE
    process = start("pull", "org/large")
    wait_for_partial(20 * MEGABYTE)
    process.kill()
    process.communicate()
    assert cached_snapshot("org/large") is None
    there = partial_bytes()
    hub.release.set()
    out, _, code = nazx("pull", "org/large", "--json")
    assert code == 0
    assert ("model.safetensors", there) in hub.ranges
    assert (Path(json.loads(out)["path"]) / "model.safetensors").read_bytes() == large
    assert partial_bytes() == 0


def test_ctrl_c_ends_a_pull_with_130_and_what_came_down_is_kept(hub: FakeHub, large: bytes) -> None:
    hub.repos["org/large"].held["model.safetensors"] = 15 * MEGABYTE
    process = start("pull", "org/large")
    wait_for_partial(10 * MEGABYTE)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    hub.release.set()
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("", "pulling org/large\n", 130)
    assert cached_snapshot("org/large") is None
    assert partial_bytes() >= 10 * MEGABYTE


def test_a_partial_file_of_other_bytes_is_thrown_away(hub: FakeHub, large: bytes) -> None:
    hub.repos["org/large"].held["model.safetensors"] = 15 * MEGABYTE
    process = start("pull", "org/large")
    wait_for_partial(10 * MEGABYTE)
    process.kill()
    process.communicate()
    hub.release.set()
    (partial,) = Path(os.environ["HF_HOME"]).rglob("*.incomplete")
    with partial.open("r+b") as file:
        file.write(b"damage")
    assert "hash differs" in failure("org/large")
    assert cached_snapshot("org/large") is None
    assert nazx("pull", "org/large")[2] == 0


@pytest.mark.skipif(os.name == "nt", reason="needs limits of file sizes")
def test_a_disk_that_fills_up_is_named_and_leaves_no_model(hub: FakeHub, large: bytes) -> None:
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({12 * MEGABYTE}, {12 * MEGABYTE}))\n"
    )
    process = start("pull", "org/large", code=limit)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", 5)
    assert "\nerror: the disk is full" in err and "; next: " in err
    assert cached_snapshot("org/large") is None
    assert nazx("pull", "org/large")[2] == 0


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_model_that_is_larger_than_the_disk_is_refused_at_once(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "no room" in failure("org/tiny")
    assert not any("GET" in line and "model.safetensors" in line for line in hub.requests)


def test_two_processes_that_pull_at_once_fetch_once(hub: FakeHub, large: bytes) -> None:
    processes = [start("pull", "org/large", "--json") for _ in range(2)]
    results = [process.communicate(timeout=40) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    body = "GET /org/large/resolve/" + "a" * 40 + "/model.safetensors"
    assert hub.requests.count(body) == 1


def test_a_name_with_dots_never_leaves_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    repo = hub.repos["org/tiny"]
    del repo.files["model.safetensors"]
    index = {"weight_map": {"x": "../../../evil.safetensors"}}
    repo.files["model.safetensors.index.json"] = json.dumps(index).encode()
    repo.files["../../../evil.safetensors"] = b"evil"
    assert "outside its folder" in failure("org/tiny")
    assert not list(tmp_path.rglob("evil*"))
    assert not list(Path(os.environ["HF_HOME"]).rglob("evil*"))
