"""``nazx push`` with the real client against a small Hub on loopback: what goes up, who may see
it, and what a fault leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import LLAMA, random_tensors, write_checkpoint
from cli_helpers import run_nazx
from fake_hub import FakeHub, FakeRepo

from nazx_cli.checkpoint.adapters.lora import LoraPair, write_adapter
from nazx_cli.checkpoint.atomic import sha256_of
from nazx_cli.checkpoint.write import PendingTensor, write_weights

ROOT = Path(__file__).parents[1]
TOKEN = "hf_thetokenthatnobodymaysee"
CARD = "---\nlicense: mit\nlanguage: en\n---\n# A tiny Llama\n"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that lets the token write to ``org``."""
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FakeHub({}) as hub:
        hub.uploads.writers[TOKEN] = {"org"}
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint with a card, in a folder where other things lie too."""
    folder = write_checkpoint(tmp_path / "model", LLAMA)
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("MIT, in full")
    for stray in (".env", "nazx_source.json", "notes.txt", "optimizer.pt", "old.safetensors.tmp"):
        (folder / stray).write_text("not for others")
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A checkpoint of two files and their index."""
    folder = write_checkpoint(tmp_path / "shards", LLAMA)
    (folder / "README.md").write_text(CARD)
    (folder / WEIGHTS).unlink()
    pending = [PendingTensor.from_torch(*each) for each in random_tensors(LLAMA).items()]
    write_weights(folder, pending, max_shard_bytes=sum(each.nbytes for each in pending) - 1)
    return folder


def failure(*arguments: str | Path, code: int, json: bool = False) -> str:
    """The line of a push that fails; nothing else is said but what was being done."""
    out, err, got = run_nazx("push", *map(str, arguments))
    assert (out, got) == ("", code), (out, err)
    assert TOKEN not in err
    *said, error = err.splitlines()
    assert all(line.startswith(("verifying ", "pushing to ")) for line in said)
    assert error.startswith("error: ")
    return error


def writes(hub: FakeHub) -> list[str]:
    """What was asked of the Hub that could change it."""
    return [line for line in hub.requests if line.startswith(("POST", "PUT"))]


# What goes up


