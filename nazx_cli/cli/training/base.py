"""Loading the model that a tuning begins from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from nazx_cli.names import NO_ADAPTER

if TYPE_CHECKING:
    from nazx_cli.cli.shared.options import Report
    from nazx_cli.engine.language_model import LanguageModel


class Base(Protocol):
    """What a run keeps of it."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def load_base(base: Base, report: Report, offline: bool) -> LanguageModel:
    """The model as it is, without adapters."""
    from nazx_cli.engine.language_model import load_model

    with report.progress(f"loading {base.model}") as update:
        return load_model(
            base.model,
            device=base.device,
            dtype=base.dtype,
            revision=base.revision,
            offline=offline,
            adapter=NO_ADAPTER,
            on_progress=update,
        )
