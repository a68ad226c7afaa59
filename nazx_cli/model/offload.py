"""Layers that do not fit the device: kept in host memory, and copied to it whenever they run.

accelerate's hooks do the copying, module by module, so that the device holds one matrix of them
at a time. For attention to running states, whose blocks run as they stand.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from nazx_cli.errors import UsageError
from nazx_cli.model.decoder import Decoder

LIBRARY = "accelerate"


def is_installed() -> bool:
    """Whether layers can be kept in host memory here."""
    return find_spec(LIBRARY) is not None


def keep_in_host_memory(decoder: Decoder, layer: int, device: torch.device) -> None:
    """Let the weights of one layer, which are in host memory now, be copied to ``device`` when it
    runs; ``UsageError`` where accelerate is missing."""
    if not is_installed():
        raise UsageError(
            "weights that do not fit the device need accelerate, which is not installed",
            "pip install 'nazx[offload]', or use a smaller model",
        )
    from accelerate.hooks import attach_align_device_hook

    block = decoder.layers[layer]
    weights = {name: tensor.detach() for name, tensor in block.state_dict().items()}
    attach_align_device_hook(
        block, execution_device=device, offload=True, weights_map=weights, offload_buffers=True
    )
