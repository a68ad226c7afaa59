"""What a context needs of a model to attend by initial states (design section 2).

With xhat the standardized embedding of a token (the same in all layers), layer l's norm weights
gamma, beta and projections give

    k = Wk (gamma * xhat + beta) + bk        v = Wv (gamma * xhat + beta) + bv

``absorb_keys`` moves Wk and gamma to the query's side and ``project_values`` does Wv once for a
weighted sum of states, so that one matrix of states serves every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nazx_cli.config import ModelConfig
from nazx_cli.context.native.rowwise import from_left, from_right
from nazx_cli.model.decoder import Decoder
from nazx_cli.model.rotary import Rotary


@dataclass(frozen=True)
class InitialStateProjections:
    """Keys and values from initial states; satisfies ``context.projections.Projections``."""

    decoder: Decoder

    @property
    def config(self) -> ModelConfig:
        return self.decoder.config

    @property
    def rotary(self) -> Rotary:
        return self.decoder.rotary

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def states(self, ids: Tensor) -> Tensor:
        """(n, C) standardized embeddings of token ids (n,)."""
        rows = F.embedding(ids.to(self.device), self.decoder.embed.weight)
        return self.decoder.layers[0].norm1.standardize(rows)

    def keys_values(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys and values, each (n, kv_heads, D), of ``states`` (n, C)."""
        block = self.decoder.layers[layer]
        kv = block.key_value(block.norm1.affine(states))
        k, v = kv.view(len(states), 2, self.config.num_kv_heads, -1).unbind(1)
        return k, v

    def absorb_keys(self, layer: int, probes: Tensor) -> tuple[Tensor, Tensor]:
        """For probes r (kv_heads, M, D): vectors (kv_heads, M, C) and constants (kv_heads, M),
        float32, such that r . k = vector . xhat + constant."""
        block = self.decoder.layers[layer]
        bias = block.key_value_bias
        heads, dim = self.config.num_kv_heads, self.config.head_dim
        wk = block.key_weight.view(heads, dim, -1)
        raw = from_left(probes, wk)  # (kv_heads, M, C)
        constants = torch.zeros(probes.shape[:2], device=probes.device)
        if block.norm1.bias is not None:
            constants = raw @ block.norm1.bias.float()
        if bias is not None:
            bk = bias[: heads * dim].view(heads, dim, 1).float()
            constants = constants + torch.bmm(probes.float(), bk).squeeze(-1)
        return raw * block.norm1.weight.float(), constants

    def project_values(self, layer: int, mixed: Tensor) -> Tensor:
        """(heads, D) float32 values of weighted sums of states ``mixed`` (heads, C) whose
        weights add up to 1 in each head."""
        block = self.decoder.layers[layer]
        bias = block.key_value_bias
        heads, dim = self.config.num_kv_heads, self.config.head_dim
        wv = block.value_weight.view(heads, dim, -1)
        grouped = block.norm1.affine(mixed.to(wv.dtype)).view(heads, -1, mixed.shape[-1])
        out = from_right(grouped, wv)  # (kv_heads, group, D)
        if bias is not None:
            out = out + bias[heads * dim :].view(heads, 1, dim)
        return out.reshape(-1, dim).float()
