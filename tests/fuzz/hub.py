"""Answers of a Hub: listings, files and headers that are wrong, cut short, endless or slow."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from fake_hub import LISTING, FakeHub, FakeRepo

from fuzz.checkpoints import as_json, tiny_files
from fuzz.law import Case
from fuzz.mutate import mutated, mutated_json

_REPO = "org/tiny"
_NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
_PAGES = (b"<!DOCTYPE html><html>Log in</html>", b"", b"{}", b"null", b"\x1b[2J", b"[" * 100_000)


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end; the Hub is this process's, and set for a case just before it runs."""
    with FakeHub({}) as hub:
        changes = (*(_listed, _listed, _altered, _damaged) * 2, _page, _listing, _cut, _slow)
        while True:
            seed, change = rng.getrandbits(32), rng.choice(changes)
            env = {
                "HF_ENDPOINT": hub.endpoint,
                "HF_HUB_DOWNLOAD_TIMEOUT": "1",
                "HF_TOKEN": rng.choice((*("",) * 9, "token", "señal", "a\x01")),
            }
            argv = rng.choice((("pull", _REPO), ("pull", _REPO, "--revision", "v1")))
            prepare = _prepared(hub, change, seed)
            yield Case(change.__name__.strip("_"), argv, env=env, prepare=prepare)


def _prepared(
    hub: FakeHub, change: Callable[[random.Random, FakeHub, FakeRepo], None], seed: int
) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        repo = FakeRepo(dict(tiny_files()))
        hub.repos, hub.portal = {_REPO: repo}, None
        hub.requests.clear()
        change(random.Random(seed), hub, repo)

    return prepare


def _page(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    hub.portal = rng.choice(_PAGES)


def _listing(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    repo.listing = rng.choice(_PAGES)


def _listed(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    """A listing of the right form, with a part that is wrong."""
    siblings = [
        {"rfilename": name, "size": len(data), "blobId": repo.etag(name)}
        for name, data in repo.files.items()
    ]
    whole = {"id": _REPO, "sha": repo.commit, "siblings": siblings, "private": False}
    leaves = ("../x", "model.safetensors", "a/b", 1 << 62, 1 << 40, 3, {"sha256": "x"}, "0" * 64)
    repo.listing = as_json(mutated_json(rng, whole, leaves))


def _altered(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    name = rng.choice(_NAMES)
    longer = repo.files[name] + b"x" * rng.choice((1, 1 << 16, 1 << 24))
    repo.altered[name] = rng.choice((longer, b"", mutated(rng, repo.files[name])))


def _cut(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    name = rng.choice(_NAMES)
    repo.cut[name] = rng.randrange(len(repo.files[name]))


def _slow(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    repo.dripping.add(rng.choice((*_NAMES, LISTING)))


def _damaged(rng: random.Random, hub: FakeHub, repo: FakeRepo) -> None:
    """A repository whose files are wrong, and listed as they are."""
    name = rng.choice(_NAMES)
    if name == "config.json":
        repo.files[name] = as_json(mutated_json(rng, json.loads(repo.files[name])))
    else:
        repo.files[name] = mutated(rng, repo.files[name])
