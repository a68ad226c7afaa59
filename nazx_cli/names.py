"""Facts that several packages need, each said once; imports nothing that takes time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

OnProgress = Callable[[int, int], None]
"""Told how much is done and how much there is in all, in one unit."""
OnNamedProgress = Callable[[str, int, int], None]
"""The same, after the name of what is being done."""

READ_MODES: Mapping[str, str] = MappingProxyType(
    {
        "auto": "resident where the model is trained for it, else recall; a question about the "
        "whole gets passages from all of it",
        "recall": "the passages that fit the question best go into the prompt",
        "all": "every block is read in turn and the partial answers are combined",
        "resident": "the model attends to the documents as a whole",
        "tail": "the end of the documents goes into the prompt",
    }
)
"""Ways in which documents reach the model (``--read``), and what each does."""

INDEX_FROM = 32_000_000
"""Bytes of documents from which on they are kept in the index, where nobody says otherwise:
tokenizing fewer takes seconds, and a chat about them can be saved."""

INDEXING: Mapping[str, str] = MappingProxyType(
    {
        "auto": f"{INDEX_FROM // 10**6} MB of documents or more",
        "always": "also fewer; nothing of a file that is known is read again",
        "never": "all documents are held in memory",
    }
)
"""When documents are kept in the index (``--index``)."""

SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "auto": "written by a chat model of a billion weights or more, else an extract",
        "extract": "the document's own sentences",
        "write": "the model's own words",
    }
)
"""Whose words an answer about the whole is in (``--summaries``)."""

THINKING: Mapping[str, str] = MappingProxyType(
    {
        "hide": "told in a line; whether the model thinks is left to its chat template",
        "on": "asked for where the chat template has a switch, and shown dimmed",
        "off": "switched off where the chat template has a switch",
    }
)
"""What is done about thinking before an answer (``--think``)."""

EXTRACT = "extract"
"""The read mode of an answer in the documents' own sentences."""

LAYOUTS: Mapping[str, str] = MappingProxyType(
    {
        "auto": "the fastest that fits into memory",
        "pairs": "posting lists, a state per distinct token and what RoPE turns: the fastest",
        "postings": "posting lists and a state per distinct token: a fraction of the memory",
        "tables": "posting lists, and keys and values per distinct token and layer",
        "grams": "states per distinct token, each position's own norm: for initial windows",
        "ids": "token ids alone: the least memory",
        "states": "a state per position, as in the paper: for comparison",
        "cached": "keys and values per position and layer; the one of windowed and full attention",
    }
)
"""Memory layouts of a context (``--layout``), and what each keeps."""

WORKLOADS = (
    "prefill",
    "decode",
    "attention",
    "decode-long",
    "first-token",
    "growth",
    "edits",
    "memory",
    "peak",
    "ranks",
    "blocks",
    "split",
    "room",
    "training",
    "serve",
    "read",
    "tokenizing",
    "folders",
    "drafts",
    "quantization",
    "recall",
)
"""What ``nazx bench`` measures."""

DEFAULT_MODEL = "nazx-smol-135m"

NO_ADAPTER = "none"
"""What ``--adapter`` takes for a model as it is."""

ADAPTER_CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter."""

BEFORE: Mapping[str, str] = MappingProxyType(
    {
        "none": "nothing",
        "own": "what stands before the stretch",
        "other": "as much of another text",
    }
)
"""What ``nazx eval --before`` makes resident, each with a word of explanation."""

FAR_ADAPTER = "NAZX_FAR"
"""What stands in it for PEFT's type where the adapter is a far memory."""

FAR_MEMORIES = MappingProxyType(
    {
        "inattention": "a copying head over token ids",
        "infini": "a compressive memory in every layer",
    }
)
"""Far memories that ``nazx tune --far`` can teach, each with a word of explanation."""

FAR_UPDATES = MappingProxyType(
    {
        "linear": "values are added up",
        "delta": "but for what the memory has of their keys already",
    }
)
"""How the far memory ``infini`` stores what it reads (``--far-update``)."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Number formats of weights and arithmetic (``--dtype``)."""

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Kinds of devices (``--device``); ``cuda:1`` is the second of its kind."""

MAIN_BRANCH = "main"
"""The branch that a conversation begins on."""

DEFAULT_SINKS = 4
"""First tokens that windowed attention keeps."""

GIVEN = ("section", "story", "book", "folder")
"""What documents ``nazx eval`` asks a question about (``--given``)."""

TURNS = ("auto", "ask", "chat")
"""Whether it asks each question alone or all in one chat (``--turns``)."""

PROBES = ("associative", "passkey", "lines")
"""What ``nazx eval`` hides in a text and asks for (``--probe``)."""

APPROXIMATIONS = ("star", "landmark", "hip", "hip-sure", "slots")
"""What it sets beside full attention (``--approximation``)."""

RIVALS = (
    "transformers",
    "transformers-first",
    "llama.cpp",
    "llama.cpp-first",
    "lead",
    "lexrank",
    "passages",
)
"""Whom it sets beside NazX (``--against``)."""


def is_offline(asked: bool = False) -> bool:
    """Whether there is to be no network: it was ``asked`` for, or the environment forbids it, in
    the Hub client's own words; ``--offline`` sets those."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return asked or any(os.environ.get(n, "").upper() in ("1", "ON", "YES", "TRUE") for n in names)
