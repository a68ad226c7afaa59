"""What reading far texts has left: states of constant size, by what they were made of.

A text is read a segment at a time, from its beginning. A state is named by a digest of all the ids
that it was made of, after one of the weights that made it: text that is edited, put in another
order, or read by another model or adapter has other names from the change on, and what stands
before the change is found and not read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256

from torch import Tensor

from nazx_cli.context.cost import FAR_STATES

Run = Callable[[Tensor, Tensor | None], Tensor]
"""(ids (n,) of a segment, the state before it) -> the state after it"""

_MARKS = 4  # of a long text, at even distances: to go on from after an edit


class FarStates:
    """The states that are held, all of one shape, of texts read ``segment`` tokens at a time: the
    last ``FAR_STATES`` that were made or used."""

    def __init__(self, segment: int) -> None:
        self.segment = segment
        self._held: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(state.nbytes for state in self._held.values())

    def name(self, ids: Tensor, weights: bytes) -> str:
        """Of the state after all of ids (N,) int32; empty where N is 0."""
        return (self._names(ids, weights) or [""])[-1]

    def get(self, name: str) -> Tensor | None:
        """The state of that name; None where it is not held, or is that of no text."""
        if name in self._held:
            self._held.move_to_end(name)
        return self._held.get(name)

    def read(self, ids: Tensor, weights: bytes, run: Run) -> Iterator[int]:
        """Come to hold the state after ids (N,) int32; yields how many tokens are read before each
        segment. What is stopped goes on after the last segment that was read whole."""
        names = self._names(ids, weights)
        count = len(names)
        whole = len(ids) // self.segment
        marks = {whole, count, *(count * n // (_MARKS + 1) for n in range(1, _MARKS + 1))}
        done = next((at for at in range(count, 0, -1) if names[at - 1] in self._held), 0)
        state = self.get(names[done - 1]) if done else None
        for at in range(done, count):
            yield at * self.segment
            state = run(ids[at * self.segment : (at + 1) * self.segment], state)
            self._hold(names[at], state)
            if at > done and at not in marks:
                self._held.pop(names[at - 1], None)

    def of(self, ids: Tensor, weights: bytes) -> dict[str, Tensor]:
        """Those held of ids and of what they begin with, by name."""
        names = self._names(ids, weights)
        return {name: self._held[name] for name in names if name in self._held}

    def take(self, states: Mapping[str, Tensor]) -> None:
        """Hold these too, the last ones longest."""
        for name, state in states.items():
            self._hold(name, state)

    def forget(self) -> None:
        """Hold none."""
        self._held.clear()

    def _names(self, ids: Tensor, weights: bytes) -> list[str]:
        """Of the states after each segment."""
        seen, names = sha256(weights), []
        for start in range(0, len(ids), self.segment):
            seen.update(ids[start : start + self.segment].numpy().tobytes())
            names.append(seen.hexdigest())
        return names

    def _hold(self, name: str, state: Tensor) -> None:
        self._held[name] = state
        self._held.move_to_end(name)
        while len(self._held) > FAR_STATES:
            self._held.popitem(last=False)
