"""The table of workloads. A new one is a file with a ``run`` and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nazx_cli.bench import (
    attention,
    decode,
    decode_long,
    edits,
    first_token,
    growth,
    memory,
    peak,
    prefill,
    quantization,
    read,
    recall,
    tokenizing,
)
from nazx_cli.bench.results import Row
from nazx_cli.bench.setup import Settings, Setup
from nazx_cli.context.layouts import LAYOUTS
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
        Workload(prefill.NAME, "a prompt, from ids to logits", prefill.run),
        Workload(decode.NAME, "greedy decoding after a prompt", decode.run),
        Workload(attention.NAME, "a layer over a long context", attention.run, by_name=True),
        Workload(decode_long.NAME, "a token after 100,000", decode_long.run, by_name=True),
        Workload(first_token.NAME, "from ids to the first token", first_token.run, by_name=True),
        Workload(growth.NAME, "all costs as contexts grow", growth.run, by_name=True),
        Workload(edits.NAME, "documents edited in a long context", edits.run, by_name=True),
        Workload(memory.NAME, "bytes that a context holds, by layout", memory.run),
        Workload(peak.NAME, "the estimate against a process's real memory", peak.run),
        Workload(read.NAME, "documents, from files to ranked passages", read.run, True),
        Workload(tokenizing.NAME, "documents to tokens", tokenizing.run, True),
        Workload(quantization.NAME, "int8 and nf4 beside the original", quantization.run, True),
        Workload(
            recall.NAME, "are the right passages chosen?", recall.run, True, True, own_files=True
        ),
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
    unknown = next((name for name in names if name not in WORKLOADS), None)
    if unknown is not None:
        raise UsageError(f"there is no workload {unknown!r}", f"choose from {', '.join(WORKLOADS)}")
    for layout in settings.layouts:
        if layout not in LAYOUTS:
            raise UsageError(
                f"there is no memory layout {layout!r}", f"choose from {', '.join(LAYOUTS)}"
            )
    named = [WORKLOADS[name] for name in dict.fromkeys(names)]
    allowed = [
        workload
        for workload in WORKLOADS.values()
        if (not workload.by_name or (every and not workload.own_files))
        and (settings.files or not workload.needs_files)
    ]
    chosen = [*named, *(each for each in allowed if every and each not in named)] or allowed
    for workload in chosen:
        if workload.needs_files:
            _check_files(workload.name, settings)
    return tuple(chosen)


def _check_files(name: str, settings: Settings) -> None:
    if not settings.files:
        raise UsageError(
            f"the workload {name} needs a document", f"name one: nazx bench {name} --file book.txt"
        )
    from nazx_cli.documents.gather import gather

    gather(settings.files)
