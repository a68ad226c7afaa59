"""Chat templates of today's model families, written for these tests from what is known of their
prompts, and a byte-level tokenizer with a family's special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cli_helpers import backend
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from nazx_cli.tokenizer import Tokenizer

_FOLDER = Path(__file__).parent / "data" / "templates"


@dataclass(frozen=True)
class Family:
    """``end`` is the token behind an answer; ``marks`` are further special tokens. ``system`` tells
    whether there is a place for a system message, ``parts`` whether contents are lists of parts."""

    bos: str
    eos: str
    end: str
    marks: tuple[str, ...] = ()
    system: bool = True
    parts: bool = False


_CHATML = ("<|im_start|>", "<|endoftext|>")
_GEMMA = ("<start_of_turn>", "<start_of_image>")
_PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|/tool|>")
_PLEIAS = ("query_start", "query_end", "source_start", "source_end", "source_id", "answer_start")
FAMILIES = {
    "qwen2.5": Family("", "<|im_end|>", "<|im_end|>", _CHATML),
    "qwen3": Family("", "<|im_end|>", "<|im_end|>", _CHATML),
    "mistral": Family("<s>", "</s>", "</s>", ("[INST]", "[/INST]")),
    "gemma2": Family("<bos>", "<eos>", "<end_of_turn>", _GEMMA, system=False),
    "gemma3": Family("<bos>", "<eos>", "<end_of_turn>", _GEMMA),
    "phi3": Family("<s>", "<|endoftext|>", "<|end|>", _PHI),
    "phi4-mini": Family("<|endoftext|>", "<|endoftext|>", "<|end|>", _PHI),
    "smollm3": Family("", "<|im_end|>", "<|im_end|>", _CHATML),
    "granite3": Family(*("<|end_of_text|>",) * 3, marks=("<|start_of_role|>", "<|end_of_role|>")),
    "olmo2": Family(*("<|endoftext|>",) * 3),
    "llama3": Family(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
    ),
    "starcoder2": Family(*("<|endoftext|>",) * 3, system=False),
    "pleias-rag": Family(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|answer_end|>",
        ("<|language_start|>", *(f"<|{name}|>" for name in _PLEIAS)),
        system=False,
    ),
    "deepseek-r1": Family(
        "<｜begin▁of▁sentence｜>",
        *("<｜end▁of▁sentence｜>",) * 2,
        marks=("<｜User｜>", "<｜Assistant｜>"),
    ),
    "parts": Family(
        "", "<|im_end|>", "<end_of_utterance>", (*_CHATML, "<end_of_utterance>"), parts=True
    ),
}


def template(name: str) -> str:
    """A family's chat template."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def family_backend(name: str) -> Backend:
    """The byte-level tokenizer with a family's tokens; those around thinking are no special ones,
    as in published models."""
    family, library = FAMILIES[name], backend()
    texts = {text for text in (family.bos, family.eos, family.end, *family.marks) if text}
    library.add_special_tokens([AddedToken(text, special=True) for text in sorted(texts)])
    library.add_tokens([AddedToken(text, special=False) for text in ("<think>", "</think>")])
    return library


def family_tokenizer(name: str) -> Tokenizer:
    """A family's tokenizer, as from a checkpoint that names ``eos`` alone as its stop token."""
    family, library = FAMILIES[name], family_backend(name)
    special = {"bos_token": family.bos, "eos_token": family.eos}
    stop = library.token_to_id(family.eos)
    return Tokenizer(
        library,
        template(name),
        {key: text for key, text in special.items() if text},
        frozenset({stop}),
    )
