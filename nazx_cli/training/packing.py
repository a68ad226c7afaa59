"""Several questions on the same passages as one sequence in which the passages stand once.

A pack is a prefix and branches. Each branch (the rest of a prompt and its answer) attends to
the prefix and to itself, at the positions that follow the prefix, so that it is exactly the
prompt that it would be alone; what the passages cost is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nazx_cli.errors import NazxError


@dataclass(frozen=True)
class Branch:
    """Token ids of what follows the prefix: the rest of the prompt (never empty), the answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """Branches on one prefix, which may be empty; ``kind`` names the data it comes from."""

    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]
    kind: str = ""

    @cached_property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return len(self.prefix) + sum(len(b.prompt) + len(b.answer) for b in self.branches)

    @cached_property
    def answer_tokens(self) -> int:
        """Tokens that are learnt."""
        return sum(len(branch.answer) for branch in self.branches)

    @cached_property
    def weight(self) -> float:
        """What its tokens to be learnt count together."""
        return float(weights_of(self).sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return len(self.prefix) + max(len(b.prompt) + len(b.answer) for b in self.branches)


def pack(rows: Sequence[tuple[Sequence[int], Sequence[int]]], kind: str = "") -> Pack:
    """Join prompts with their answers (token ids, neither empty) that begin alike."""
    prompts = [prompt for prompt, _ in rows]
    shared = 0
    if len(rows) > 1:
        # What is learnt is read off the position before it: a prompt keeps its last token.
        most = min(map(len, prompts)) - 1
        first = prompts[0]
        while shared < most and all(prompt[shared] == first[shared] for prompt in prompts):
            shared += 1
    branches = tuple(Branch(tuple(prompt[shared:]), tuple(answer)) for prompt, answer in rows)
    return Pack(tuple(prompts[0][:shared]), branches, kind)


@dataclass(frozen=True)
class Layout:
    """A pack as tensors.

    ids, positions  (N,) what runs through the model: the prefix, then each branch without the
                    last token of its answer
    branch          (N,) number of the branch, -1 in the prefix
    prefix          tokens of the prefix
    at              (A,) the positions before the tokens to be learnt
    targets         (A,) those tokens
    owners          (A,) the branch of each
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    prefix: int
    at: Tensor
    targets: Tensor
    owners: Tensor


def lay_out(pack: Pack, device: torch.device | str = "cpu") -> Layout:
    """The tensors of ``pack``."""
    start = len(pack.prefix)
    ids, positions, branch = list(pack.prefix), list(range(start)), [-1] * start
    at: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, each in enumerate(pack.branches):
        row = [*each.prompt, *each.answer[:-1]]
        first = len(ids) + len(each.prompt) - 1
        at.extend(range(first, first + len(each.answer)))
        targets.extend(each.answer)
        owners.extend([number] * len(each.answer))
        ids.extend(row)
        positions.extend(range(start, start + len(row)))
        branch.extend([number] * len(row))

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return Layout(
        tensor(ids),
        tensor(positions),
        tensor(branch),
        start,
        tensor(at),
        tensor(targets),
        tensor(owners),
    )


def weights_of(pack: Pack) -> Tensor:
    """(A,) what each token to be learnt counts: 1 / sqrt(length of its answer), so that long
    answers do not drown short ones."""
    return torch.tensor(
        [len(b.answer) ** -0.5 for b in pack.branches for _ in b.answer], dtype=torch.float32
    )


def write_packs(path: Path, packs: Iterable[Pack]) -> None:
    """Keep packs in a file of flat arrays, so that a run that goes on has the very same ones."""
    ids: list[int] = []
    pieces: list[int] = []  # lengths: prefix, then prompt and answer of each branch
    branches: list[int] = []
    kinds: list[str] = []
    for each in packs:
        ids.extend(each.prefix)
        pieces.append(len(each.prefix))
        for branch in each.branches:
            ids.extend(branch.prompt)
            ids.extend(branch.answer)
            pieces += [len(branch.prompt), len(branch.answer)]
        branches.append(len(each.branches))
        kinds.append(each.kind)
    scratch = path.with_name(f"{path.name}.new")
    with scratch.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.asarray(ids, np.int32),
            pieces=np.asarray(pieces, np.int32),
            branches=np.asarray(branches, np.int32),
            kinds=np.asarray(kinds, np.str_),
        )
    scratch.replace(path)


def read_packs(path: Path) -> list[Pack]:
    """What ``write_packs`` kept; ``NazxError`` where the file is gone or broken."""
    try:
        with np.load(path, allow_pickle=False) as data:
            ids, pieces = data["ids"].tolist(), data["pieces"].tolist()
            counts, kinds = data["branches"].tolist(), data["kinds"].tolist()
    except (OSError, ValueError, KeyError) as error:
        raise NazxError(f"cannot read {path}: {error}", "begin the run again") from None
    packs: list[Pack] = []
    at, sizes = 0, iter(pieces)

    def take() -> tuple[int, ...]:
        nonlocal at
        size = next(sizes)
        at += size
        return tuple(ids[at - size : at])

    for count, kind in zip(counts, kinds, strict=True):
        prefix = take()
        packs.append(Pack(prefix, tuple(Branch(take(), take()) for _ in range(count)), str(kind)))
    return packs
