"""The table of workloads. A new one is a function that yields rows and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nazx_cli.bench import (
    attention,
    decode,
    documents,
    drafts,
    edits,
    growth,
    quantization,
    recall,
)
from nazx_cli.bench.processes import memory, ranks, room, serve, training
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.context.layouts import LAYOUTS
from nazx_cli.documents.gather import listed
from nazx_cli.errors import UsageError


@dataclass(frozen=True)
class Workload:
    """A benchmark by name. ``run`` yields rows as they are done; ``needs_files`` tells whether
    it reads documents, ``by_name`` that it only runs when it is named or with ``--all``, and
    ``own_files`` that its documents are of a kind that no other workload reads."""

    name: str
    about: str
    run: Callable[[Setup], Iterator[Row]]
    needs_files: bool = False
    by_name: bool = False
    own_files: bool = False


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("prefill", "a prompt, from ids to logits", decode.prefill),
        Workload("decode", "greedy decoding after a prompt", decode.decode),
        Workload("attention", "a layer over a long context", attention.run, by_name=True),
        Workload("decode-long", "a token after 100,000", decode.decode_long, by_name=True),
        Workload("first-token", "from ids to the first token", growth.first_token, by_name=True),
        Workload("growth", "all costs as contexts grow", growth.growth, by_name=True),
        Workload("edits", "documents edited in a long context", edits.run, by_name=True),
        Workload("memory", "bytes that a context holds, by layout", memory.memory),
        Workload("peak", "the estimate against a process's real memory", memory.peak),
        Workload("ranks", "a context over several processes", ranks.ranks, by_name=True),
        Workload("blocks", "a prompt in blocks over several", ranks.blocks, by_name=True),
        Workload("split", "weights split over several", ranks.split, by_name=True),
        Workload("room", "prompts as long as memory and time allow", room.room, by_name=True),
        Workload("training", "a step of nazx train, by length", training.training, by_name=True),
        Workload("serve", "requests of many clients at once", serve.run, by_name=True),
        Workload("read", "documents, from files to ranked passages", documents.read, True),
        Workload("tokenizing", "documents to tokens", documents.tokenizing, True),
        Workload("folders", "very many documents, on disk", documents.folders, True, by_name=True),
        Workload("drafts", "answers with tokens run ahead", drafts.run, True, by_name=True),
        Workload("quantization", "int8 and nf4 beside the original", quantization.run, True),
        Workload("recall", "are the right passages chosen?", recall.run, True, True, True),
    )
}


def choose(
    names: Sequence[str], settings: Settings, *, every: bool = False
) -> tuple[Workload, ...]:
    """The workloads called ``names``, each once; without names all that the settings allow and
    that take minutes at most, with ``every`` those that take longer too.

    ``UsageError`` for a name or layout that there is not, and for documents that are missing:
    before anything is measured, since measuring takes minutes.
    """
    _check_known("workload", names, list(WORKLOADS))
    _check_known("memory layout", settings.layouts, list(LAYOUTS))
    named = [WORKLOADS[name] for name in dict.fromkeys(names)]
    allowed = [
        workload
        for workload in WORKLOADS.values()
        if (not workload.by_name or (every and not workload.own_files))
        and (settings.files or not workload.needs_files)
    ]
    chosen = [*named, *(each for each in allowed if every and each not in named)] or allowed
    reader = next((workload.name for workload in chosen if workload.needs_files), None)
    if reader and not settings.files:
        raise UsageError(
            f"the workload {reader} needs a document",
            f"name one: nazx bench {reader} --file book.txt",
        )
    if reader:
        listed(settings.files)  # folders may be more than memory holds
    return tuple(chosen)


def left_out(chosen: Sequence[Workload]) -> str:
    """What a quick run of ``chosen`` does not measure, in a line."""
    absent = [name for name in WORKLOADS if name not in {workload.name for workload in chosen}]
    parts = ["float32 beside the type", "int8 and nf4 but in quantization", "larger shapes"]
    parts += ["long contexts", "memory's own process", "peak's chats"]
    return f"quick: left out are {', '.join((*parts, *absent))}"


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UsageError(f"there is no {what} {unknown!r}", f"choose from {', '.join(known)}")
