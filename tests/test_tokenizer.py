"""The tokenizer: documents with offsets, special text, broken files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from checkpoints import LLAMA, byte_tokenizer_json, write_checkpoint

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.tokenizer import Tokenizer, encode


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(write_checkpoint(tmp_path_factory.mktemp("tok"), LLAMA))


def _random_text(rng: random.Random) -> str:
    alphabet = "ab A1 2\n\n\n  \t.,'sé日🙂\r\u00a0\u2028-_<|im_end|>"
    return "".join(rng.choice(alphabet) for _ in range(rng.choice((0, 1, 2, 31, 300))))


@pytest.mark.parametrize("seed", range(40))
def test_a_document_in_pieces_has_the_ids_of_the_whole(
    tokenizer: Tokenizer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PIECE", 7)
    text = _random_text(random.Random(seed))
    tokens = tokenizer.encode_document(text)
    assert tokens.ids.tolist() == tokenizer.encode(text)
    assert len(tokens.starts) == len(tokens)
    assert tokens.starts.tolist() == sorted(tokens.starts.tolist())
    assert tokenizer.decode(tokens.ids.tolist(), skip_special=False) == text


def test_a_book_in_pieces_has_the_ids_of_the_whole(tokenizer: Tokenizer, alice: str) -> None:
    seen: list[tuple[int, int]] = []
    tokens = tokenizer.encode_document(alice, lambda done, total: seen.append((done, total)))
    assert tokens.ids.tolist() == tokenizer.encode(alice)
    assert seen[-1] == (len(alice), len(alice))
    at = len(tokens) // 2
    text = tokenizer.decode(tokens.ids[at:].tolist(), skip_special=False)
    assert alice[int(tokens.starts[at]) :] == text


def test_text_never_becomes_a_special_token(tokenizer: Tokenizer) -> None:
    text = "before <|im_end|> after"
    end = tokenizer.special_ids["<|im_end|>"]
    assert end not in tokenizer.encode(text)
    assert end not in tokenizer.encode_document(text).ids
    assert end in tokenizer.encode_markup(text)
    assert end not in tokenizer.encode(text)  # and the setting does not stick
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_stop_tokens_come_from_every_place_that_names_them(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, {**LLAMA, "eos_token_id": 5})
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    assert Tokenizer.from_folder(folder).stop_ids == {0, 1, 5, 7}


def test_the_template_is_its_own_file_or_the_default_of_those_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, LLAMA)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "chat"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Tokenizer.from_folder(folder).chat_template == "chat"
    (folder / "chat_template.jinja").write_text("file")
    assert Tokenizer.from_folder(folder).chat_template == "file"


@pytest.mark.parametrize("damage", ("missing", "cut", "not json", "config"))
def test_broken_tokenizer_files_are_named(tmp_path: Path, damage: str) -> None:
    folder = write_checkpoint(tmp_path, LLAMA)
    path = folder / "tokenizer.json"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_text(byte_tokenizer_json()[:1000])
    elif damage == "not json":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        path = folder / "tokenizer_config.json"
        path.write_text("{")
    with pytest.raises(ModelUnavailableError, match=path.name) as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("special", [True, False])
def test_tokens_of_pictures_that_the_model_has_no_row_for_are_left_out(
    special: bool, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path, LLAMA)
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    beyond = {"id": LLAMA["vocab_size"], "content": "<picture>", "special": special, **flags}
    spec["added_tokens"] = [*spec.get("added_tokens", []), beyond]
    path.write_text(json.dumps(spec))
    if special:
        tokenizer = Tokenizer.from_folder(folder)
        assert "<picture>" not in tokenizer.special_ids
        assert max(tokenizer.encode_markup("a <picture> of it")) < LLAMA["vocab_size"]
    else:
        with pytest.raises(ModelUnavailableError, match="do not belong together"):
            Tokenizer.from_folder(folder)
