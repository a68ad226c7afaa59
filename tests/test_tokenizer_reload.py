"""Changed files of a workspace: tokenized around what has changed, as if read afresh."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import LLAMA, write_checkpoint

from nazx_cli.names import OnProgress
from nazx_cli.reading.tokenized import TokenizedDocument
from nazx_cli.session.files import read_again, read_new
from nazx_cli.tokenizer import Tokenizer, Tokens


class Counting(Tokenizer):
    """Counts the characters that it encodes."""

    encoded = 0

    def encode_document(
        self, text: str, on_progress: OnProgress | None = None, *, continued: bool = False
    ) -> Tokens:
        self.encoded += len(text)
        return super().encode_document(text, on_progress, continued=continued)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Counting:
    return Counting.from_folder(write_checkpoint(tmp_path / "model", LLAMA))  # type: ignore[return-value]


def check(part: TokenizedDocument, text: str, tokenizer: Tokenizer) -> None:
    fresh = TokenizedDocument.build(part.document, tokenizer)
    assert part.document.text == text
    assert np.array_equal(part.ids, fresh.ids)
    assert np.array_equal(part.starts, fresh.starts)


def test_a_changed_file_is_encoded_around_the_change(
    tmp_path: Path, tokenizer: Counting, alice: str
) -> None:
    path = tmp_path / "book.txt"
    path.write_text(alice, encoding="utf-8")
    (part,) = read_new([str(path)], (), tokenizer).added
    changed = alice.replace("Duchess", "Baroness", 1) + "\nThe end, again."
    path.write_text(changed, encoding="utf-8")
    os.utime(path, ns=(1, 1))
    tokenizer.encoded = 0
    again = read_again(part, tokenizer)
    assert 0 < tokenizer.encoded < len(changed)
    check(again, changed, tokenizer)
    assert read_again(again, tokenizer) is again


def test_a_file_put_in_anothers_place_takes_over_what_is_alike(
    tmp_path: Path, tokenizer: Counting, alice: str
) -> None:
    for name, text in (("old", alice), ("new", f"Preface.\n{alice}"), ("other", "A fox.")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (old,) = read_new([str(tmp_path / "old.txt")], (), tokenizer).added
    tokenizer.encoded = 0
    for name, most in (("new", 100), ("other", 100)):
        path = str(tmp_path / f"{name}.txt")
        (part,) = read_new([path], (), tokenizer, like=old).added
        assert tokenizer.encoded < most
        check(part, Path(path).read_text(encoding="utf-8"), tokenizer)
        tokenizer.encoded = 0
