"""Several short prompts answered side by side: each is run once, then all go on token by token
together, so that the weights are read once for a token of every prompt.

For models that attend to running states (``windowed`` and ``full``), and prompts that fit the
window with their answers: attention is then plainly causal, but for layers with a window of
their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nazx_cli.errors import NazxError
from nazx_cli.model.attention.sights import Turn, rotation
from nazx_cli.model.attention.softmax import Softmax
from nazx_cli.model.decoder import Attend, Decoder


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
        shape = (config.num_layers, len(prompts), config.num_kv_heads, capacity, config.head_dim)
        self._keys = torch.zeros(shape, dtype=decoder.dtype, device=device)
        self._values = torch.zeros_like(self._keys)
        with torch.inference_mode():
            last = [self._prefilled(row, ids) for row, ids in enumerate(prompts)]
            self.logits = decoder.logits(torch.cat(last))

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add one token to every prompt, in their order; returns the new ``logits``."""
        with torch.inference_mode():
            ids = torch.tensor(tokens, device=self._decoder.device)
            h = self._decoder.hidden(self._decoder.embed(ids), self._one_more())
            self.lengths += 1
            self.logits = self._decoder.logits(h)
        return self.logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these prompts alone, in this order."""
        at = torch.tensor(rows, dtype=torch.int64, device=self.lengths.device)
        self.lengths, self.logits = self.lengths[at], self.logits[at]
        self._keys, self._values = self._keys[:, at], self._values[:, at]

    @property
    def nbytes(self) -> int:
        """Bytes held for keys and values."""
        return self._keys.nbytes + self._values.nbytes

    def _prefilled(self, row: int, ids: Sequence[int]) -> Tensor:
        """Run one prompt; (1, C): the final state of its last position."""
        decoder, count = self._decoder, len(ids)
        kinds = decoder.config.layer_kinds
        turns = {kind: rotation(decoder, kind.rope, range(count), count) for kind in set(kinds)}
        at = torch.arange(count, device=decoder.device)

        def attend(layer: int, a: Tensor) -> Tensor:
            kind = kinds[layer]
            q, k, v = self._rotated(layer, a, turns[kind])
            self._keys[layer, row, :, :count] = k.transpose(0, 1)
            self._values[layer, row, :, :count] = v.transpose(0, 1)
            last = layer == decoder.config.num_layers - 1  # only its last position goes on
            q, k, v = q[-1:] if last else q, k.transpose(0, 1), v.transpose(0, 1)
            if kind.window is None or count <= kind.window:
                return self._softmax.over(q, k, v, None, causal=not last)
            mask = (at <= at[:, None]) & (at > at[:, None] - kind.window)
            return self._softmax.over(q, k, v, mask[-len(q) :], causal=False)

        return decoder.hidden(decoder.embed(torch.tensor(ids, device=decoder.device)), attend)

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
            self._keys[layer, rows, :, self.lengths] = k
            self._values[layer, rows, :, self.lengths] = v
            keys, values = self._keys[layer, :, :, :longest], self._values[layer, :, :, :longest]
            return self._softmax.over_batch(q, keys, values, seen[kinds[layer]])

        return attend

    def _rotated(self, layer: int, a: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (T, heads, D) and keys (T, kv_heads, D), both rotated, and values of a (T, C)."""
        qk, v = self._decoder.layers[layer].projected(a)
        turned, heads = turn(qk), self._decoder.config.num_heads
        return turned[:, :heads], turned[:, heads:], v
