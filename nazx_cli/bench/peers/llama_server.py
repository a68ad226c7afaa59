"""llama-cpp-python's server, started as its users start it, one request after the other: without
``--interrupt_requests false`` a new one would end the one before.

It has no option for weights that are not repacked, which some machines need: see ``llama_peer``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = "llama_cpp.server is not installed: pip install 'nazx[bench]'"
_AS_IT_IS = "as-it-is"


def is_installed() -> bool:
    """Whether the server can be imported."""
    return all(find_spec(name) for name in ("llama_cpp", "fastapi", "pydantic_settings"))


def command(file: Path, port: int, threads: int, positions: int, repack: bool) -> list[str]:
    """How to start it for a GGUF file, with room for prompts of so many ``positions``."""
    options = {
        "model": file,
        "port": port,
        "n_ctx": positions,
        "n_threads": threads,
        "n_threads_batch": threads,
        "interrupt_requests": "false",
        "verbose": "false",
    }
    named = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", __name__, *([] if repack else [_AS_IT_IS]), *named]


def _leave_weights_as_they_are() -> None:
    library: Any = import_module("llama_cpp.llama_cpp")
    default = library.llama_model_default_params

    def as_they_are() -> Any:
        parameters = default()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = as_they_are


if __name__ == "__main__":
    if sys.argv[1] == _AS_IT_IS:
        del sys.argv[1]
        _leave_weights_as_they_are()
    import_module("llama_cpp.server.__main__").main()
