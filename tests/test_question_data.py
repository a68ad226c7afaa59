"""The questions that come with the tests: whole, and no text in two splits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*/*.jsonl"))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_questions_are_whole(path: Path) -> None:
    asked: list[tuple[str, str]] = []
    for record in records(path):
        lines = [section["lines"] for section in record["sections"]]
        assert all(first <= last for first, last in lines)
        assert all(one[1] < other[0] for one, other in pairwise(lines))
        known = {section["id"] for section in record["sections"]}
        for each in record["questions"]:
            asked.append((record["file"], each["question"]))
            if each.get("unanswerable"):
                assert "answers" not in each
            else:
                assert each["answers"] and all(each["answers"]) and each["evidence"]
                assert each["sections"] and set(each["sections"]) <= known
    assert asked and len(set(asked)) == len(asked)


@pytest.mark.parametrize("kind", ["novels", "manuals"])
def test_what_is_reported_on_was_not_trained_on(kind: str) -> None:
    files = {
        path.stem: {record["file"] for record in records(path)}
        for path in FILES
        if path.parent.name == kind
    }
    taught = files.pop("train") | files.pop("more", set())
    judged = [name for each in files.values() for name in each]
    assert len(judged) == len(set(judged)) and not taught & set(judged)
