"""Every test: one compute thread, a NAZX_HOME of its own, no Hub, no user settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# In the background of a script Ctrl-C is ignored, and by what tests start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Many tests start a process: the first compiles the package, not each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
import torch
from fake_hub import FakeHub
from serving_helpers import Server, running
from stored_models import two_models

from nazx_cli.kernels.processor import processor_flags

if TYPE_CHECKING:
    import openai

# Before Triton is imported: without a GPU its kernel runs in its interpreter, and only where a
# test asks for it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def processors() -> tuple[str, ...]:
    """What ``NAZX_MARCH`` can be here: nothing, for this processor, and what else it can run: AVX2
    for a processor whose compiler rounds products and sums apart in tight loops."""
    return ("", "znver2") if "avx512bw" in processor_flags() else ("",)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are kept: for all tests, since compiling takes a moment, and for all
    processes that share them out."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "kernels"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def isolated_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, kernels: Path
) -> Path:
    home = tmp_path_factory.mktemp("nazx-home")
    for name in list(os.environ):
        if name.startswith("NAZX_") or name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NAZX_HOME", str(home))
    monkeypatch.setenv("NAZX_KERNELS", str(kernels))
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return home


@pytest.fixture(scope="session")
def alice() -> str:
    return (Path(__file__).parent / "data" / "alice.txt").read_text(encoding="utf-8")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub, and a machine that has two of its models."""
    with two_models(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``nazx serve`` of the tiny model, for all tests of a file."""
    options = ("--max-file", "1MB", "--max-tokens", "24")
    with running(tmp_path_factory.mktemp("serving"), *options) as found:
        yield found


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    """OpenAI's, of the server that the test file has."""
    return server.client()


@pytest.fixture(params=("cpu", pytest.param("cuda", marks=pytest.mark.gpu)))
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the kernel runs: a GPU, or Triton's interpreter."""
    pytest.importorskip("triton")
    found = torch.device(request.param)
    if found.type == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    elif os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is off")
    else:
        monkeypatch.setenv("NAZX_NATIVE", "triton")
    return found


@pytest.fixture(params=processors(), ids=lambda name: name or "this processor")
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Code for this processor, and for each lesser one that has a form of its own."""
    monkeypatch.setenv("NAZX_MARCH", request.param)
    return str(request.param)
