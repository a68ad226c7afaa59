"""The table of memory layouts. A new layout is one file and one line here and in ``cost``."""

from __future__ import annotations

from nazx_cli.context.cached import CachedLayout
from nazx_cli.context.ids import IdsLayout
from nazx_cli.context.layout import Layout
from nazx_cli.context.postings import PostingsLayout
from nazx_cli.context.states import StatesLayout
from nazx_cli.context.tables import TablesLayout

LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (IdsLayout, StatesLayout, PostingsLayout, TablesLayout, CachedLayout)
}
