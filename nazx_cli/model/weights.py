"""Whether a module's weights are the same as before, and their name."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

_LOOKED_AT = 64  # numbers of each tensor


class Weights:
    """The weights of ``module``, whatever is put in their place; changes within a tensor are not
    noticed."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._held: list[tuple[dict[str, Any], str, Any]] = []
        self._digest: bytes | None = None

    def replaced(self) -> bool:
        """Whether anything was replaced since this was asked last; True the first time."""
        if self._held and all(store.get(name) is held for store, name, held in self._held):
            return False
        self._held, self._digest = list(_parts(self._module)), None
        return True

    def tensors(self) -> Iterator[Tensor]:
        """Those that ``replaced`` found last."""
        return (held for *_, held in self._held if isinstance(held, Tensor))

    @property
    def digest(self) -> bytes:
        """Tells these weights from others: of the kind and the shape of each tensor, and of some
        numbers from all of it."""
        self.replaced()
        if self._digest is None:
            seen = sha256()
            for tensor in self.tensors():
                flat = tensor.detach().reshape(-1)
                step = max(1, len(flat) // _LOOKED_AT)
                some = flat[step - 1 :: step].to("cpu", torch.float64)
                seen.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
                seen.update(some.numpy().tobytes())
            self._digest = seen.digest()
        return self._digest


def _parts(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """All that can be replaced below ``module``: where it is kept, under which name, and itself."""
    for each in module.modules():
        for store in (each._parameters, each._buffers, each._modules):
            yield from ((store, name, held) for name, held in store.items())
