"""That a training meets the compiled code of its products again, and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TWICE = """
import sys
from pathlib import Path
from training_models import fresh, random_pack, with_random_additions
from nazx_cli.training.gradients.engines import OnPacks, lora_engine
from nazx_cli.training.lora import LoraSettings
from nazx_cli.training.trainer import Schedule, Trainer

folder = Path(sys.argv[1])
lm = fresh(folder / "model", dtype="bfloat16")
engine = OnPacks(lora_engine(lm.decoder, with_random_additions(lm, LoraSettings(16))))
pack = random_pack(1, prefix=700, branches=24)
(folder / "run").mkdir()
Trainer(engine, [pack], [], Schedule(steps=1), folder / "run")
for _ in range(2):
    engine.loss(pack, 1.0)
    print("once", flush=True)
"""


@pytest.mark.slow
def test_no_product_is_compiled_twice(tmp_path: Path) -> None:
    """A chat keeps the code of 32 shapes: so few made every step compile each of them anew."""
    here = str(Path(__file__).parent)
    paths = os.pathsep.join((here, str(Path(here).parent), os.environ.get("PYTHONPATH", "")))
    kept = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(tmp_path)],
        env={**kept, "PYTHONPATH": paths, "ONEDNN_VERBOSE": "all"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, _ = done.stdout.split("once")
    compiled = first.count("create:cache_miss")
    if not compiled:
        pytest.skip("this processor does not multiply bfloat16 by compiled code")
    assert compiled > 32
    assert second.count("create:cache_miss") == 0
    assert second.count("create:cache_hit") > 0
