"""``nazx doctor``, and what other commands that only look do not wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_helpers import run_nazx as nazx
from fake_hub import FakeHub
from stored_models import facts, weights_of

ROOT = Path(__file__).parents[1]


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
