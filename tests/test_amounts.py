"""Sizes and counts: what people write, by every way that they write it."""

from __future__ import annotations

import json

import pytest
from cli_helpers import run_nazx

from nazx_cli.amounts import parse_bytes, parse_count
from nazx_cli.errors import UsageError
from nazx_cli.session.settings import SessionSettings, with_parameter


@pytest.mark.parametrize(
    ("text", "size"),
    (
        ("8GB", 8 * 10**9),
        ("1.5 gib", 3 << 29),
        ("600MB", 6 * 10**8),
        ("1,200 MB", 12 * 10**8),
        (".5GB", 5 * 10**8),
        ("6e9", 6 * 10**9),
        ("1000", 1000),
        ("7k", 7000),
    ),
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ("", "lots", "-3GB", "0", "8 XB", "GB", "1.2.3GB", "9e999", "1,5GB", "e9")
)
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "offer"), (("8", "8GB"), ("12.5", "12.5GB"), ("999b", "999GB")))
def test_a_size_without_its_unit_is_offered_with_one(text: str, offer: str) -> None:
    with pytest.raises(UsageError, match=f"unit is missing .write {offer}"):
        parse_bytes(text)


COUNTS = {"4096": 4096, "100k": 10**5, "1M": 10**6, "100,000": 10**5, "1.5k": 1500, "1e5": 10**5}


@pytest.mark.parametrize(("text", "count"), COUNTS.items())
def test_counts_are_read_alike_by_options_and_by_set(text: str, count: int) -> None:
    assert parse_count(text) == count
    for name in ("ctx", "max_tokens"):
        assert getattr(with_parameter(SessionSettings(), name, text)[0], name) == count
    out, _, code = run_nazx("vram-estimate", "--ctx", text, "--json")
    assert (code, json.loads(out)["tokens"]) == (0, count)


@pytest.mark.parametrize("text", ("", "many", "-1", "0", "1.5", "1,00", "1k2", "9e999"))
def test_what_is_no_count_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_count(text)
    _, err, code = run_nazx("vram-estimate", "--ctx", text)
    assert code == 2 and "--ctx" in err


COUNTED = {
    "tune": ("--batch-tokens", "--longest", "--steps", "--questions", "--calibrate"),
    "train": ("--layers", "--width", "--context", "--vocab", "--steps", "--batch-tokens"),
    "convert": ("--window", "--sinks"),
    "eval": ("--limit", "--extract-words", "--ctx", "--max-tokens"),
    "bench": ("--ctx", "--repeat", "--threads"),
}


@pytest.mark.parametrize(
    ("command", "flag"), [(name, flag) for name, flags in COUNTED.items() for flag in flags]
)
def test_every_option_that_counts_reads_counts_alike(command: str, flag: str) -> None:
    _, err, code = run_nazx(command, flag, "1.5", "there-is-none", "more")
    assert code == 2 and "write it as 4096, 100k or 1M" in " ".join(err.replace("│", "").split())
    for text in ("100k", "1M", "100,000"):
        _, err, _ = run_nazx(command, flag, text, "--no-such-option")
        assert "No such option" in err and text not in err


def test_a_card_without_its_unit_is_a_usage_error() -> None:
    _, err, code = run_nazx("vram-estimate", "--vram", "8")
    assert code == 2 and "write 8GB" in err
