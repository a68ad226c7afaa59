"""A slow decoder in float64, position by position, straight from the equations.

It shares no code with the package: it reads checkpoint tensors by their Hugging Face names and
computes every score, rotation and sum with explicit loops over positions and heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Reference:
    """Logits (T, V) float64 of a checkpoint under any attention kind; ``blocks`` are the positions
    that a position sees instead of all before it, where something else is to be asked."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.config = config
        self.blocks: dict[int, list[int]] = {}
        self.t = {name: tensor.double() for name, tensor in tensors.items()}
        self.neox = config.get("base_model_type", config["model_type"]) == "gpt_neox"
        self.heads = config["num_attention_heads"]
        self.kv_heads = self.heads if self.neox else config["num_key_value_heads"]
        self.dim = config.get("head_dim") or config["hidden_size"] // self.heads
        share = config.get("rotary_pct", 0.25) if self.neox else 1.0
        self.rotated = int(self.dim * share)
        theta = config.get("rotary_emb_base" if self.neox else "rope_theta", 10000.0)
        self.freq = [theta ** (-2 * f / self.rotated) for f in range(self.rotated // 2)]
        self.attention = config.get("attention", {"kind": "full"})

    @property
    def embed(self) -> Tensor:
        """(V, C)."""
        return self.t["gpt_neox.embed_in.weight" if self.neox else "model.embed_tokens.weight"]

    def logits(self, ids: list[int]) -> Tensor:
        return (
            self.final(ids)
            @ self.t.get("embed_out.weight" if self.neox else "lm_head.weight", self.embed).T
        )

    def final(self, ids: list[int]) -> Tensor:
        """(T, C) final states, normalized."""
        prefix = "gpt_neox." if self.neox else "model."
        initial = self.embed[torch.tensor(ids)]
        if self.attention.get("initial_window", 1) > 1:
            initial = self._convolved(initial)
        h = initial
        for layer in range(self.config["num_hidden_layers"]):
            h = self._block(layer, h, initial)
        return self._norm(h, prefix + ("final_layer_norm" if self.neox else "norm"))

    def _convolved(self, rows: Tensor) -> Tensor:
        weight, out = self.t["initial_conv.weight"], torch.zeros_like(rows)
        for i in range(len(rows)):
            for back in range(min(len(weight), i + 1)):
                out[i] += weight[back] * rows[i - back]
        return out

    def _block(self, layer: int, h: Tensor, initial: Tensor) -> Tensor:
        p = f"{'gpt_neox' if self.neox else 'model'}.layers.{layer}."
        a = self._norm(h, p + "input_layernorm")
        source = a
        if self.attention["kind"] == "inattention":
            source = self._norm(initial, p + "input_layernorm")
        q, _, _ = self._qkv(p, a)
        _, k, v = self._qkv(p, source)
        turned = [self._rotate(k[j], j) for j in range(len(h))]
        rows = [self._attend(i, q[i], turned, v) for i in range(len(h))]
        o = self._linear(
            torch.stack(rows), p + ("attention.dense" if self.neox else "self_attn.o_proj")
        )
        if self.neox and self.config["use_parallel_residual"]:
            return h + o + self._mlp(p, self._norm(h, p + "post_attention_layernorm"))
        h = h + o
        return h + self._mlp(p, self._norm(h, p + "post_attention_layernorm"))

    def _attend(self, i: int, q: Tensor, turned: list[Tensor], v: Tensor) -> Tensor:
        visible = self._visible(i)
        queries = {at: self._rotate(q, at) for at in {at for _, at in visible}}
        out = []
        for head in range(self.heads):
            kv = head * self.kv_heads // self.heads
            scores = [queries[at][head] @ turned[j][kv] for j, at in visible]
            weights = (torch.stack(scores) / math.sqrt(self.dim)).softmax(0)
            out.append(weights @ torch.stack([v[j, kv] for j, _ in visible]))
        return torch.cat(out)

    def _visible(self, i: int) -> list[tuple[int, int]]:
        """(position attended to, position that the query is rotated to)."""
        if self.attention["kind"] != "windowed":
            return [(j, i) for j in self.blocks.get(i, range(i + 1))]
        window, sinks = self.attention["local_window"], self.attention["sink_tokens"]
        out = []
        for j in range(i + 1):
            if j < sinks:
                out.append((j, min(i, sinks + window - 1)))
            elif i - j < window:
                out.append((j, i))
        return out

    def _rotate(self, x: Tensor, position: int) -> Tensor:
        """All heads (H, D) at a position."""
        out, half = x.clone(), self.rotated // 2
        for f, freq in enumerate(self.freq):
            c, s = math.cos(position * freq), math.sin(position * freq)
            out[:, f] = x[:, f] * c - x[:, half + f] * s
            out[:, half + f] = x[:, half + f] * c + x[:, f] * s
        return out

    def _qkv(self, p: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.neox:
            fused = self._linear(x, p + "attention.query_key_value")
            fused = fused.view(len(x), self.heads, 3, self.dim)
            return fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]
        q, k, v = (self._linear(x, f"{p}self_attn.{name}_proj") for name in "qkv")
        return tuple(t.view(len(x), -1, self.dim) for t in (q, k, v))  # type: ignore[return-value]

    def _mlp(self, p: str, x: Tensor) -> Tensor:
        if self.neox:
            inner = self._linear(x, p + "mlp.dense_h_to_4h")
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            return self._linear(inner, p + "mlp.dense_4h_to_h")
        gate = self._linear(x, p + "mlp.gate_proj")
        up = self._linear(x, p + "mlp.up_proj")
        return self._linear(gate / (1 + torch.exp(-gate)) * up, p + "mlp.down_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        out = x @ self.t[f"{name}.weight"].T
        return out + self.t[f"{name}.bias"] if f"{name}.bias" in self.t else out

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.t[f"{name}.weight"]
        if self.neox:
            centred = x - x.mean(-1, keepdim=True)
            eps = self.config["layer_norm_eps"]
            scale = (centred.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
            return centred * scale * weight + self.t[f"{name}.bias"]
        eps = self.config["rms_norm_eps"]
        return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * weight
