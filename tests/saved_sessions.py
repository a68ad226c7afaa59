"""Sessions saved into a store and loaded from it, in one call each."""

from __future__ import annotations

from reading_helpers import small_tokenizer
from store_helpers import MODEL

from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import Snapshot, State

TOKENIZER = small_tokenizer()


def save(store: Store, name: str, state: State) -> None:
    with store.open(name, create=True) as file:
        file.save({"main": state}, "main", (), MODEL)


def load(store: Store, name: str) -> Snapshot:
    with store.open(name, create=False) as file:
        saved = file.load(TOKENIZER, MODEL)
    assert saved is not None
    return saved


def main_of(store: Store, name: str) -> State:
    return load(store, name).branches["main"]
