"""The compiled step as ARM runs it: the same positions as on this processor, in an emulator.

What this processor gives is held to PyTorch in ``test_one_position``.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from models import relative_error
from torch import Tensor

from nazx_cli.kernels.native import compiler, step

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parent / "data" / "step_driver.c"
EMULATOR = "qemu-aarch64"
ARM = {
    "gcc": ["aarch64-linux-gnu-gcc"],
    "clang": ["clang", "--target=aarch64-linux-gnu"],
}
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "nf4": 3}
LAYERS, HIDDEN, HEADS, KV_HEADS, DIM, INNER, WORDS, POSITIONS, CAPACITY = (
    2,
    192,
    6,
    2,
    24,
    64,
    50,
    5,
    40,
)


def problem(kind: str, *, narrow: bool) -> bytes:
    """What the driver reads: random weights of that kind, a cache that is nearly full."""
    draw = torch.Generator().manual_seed(KINDS[kind])
    dense = torch.bfloat16 if narrow else torch.float32
    parts: list[bytes] = []

    def put(*tensors: Tensor | None) -> None:
        for tensor in tensors:
            held = b"" if tensor is None else tensor.contiguous().view(-1).view(torch.uint8)
            parts.append(bytes(held.tolist()) if isinstance(held, Tensor) else held)

    def normal(*shape: int, by: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=draw) * by

    def matrix(rows: int, columns: int, kind: str) -> None:
        count = rows * columns
        size = columns**-0.5
        if kind == "int8":
            codes = torch.randint(-127, 128, (count,), generator=draw, dtype=torch.int8)
            put(codes, normal(rows).abs() * size / 127)
        elif kind == "nf4":
            codes = torch.randint(0, 256, (count // 2,), generator=draw, dtype=torch.uint8)
            put(codes, normal(count // 64).abs() * size)
        else:
            put(normal(rows, columns, by=size).to(dense), None)

    sizes = (KINDS[kind], LAYERS, HIDDEN, HEADS, KV_HEADS, DIM, INNER, WORDS, POSITIONS, CAPACITY)
    put(torch.tensor(sizes))
    for _ in range(LAYERS):
        put(1 + normal(HIDDEN, by=0.1), 1 + normal(HIDDEN, by=0.1))
        matrix((HEADS + 2 * KV_HEADS) * DIM, HIDDEN, kind)
        matrix(HIDDEN, HEADS * DIM, kind)
        matrix(2 * INNER, HIDDEN, kind)
        matrix(HIDDEN, INNER, kind)
    put(1 + normal(HIDDEN, by=0.1))
    matrix(WORDS, HIDDEN, "bfloat16" if narrow else "float32")
    cache = LAYERS, KV_HEADS, CAPACITY, DIM
    put(normal(*cache).to(dense), normal(*cache).to(dense), normal(POSITIONS, HIDDEN))
    angles = torch.rand(POSITIONS + 1, DIM // 2, generator=draw)
    put(torch.cat((angles.cos(), angles.sin()), 1))
    return b"".join(struct.pack("<q", len(part)) + part for part in parts)


def built(command: list[str], folder: Path, *, narrow: bool) -> Path:
    program = folder / f"{len(list(folder.iterdir()))}"
    flags = [*compiler._COMMON, f"-DNARROW={int(narrow)}", f"-I{step._SOURCE.parent}"]
    flags = [flag for flag in flags if flag not in ("-shared", "-fPIC")]
    subprocess.run([*command, *flags, str(DRIVER), "-o", str(program), "-lm"], check=True)
    return program


def given(command: list[str], text: bytes, narrow: bool) -> tuple[Tensor, Tensor]:
    """Logits, and keys and values."""
    out = bytearray(subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True).stdout)
    size = 4 * POSITIONS * WORDS
    cache = torch.frombuffer(out[size:], dtype=torch.bfloat16 if narrow else torch.float32)
    return torch.frombuffer(out[:size], dtype=torch.float32), cache.float()


@pytest.mark.parametrize("narrow", (False, True), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("name", ARM)
def test_arm_gives_what_this_processor_gives(name: str, narrow: bool, tmp_path: Path) -> None:
    here = compiler.find_compiler()
    if here is None or not shutil.which(ARM[name][0]) or not shutil.which(EMULATOR):
        pytest.skip(f"needs {ARM[name][0]}, {EMULATOR} and a compiler for this processor")
    own = built([here, *compiler._NATIVE[0]], tmp_path, narrow=narrow)
    arm = built([*ARM[name], "-static"], tmp_path, narrow=narrow)
    for kind in ("bfloat16" if narrow else "float32", "int8", "nf4"):
        text = problem(kind, narrow=narrow)
        want, got = given([str(own)], text, narrow), given([EMULATOR, str(arm)], text, narrow)
        # A number of the cache may be rounded to the next one in bfloat16.
        limit = 3e-3 if narrow else 1e-5
        assert all(relative_error(a, b) < limit for a, b in zip(got, want, strict=True))