def test_a_push_makes_a_private_repository_of_the_models_own_files(
    hub: FakeHub, model: Path
) -> None:
    out, err, code = run_nazx("push", str(model), "org/tiny", "--json")
    assert (err, code) == ("", 0)
    repo = hub.repos["org/tiny"]
    own = {".gitattributes", "config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}
    assert repo.files.keys() == own | {"README.md", "LICENSE"}
    assert repo.private
    for name in repo.files.keys() - {".gitattributes"}:
        assert repo.files[name] == (model / name).read_bytes()
    facts = json.loads(out)
    assert facts["url"] == f"{hub.endpoint}/org/tiny"
    assert (facts["private"], facts["created"], facts["changed"]) == (True, True, True)
    assert facts["commit"] == repo.commit
    assert facts["files"] == sorted(repo.files.keys() - {".gitattributes"})
    assert len(hub.uploads.commits) == 1


def test_what_was_pushed_can_be_pulled(hub: FakeHub, model: Path) -> None:
    assert run_nazx("push", str(model), "org/tiny")[2] == 0
    out, err, code = run_nazx("pull", "org/tiny", "--json")
    assert (err, code) == ("", 0)
    pulled = Path(json.loads(out)["path"])
    assert (pulled / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_public_is_what_is_asked_for(hub: FakeHub, model: Path) -> None:
    out, _, code = run_nazx("push", str(model), "org/tiny", "--public")
    assert code == 0
    assert not hub.repos["org/tiny"].private
    assert out.rstrip().endswith("public")


def test_shards_go_up_with_their_index(hub: FakeHub, shards: Path) -> None:
    assert run_nazx("push", str(shards), "org/tiny")[2] == 0
    names = {path.name for path in shards.iterdir() if "safetensors" in path.name}
    assert len(names) == 3
    assert names <= hub.repos["org/tiny"].files.keys()


def test_an_adapter_goes_up_with_its_card(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "adapter"
    pair = LoraPair(torch.randn(2, 48), torch.randn(48, 2))
    module = "model.layers.0.self_attn.q_proj"
    write_adapter(folder, [(module, pair)], alpha=2, base="org/tiny", notes={}, card="# Reader\n")
    (folder / "trainer_state.pt").write_text("not for others")
    out = run_nazx("push", str(folder), "org/reader", "--licence", "cc-by-sa-4.0")[0]
    files = hub.repos["org/reader"].files
    own = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert files.keys() - {".gitattributes"} == own
    assert files["README.md"] == b"---\nlicense: cc-by-sa-4.0\n---\n# Reader\n"
    assert (folder / "README.md").read_text() == "# Reader\n"
    assert "private" in out


def test_a_licence_is_added_to_the_metadata_that_a_card_has(hub: FakeHub, model: Path) -> None:
    (model / "README.md").write_text("---\nlanguage: en\n---\n# A tiny Llama\n")
    assert run_nazx("push", str(model), "org/tiny", "--licence", "mit")[2] == 0
    sent = hub.repos["org/tiny"].files["README.md"].decode()
    assert sent == "---\nlanguage: en\nlicense: mit\n---\n# A tiny Llama\n"


# What is seen before anything is sent


def test_what_is_wrong_with_the_folder_is_told_before_the_hub_is_asked(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    assert "there is no folder" in failure(tmp_path / "none", "org/tiny", code=5)
    (empty := tmp_path / "empty").mkdir()
    assert "neither a checkpoint nor an adapter" in failure(empty, "org/tiny", code=5)
    run = tmp_path / "run"
    write_checkpoint(run / "model", LLAMA)
    assert f"next: name {run / 'model'}" in failure(run, "org/tiny", code=5)
    (model / "README.md").write_text("# No licence\n")
    assert "--licence" in failure(model, "org/tiny", code=2)
    (model / "README.md").write_text("---\nlicense: [\n---\n")
    assert "metadata" in failure(model, "org/tiny", code=2)
    (model / "README.md").write_text(CARD)
    assert "says licence mit" in failure(model, "org/tiny", "--licence", "apache-2.0", code=2)
    assert "no licence" in failure(model, "org/tiny", "--licence", "My Own!", code=2)
    (model / "README.md").unlink()
    assert f"write {model / 'README.md'}" in failure(model, "org/tiny", code=2)
    (model / "README.md").write_text(CARD)
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[:-8])
    assert "damaged" in failure(model, "org/tiny", code=5)
    (model / WEIGHTS).write_bytes(data[:-4] + b"\x00\x00\xc0\x7f")
    assert "not finite" in failure(model, "org/tiny", code=5)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "org/..", "org/ti ny", ""])
def test_a_name_that_no_repository_has_is_told(hub: FakeHub, model: Path, name: str) -> None:
    assert "org/name" in failure(model, name, code=2)
    assert hub.requests == []


def test_without_a_token_or_offline_nothing_is_asked(
    hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in failure(model, "org/tiny", code=5)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in failure(model, "org/tiny", code=2)
    assert hub.requests == []


# What the repository holds already


def test_a_second_push_of_the_same_sends_nothing(hub: FakeHub, model: Path) -> None:
    run_nazx("push", str(model), "org/tiny")
    out, _, code = run_nazx("push", str(model), "org/tiny")
    assert code == 0
    assert out.rstrip().endswith("(as before)")
    assert len(hub.uploads.commits) == len(hub.uploads.sent) == 1


def test_other_files_are_replaced_only_where_asked(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    hub.make_repo("org/tiny", private=True, token=TOKEN)
    files = hub.repos["org/tiny"].files
    files |= {"thesis.pdf": b"mine", "model-00001-of-00002.safetensors": b"older weights"}
    before = dict(files)
    assert "holds other files: thesis.pdf, model-00001" in failure(model, "org/tiny", code=2)
    assert (files, writes(hub)) == (before, [])
    assert run_nazx("push", str(model), "org/tiny", "--force")[2] == 0
    assert files["thesis.pdf"] == b"mine"
    assert [name for name in files if name.endswith(".safetensors")] == [WEIGHTS]
    newer = write_checkpoint(tmp_path / "newer", LLAMA, seed=1)
    (newer / "README.md").write_text(CARD)
    files.pop("thesis.pdf"), files.pop("LICENSE")
    said = failure(newer, "org/tiny", code=2)
    assert f"other contents of the same files: {WEIGHTS}" in said
    assert run_nazx("push", str(newer), "org/tiny", "--force")[2] == 0
    assert files[WEIGHTS] == (newer / WEIGHTS).read_bytes()


def test_a_public_repository_gets_nothing_by_mistake(hub: FakeHub, model: Path) -> None:
    hub.make_repo("org/tiny", private=False, token=TOKEN)
    assert "--public" in failure(model, "org/tiny", "--force", code=2)
    assert writes(hub) == []
    assert run_nazx("push", str(model), "org/tiny", "--public")[2] == 0


def test_a_private_repository_stays_so(hub: FakeHub, model: Path) -> None:
    hub.make_repo("org/tiny", private=True, token=TOKEN)
    _, err, code = run_nazx("push", str(model), "org/tiny", "--public")
    assert code == 0
    assert "org/tiny is private and stays so" in err


# What goes wrong on the way; each of these Hubs repeats the token in its answer


def test_a_token_that_the_hub_does_not_know(hub: FakeHub, model: Path) -> None:
    hub.uploads.writers.clear()
    assert "does not take this token" in failure(model, "org/tiny", code=5)
    assert writes(hub) == []


def test_a_token_that_may_not_write_there(hub: FakeHub, model: Path) -> None:
    assert "may not write to others/tiny" in failure(model, "others/tiny", code=5)
    hub.repos["others/tiny"] = FakeRepo({}, private=True)
    assert "may not write to others/tiny" in failure(model, "others/tiny", code=5)


def test_a_licence_that_the_hub_does_not_know(hub: FakeHub, model: Path) -> None:
    (model / "README.md").write_text("# A tiny Llama\n")
    said = failure(model, "org/tiny", "--licence", "free-for-all", code=5)
    assert '"license" must be one of the known ones' in said
    assert hub.uploads.sent == []


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        ("/commit/", 409, "was changed meanwhile"),
        ("/commit/", 400, "answered 400 for org/tiny: too much of it ***"),
        ("/repos/create", 402, "answered 402"),
        ("/stored/", 413, "answered 413"),
        ("/preupload/", 403, "may not write to org/tiny"),
    ],
)
def test_what_the_hub_refuses_is_told_in_a_line(
    hub: FakeHub, model: Path, call: str, status: int, said: str
) -> None:
    hub.uploads.failures[call] = status, "too much of it"
    assert said in failure(model, "org/tiny", code=5)
    assert hub.uploads.commits == []
    hub.uploads.failures.clear()
    assert run_nazx("push", str(model), "org/tiny")[2] == 0


def test_somebody_elses_commit_is_not_overwritten(
    hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.make_repo("org/tiny", private=True, token=TOKEN)
    repo = hub.repos["org/tiny"]
    etag = repo.etag

    def meanwhile(name: str) -> str:
        repo.commit = "b" * 40
        return etag(name)

    hub.uploads.failures.clear()
    repo.files["README.md"] = CARD.encode()
    monkeypatch.setattr(repo, "etag", meanwhile)
    assert "was changed meanwhile" in failure(model, "org/tiny", code=5)
    assert WEIGHTS not in repo.files


def test_a_page_that_is_no_hub(hub: FakeHub, model: Path) -> None:
    hub.portal = b"<html>log in</html>"
    assert "is no Hub" in failure(model, "org/tiny", code=5)


def test_no_network(hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in failure(model, "org/tiny", code=5)


def test_an_upload_that_is_cut_off_is_sent_again(hub: FakeHub, model: Path) -> None:
    hub.uploads.cut, hub.uploads.cuts = 1000, 1
    assert run_nazx("push", str(model), "org/tiny")[2] == 0
    assert hub.repos["org/tiny"].files[WEIGHTS] == (model / WEIGHTS).read_bytes()


def test_ctrl_c_publishes_nothing_and_what_went_up_whole_is_not_sent_again(
    hub: FakeHub, shards: Path
) -> None:
    first, second = sorted(shards.glob("*.safetensors"))
    hub.uploads.hold = 1
    process = subprocess.Popen(
        [sys.executable, "-m", "nazx_cli", "push", str(shards), "org/tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert hub.holding.wait(120), process.poll()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", 130)
    assert err.splitlines()[-1].startswith("stopped; nothing was published")
    assert hub.repos["org/tiny"].files.keys() == {".gitattributes"}
    hub.uploads.hold = None
    assert run_nazx("push", str(shards), "org/tiny")[2] == 0
    assert hub.uploads.sent == [sha256_of(first), sha256_of(second)]
    assert first.name in hub.repos["org/tiny"].files
