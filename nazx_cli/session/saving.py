"""Writing a session into its file: what is new, in one transaction."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Generic, TypeVar

from nazx_cli.session.database import transaction
from nazx_cli.session.jsonbytes import dumps, loads
from nazx_cli.session.packing import Packed, pack

if TYPE_CHECKING:
    from nazx_cli.reading.part import Part
    from nazx_cli.session.history import Turn
    from nazx_cli.session.saved import ModelTag
    from nazx_cli.session.state import State

_MOST_WASTE = 32 << 20  # bytes of parts that no branch has; more do not wait for the end

_T = TypeVar("_T")


class Saver:
    """Saves one session to ``database``, again and again; ``sqlite3.Error`` where that fails."""

    def __init__(self, database: sqlite3.Connection) -> None:
        from nazx_cli.session.records import part_key, turn_key

        self._database = database
        self._parts: _Keyed[Part] = _Keyed(part_key)
        self._turns: _Keyed[Turn] = _Keyed(turn_key)

    def save(
        self, branches: Mapping[str, State], branch: str, watched: Iterable[str], model: ModelTag
    ) -> None:
        """Make the file hold exactly this; nothing of it if an error comes up."""
        from nazx_cli.session.records import state_json, turn_record

        present = branches[branch]
        self._parts.look_at(part for state in branches.values() for part in state.parts)
        self._turns.look_at(turn for state in branches.values() for turn in state.history.turns)
        states = {
            dumps(name): state_json(
                state, self._parts.keys(state.parts), self._turns.keys(state.history.turns)
            )
            for name, state in branches.items()
        }
        meta: dict[str, object] = {
            "model": asdict(model),
            "saved": datetime.now(timezone.utc).isoformat(),
            "branch": branch,
            "watched": sorted(watched),
            "turns": len(present.history.turns),
            "documents": len(present.parts),
            "tokens": sum(map(len, present.parts)),
        }
        stale = self._tokenizer() not in (None, model.tokenizer_sha256)
        parts = self._parts.without(set() if stale else self._stored("parts"))
        packed = {
            key: pack(part.document.text, part.ids, part.starts) for key, part in parts.items()
        }
        turns = self._turns.without(self._stored("turns"))
        with transaction(self._database):
            if stale:  # ids of another tokenizer
                self._database.execute("DELETE FROM parts")
            for key, part in parts.items():
                self._insert_part(key, part, packed[key])
            self._database.executemany(
                "INSERT INTO turns VALUES (?, ?)",
                [(key, zlib.compress(turn_record(turn))) for key, turn in turns.items()],
            )
            self._put_branches(states)
            self._put_meta(meta)
            if self._waste() > _MOST_WASTE:
                self._delete_unused()

    def purge(self) -> None:
        """Remove what no branch has, and give its space back."""
        with transaction(self._database):
            self._delete_unused()
        # Not execute(): that frees a single page.
        self._database.executescript("PRAGMA incremental_vacuum")

    def _insert_part(self, key: str, part: Part, packed: Packed) -> None:
        from nazx_cli.session.records import document_json

        self._database.execute(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                document_json(part),
                packed.tokens,
                packed.nbytes,
                packed.ids,
                packed.vocabulary,
                packed.text,
                packed.starts,
            ),
        )

    def _put_branches(self, states: Mapping[bytes, bytes]) -> None:
        before = dict(self._database.execute("SELECT name, state FROM branches"))
        self._database.executemany(
            "DELETE FROM branches WHERE name = ?", [(name,) for name in before.keys() - states]
        )
        self._database.executemany(
            "REPLACE INTO branches VALUES (?, ?)",
            [item for item in states.items() if before.get(item[0]) != item[1]],
        )

    def _put_meta(self, meta: Mapping[str, object]) -> None:
        rows = [(key, dumps(value)) for key, value in meta.items()]
        created = dumps(meta["saved"])
        self._database.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (created,))
        self._database.executemany("REPLACE INTO meta VALUES (?, ?)", rows)

    def _tokenizer(self) -> str | None:
        """SHA-256 of the tokenizer that the stored ids belong to; None: none are stored."""
        row = self._database.execute("SELECT value FROM meta WHERE key = 'model'").fetchone()
        return str(loads(row[0])["tokenizer_sha256"]) if row else None

    def _stored(self, table: str) -> set[str]:
        return {key for (key,) in self._database.execute(f"SELECT key FROM {table}")}

    def _waste(self) -> int:
        used = self._used("parts")
        sizes = self._database.execute("SELECT key, nbytes FROM parts")
        return sum(nbytes for key, nbytes in sizes if key not in used)

    def _delete_unused(self) -> None:
        for table in ("parts", "turns"):
            unused = self._stored(table) - self._used(table)
            self._database.executemany(
                f"DELETE FROM {table} WHERE key = ?", [(key,) for key in unused]
            )

    def _used(self, table: str) -> set[str]:
        """Keys of the parts or turns that some branch has."""
        states = [loads(state) for (state,) in self._database.execute("SELECT state FROM branches")]
        return {key for state in states for key in state[table]}


class _Keyed(Generic[_T]):
    """Values that never change by the keys they are stored under, each computed once."""

    def __init__(self, key_of: Callable[[_T], str]) -> None:
        self._key_of = key_of
        self._known: dict[int, tuple[_T, str]] = {}  # kept alive, so that no id comes again

    def look_at(self, values: Iterable[_T]) -> None:
        """Know these values and no others."""
        known: dict[int, tuple[_T, str]] = {}
        for value in values:
            if id(value) not in known:
                before = self._known.get(id(value))
                known[id(value)] = before or (value, self._key_of(value))
        self._known = known

    def keys(self, values: Iterable[_T]) -> list[str]:
        """The keys of known values."""
        return [self._known[id(value)][1] for value in values]

    def without(self, keys: set[str]) -> dict[str, _T]:
        """The known values by their keys, those of ``keys`` left out."""
        return {key: value for value, key in self._known.values() if key not in keys}
