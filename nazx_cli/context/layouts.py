"""The table of memory layouts. A new layout is one file and one line here and in ``cost``."""

from __future__ import annotations

from nazx_cli.context.cached import CachedLayout
from nazx_cli.context.grams import GramsLayout
from nazx_cli.context.layout import Layout
from nazx_cli.context.postings import PairsLayout, PostingsLayout
from nazx_cli.context.scan import IdsLayout, StatesLayout
from nazx_cli.context.tables import TablesLayout

LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (
        IdsLayout,
        StatesLayout,
        PostingsLayout,
        PairsLayout,
        TablesLayout,
        GramsLayout,
        CachedLayout,
    )
}
"""By name; each is made from a model's projections and the name of its kernel."""
