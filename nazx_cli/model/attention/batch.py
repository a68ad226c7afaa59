"""Several short prompts answered side by side: run together, what they begin with once, and then
going on token by token together, so that the weights are read once for a token of every prompt. A
few go on one after another where there are compiled layers, which are quicker still.

For models that attend to running states (``windowed`` and ``full``), and prompts that fit the
window with their answers: attention is then plainly causal, but for layers with a window of
their own. Where RoPE depends on the length, all are rotated as the longest is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nazx_cli.errors import NazxError
from nazx_cli.kernels.native.step import Step
from nazx_cli.model.attention.sights import Turn, rotation, seen_within
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.decoder import Attend, Decoder
from nazx_cli.model.one_position import OnePosition

_FEW = 4  # prompts that are sooner done one after another in compiled code


class PromptBatch:
    """Keys and values of B prompts and of what was added to each; ``logits`` (B, V) float32 are
    those after the last token of each.

    Room is held for ``room`` further tokens of every prompt. An empty prompt is a ``NazxError``.
    """

    def __init__(self, decoder: Decoder, prompts: Sequence[Sequence[int]], room: int) -> None:
        if not prompts or not all(map(len, prompts)):
            raise NazxError("a prompt is empty", "give at least one token")
        self._decoder, self._softmax = decoder, Softmax.of(decoder.config)
        config, device = decoder.config, decoder.device
        self.lengths = torch.tensor([len(ids) for ids in prompts], device=device)
        capacity = int(self.lengths.max()) + room
        shape = (len(prompts), config.num_layers, config.num_kv_heads, capacity, config.head_dim)
        self._one_position = OnePosition(decoder)
        self._keys = torch.zeros(shape, dtype=decoder.dtype, device=device)
        self._values = torch.zeros_like(self._keys)
        with torch.inference_mode():
            begun = alike(prompts)
            if begun:
                self._run([prompts[0][:begun]], 0)
                for held in (self._keys, self._values):
                    held[1:, :, :, :begun] = held[:1, :, :, :begun]
            self.logits = decoder.logits(self._run(prompts, begun))

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add one token to every prompt, in their order; returns the new ``logits``."""
        with torch.inference_mode():
            h = self._decoder.embed(torch.tensor(tokens, device=self._decoder.device))
            step = self._one_position.step() if len(tokens) <= _FEW else None
            if step is None:
                self.logits = self._decoder.logits(self._decoder.hidden(h, self._one_more()))
            else:
                self.logits = self._in_turn(step, h)
            self.lengths += 1
        return self.logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these prompts alone, in this order."""
        at = torch.tensor(rows, dtype=torch.int64, device=self.lengths.device)
        self.lengths, self.logits = self.lengths[at], self.logits[at]
        self._keys, self._values = self._keys[at], self._values[at]

    @property
    def nbytes(self) -> int:
        """Bytes held for keys and values."""
        return self._keys.nbytes + self._values.nbytes

    def _run(self, prompts: Sequence[Sequence[int]], begin: int) -> Tensor:
        """Run the first prompts from position ``begin`` on, all their tokens together; (B, C): the
        final states of their last positions."""
        decoder, lengths = self._decoder, [len(ids) for ids in prompts]
        ids = [token for ids in prompts for token in ids[begin:]]
        at = torch.arange(max(lengths), device=decoder.device)
        kinds = decoder.config.layer_kinds
        places = torch.cat([at[begin:length] for length in lengths])
        turns = {kind: rotation(decoder, kind.rope, places, len(at)) for kind in set(kinds)}
        seen = {kind: _seen(kind.window, at, begin) for kind in set(kinds)}
        counts = [length - begin for length in lengths]

        def attend(layer: int, a: Tensor) -> Tensor:
            kind, found = kinds[layer], []
            each = (torch.split(x, counts) for x in self._rotated(layer, a, turns[kind]))
            for row, (q, k, v) in enumerate(zip(*each, strict=True)):
                length = lengths[row]
                keys, values = (
                    self._keys[row, layer, :, :length],
                    self._values[row, layer, :, :length],
                )
                keys[:, begin:], values[:, begin:] = k.transpose(0, 1), v.transpose(0, 1)
                mask = seen[kind]
                if mask is not None:
                    mask = mask[: length - begin, :length]
                found.append(self._softmax.over(q, keys, values, mask, causal=mask is None))
            return torch.cat(found)

        states = decoder.hidden(decoder.embed(torch.tensor(ids, device=decoder.device)), attend)
        return states[torch.tensor(counts, device=decoder.device).cumsum(0) - 1]

    def _one_more(self) -> Attend:
        """How one further position of every prompt attends to its own prompt."""
        decoder, rows = self._decoder, torch.arange(len(self.lengths), device=self.lengths.device)
        longest = int(self.lengths.max()) + 1
        kinds = decoder.config.layer_kinds
        turns = {kind: rotation(decoder, kind.rope, self.lengths, longest) for kind in set(kinds)}
        at, mine = torch.arange(longest, device=rows.device), self.lengths[:, None]
        seen = {
            kind: (at <= mine) if kind.window is None else (at <= mine) & (at > mine - kind.window)
            for kind in set(kinds)
        }  # (B, n)

        def attend(layer: int, a: Tensor) -> Tensor:
            q, k, v = self._rotated(layer, a, turns[kinds[layer]])
            self._keys[rows, layer, :, self.lengths] = k
            self._values[rows, layer, :, self.lengths] = v
            keys, values = self._keys[:, layer, :, :longest], self._values[:, layer, :, :longest]
            return self._softmax.over_batch(q, keys, values, seen[kinds[layer]])

        return attend

    def _in_turn(self, step: Step, states: Tensor) -> Tensor:
        """(B, V): logits of a further position of every prompt, whose embeddings are ``states``
        (B, C), run one after another."""
        decoder, lengths = self._decoder, self.lengths.tolist()
        longest, kinds = max(lengths) + 1, self._one_position.kinds
        found = []
        for row, at in enumerate(lengths):
            sights = [seen_within(decoder, kind, at, longest) for kind in kinds]
            keys, values = self._keys[row], self._values[row]
            out, _ = step.run(states[row : row + 1], keys, values, at, sights)
            found.append(decoder.scaled(out[0]))
        return torch.stack(found)

    def _rotated(self, layer: int, a: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (T, heads, D) and keys (T, kv_heads, D), both rotated, and values of a (T, C)."""
        qk, v = self._decoder.layers[layer].projected(a)
        turned, heads = turn(qk), self._decoder.config.num_heads
        return turned[:, :heads], turned[:, heads:], v


def alike(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all of several prompts begin with, short of the last of any."""
    if len(prompts) == 1:
        return 0
    shortest = min(map(len, prompts)) - 1
    return next((at for at in range(shortest) if len({ids[at] for ids in prompts}) > 1), shortest)


def _seen(window: int | None, at: Tensor, begin: int) -> Tensor | None:
    """(n - begin, n) bool: which of n positions each from ``begin`` on sees; None where it is all
    before it, from the first on."""
    if not begin and (window is None or len(at) <= window):
        return None
    mine = at[begin:, None]
    return at <= mine if window is None else (at <= mine) & (at > mine - window)
