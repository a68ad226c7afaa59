"""Facts that several packages need, each said once; imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

READ_MODES: Mapping[str, str] = MappingProxyType(
    {
        "auto": "resident where the model is trained for it, else recall; a question about the "
        "whole gets passages from all of it",
        "recall": "the passages that fit the question best go into the prompt",
        "all": "every block is read in turn and the partial answers are combined",
        "resident": "the model attends to the documents as a whole",
        "tail": "the end of the documents goes into the prompt",
    }
)
"""Ways in which documents reach the model (``--read``), and what each does."""

DEFAULT_MODEL = "nazx-smol-135m"

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Number formats of weights and arithmetic (``--dtype``)."""
