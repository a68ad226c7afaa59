"""The tables of memory layouts. A new layout is one file and one line here and in ``cost``."""

from __future__ import annotations

from collections.abc import Callable

from nazx_cli.context.cached import CachedLayout
from nazx_cli.context.ids import IdsLayout
from nazx_cli.context.layout import Layout
from nazx_cli.context.native.kernel import Kernel, kernel_for
from nazx_cli.context.native.layouts import NativePairs, NativePostings
from nazx_cli.context.pairs import PairsLayout
from nazx_cli.context.postings import PostingsLayout
from nazx_cli.context.projections import Projections
from nazx_cli.context.states import StatesLayout
from nazx_cli.context.tables import TablesLayout
from nazx_cli.context.triton.layouts import TritonPairs, TritonPostings
from nazx_cli.context.triton.support import usable

LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (
        IdsLayout,
        StatesLayout,
        PostingsLayout,
        PairsLayout,
        TablesLayout,
        CachedLayout,
    )
}
NATIVE: dict[str, Callable[[Projections, Kernel], Layout]] = {
    layout.name: layout for layout in (NativePostings, NativePairs)
}
"""Those that have a form of their own for the compiled kernel."""
TRITON: dict[str, type[Layout]] = {layout.name: layout for layout in (TritonPostings, TritonPairs)}
"""And for the Triton kernel."""


def new_layout(name: str, projections: Projections) -> Layout:
    """The layout called ``name`` in the quickest form that this machine can run."""
    p = projections
    if name in TRITON and usable(p.config, p.device, p.dtype):
        return TRITON[name](p)
    if name in NATIVE and (kernel := kernel_for(p.config, p.device, p.dtype)) is not None:
        return NATIVE[name](p, kernel)
    return LAYOUTS[name](projections)
