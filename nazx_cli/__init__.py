"""NazX: local chat with documents far bigger than the context window.

``load_model`` is the Python interface; importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nazx_cli.errors import NazxError

if TYPE_CHECKING:
    from nazx_cli.engine.language_model import load_model as load_model

__version__ = "0.1.0"
__all__ = ["NazxError", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from nazx_cli.engine.language_model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
