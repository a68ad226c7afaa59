"""Files that others wrote: every way in which they can be wrong is one line and exit code 5."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from cli_helpers import run_nazx, tiny_checkpoint
from tiny_gguf import llama, write_gguf
from transformers import LlamaForCausalLM

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.foreign import guarded, read_object

JSON_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
    "model.safetensors.index.json",
)
DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_JSON = {
    "deep": b'{"a": ' + DEEP + b"}",
    "deep-but-parsed": b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
    "list": b"[]",
    "empty": b"",
    "html": b"<!DOCTYPE html><html>",
    "half-a-character": b'{"vocab_size": "\\ud800"}',
    "digits": b'{"vocab_size": ' + b"9" * 10_000 + b"}",
    "not-utf8": b'{"a": "\xff"}',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "model")


def one_line(*arguments: str, code: int = 5) -> str:
    """The error of a command that has to fail with ``code``."""
    _, stderr, found = run_nazx(*arguments)
    assert found == code, stderr
    assert "internal error" not in stderr and "Traceback" not in stderr
    (line,) = (line for line in stderr.splitlines() if line.startswith("error:"))
    assert "next:" in line
    return line


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("how", BAD_JSON)
def test_a_json_file_that_is_none_is_named(folder: Path, name: str, how: str) -> None:
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(BAD_JSON[how])
    assert name in one_line("show", str(folder))


def test_a_file_that_is_no_file_is_not_waited_for(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(folder / "generation_config.json")
    assert "no regular file" in one_line("show", str(folder))


def test_a_file_beyond_any_real_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelUnavailableError, match="more than any real one"):
        read_object(tmp_path / "big.json")


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("wrong", [300, -1, 1 << 40, 1.5, "2", True, [2, 300], [-1], ["2"]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_stop_token_that_no_model_can_say_is_named(folder: Path, name: str, wrong: Any) -> None:
    (folder / "generation_config.json").write_text("{}")
    changed(folder / name, lambda data: data.update(eos_token_id=wrong))
    assert "eos_token_id" in one_line("show", str(folder))


@pytest.mark.parametrize("number", [259, 4_000_000_000])
def test_a_token_beyond_the_vocabulary_is_refused(folder: Path, number: int) -> None:
    changed(folder / "tokenizer.json", lambda data: data["model"]["vocab"].update(zz=number))
    line = one_line("ask", "-m", str(folder), "Why?")
    assert f"{number:,}" in line and "259" in line
    assert "vocabulary" in one_line("verify", str(folder))


PANICS: dict[str, dict[str, Any]] = {
    "when-read": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "when-used": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
}


@pytest.mark.parametrize("when", PANICS)
def test_a_tokenizer_that_panics_is_one_line(
    folder: Path, when: str, capfd: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "tokenizer.json", lambda data: data.update(PANICS[when]))
    assert "tokenizer" in one_line("ask", "-m", str(folder), "a" * 60 + "b")
    assert "panicked" not in capfd.readouterr().err


def test_the_guard_lets_through_what_is_not_the_librarys(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with guarded("it failed", "try again"):
        os.write(2, b"said meanwhile")
    assert capfd.readouterr().err == "said meanwhile"
    for error in (KeyboardInterrupt, MemoryError):
        with pytest.raises(error), guarded("it failed", "try again"):
            raise error
    with pytest.raises(ModelUnavailableError, match=r"^it failed: one"), guarded("it failed", "n"):
        raise RuntimeError("one\ntwo")


WRONG_VALUES = {
    "text": ("add_string", "x"),
    "list": ("add_array", [1, 2, 3]),
    "texts": ("add_array", ["a", "b"]),
    "flag": ("add_bool", True),
    "negative": ("add_int64", -1),
    "huge": ("add_uint64", 2**64 - 1),
    "nan": ("add_float32", float("nan")),
}
METADATA = (
    *("llama.block_count", "llama.context_length", "llama.embedding_length"),
    *("llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv"),
    *("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"),
    *("llama.attention.key_length", "llama.rope.scaling.type"),
    *("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens"),
    *("tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id"),
    *("tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id"),
    *("tokenizer.ggml.padding_token_id", "tokenizer.ggml.add_bos_token"),
    *("tokenizer.chat_template", "general.architecture", "general.alignment"),
)
FITTING = {
    ("tokenizer.chat_template", "text"),
    ("tokenizer.ggml.add_bos_token", "flag"),
    ("llama.attention.key_length", "nan"),
}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return llama(tied=True)


@pytest.fixture(scope="module")
def sound(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(path, model, {})
    return path.read_bytes()


WRONG = [(key, kind) for key in METADATA for kind in WRONG_VALUES if (key, kind) not in FITTING]


@pytest.mark.parametrize(
    ("key", "kind"),
    [  # every key by one or two kinds, and every kind by many keys; -m slow has the others
        pytest.param(*pair, marks=() if at % 5 == 0 else pytest.mark.slow)
        for at, pair in enumerate(WRONG)
    ],
)
def test_gguf_metadata_of_a_wrong_type_is_named(
    tmp_path: Path, model: LlamaForCausalLM, key: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    with monkeypatch.context() as patch:
        replace_entry(patch, key, *WRONG_VALUES[kind])
        write_gguf(path, model, {})
    line = one_line("convert", str(path), str(tmp_path / "out"))
    assert str(path) in line
    assert "partial" not in line
    assert not (tmp_path / "out").exists()


def replace_entry(patch: pytest.MonkeyPatch, key: str, add: str, value: Any) -> None:
    """Have the writer put ``value`` in the place of what it is told for ``key``."""
    write = gguf.GGUFWriter.write_header_to_file

    def wrong(self: gguf.GGUFWriter, *args: Any) -> None:
        self.kv_data[0].pop(key, None)
        getattr(self, add)(key, value)
        write(self, *args)

    patch.setattr(gguf.GGUFWriter, "write_header_to_file", wrong)


@pytest.mark.parametrize("at", [8, 16, 24], ids=["tensors", "entries", "length"])
def test_gguf_counts_beyond_the_file_cost_nothing(tmp_path: Path, sound: bytes, at: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(sound[:at] + (1 << 60).to_bytes(8, "little") + sound[at + 8 :])
    assert "damaged" in one_line("convert", str(path), str(tmp_path / "out"))
