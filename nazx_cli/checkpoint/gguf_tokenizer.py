"""The tokenizer inside a GGUF file, as the files of a Hugging Face checkpoint."""

from __future__ import annotations

from typing import Any

from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.checkpoint.write import to_json
from nazx_cli.errors import ModelUnavailableError

_CONTROL, _USER_DEFINED = 3, 4  # token types, as GGUF numbers them

_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_DIGITS = {"type": "Digits", "individual_digits": True}

_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]},
    # "olmo" is what llama.cpp calls GPT-NeoX's own.
    **dict.fromkeys(("gpt-2", "olmo", "mpt", "default"), _BYTE_LEVEL),
}

_SENSELESS = "its tokenizer makes no sense"

# Texts of tokens that end an answer, whether or not the file names them as such.
_ENDINGS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>")


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json`` by name.

    ``ModelUnavailableError`` for a kind of tokenizer that is not byte-level BPE, or whose way of
    cutting words is not known.
    """
    fields = file.fields
    kind = fields.text("tokenizer.ggml.model")
    cut = fields.text("tokenizer.ggml.pre") or "default"
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        what = (
            f"tokenizer {kind!r:.60}" if kind != "gpt2" else f"way of cutting words, {cut!r:.60},"
        )
        raise ModelUnavailableError(
            f"{file.path}: its {what} cannot be read from GGUF",
            "take the model's own safetensors checkpoint",
        )
    tokens: list[str] = fields.items("tokenizer.ggml.tokens", str)
    types: list[int] = fields.items("tokenizer.ggml.token_type", int) or [1] * len(tokens)
    merges = [merge.split(" ") for merge in fields.items("tokenizer.ggml.merges", str)]
    if not tokens or len(set(tokens)) != len(tokens) or len(tokens) > file.vocab_size:
        raise file.damaged(_SENSELESS)
    if len(types) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise file.damaged(_SENSELESS)
    return {
        "tokenizer.json": to_json(_tokenizer(tokens, types, merges, _PRE_TOKENIZERS[cut])),
        "tokenizer_config.json": to_json(_settings(file, tokens)),
        "generation_config.json": to_json(_generation(file, tokens, types)),
    }


def _tokenizer(
    tokens: list[str], types: list[int], merges: list[list[str]], pre_tokenizer: dict[str, Any]
) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": number, "content": token, **flags, "special": kind == _CONTROL}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    affixes = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            **dict.fromkeys(affixes),
            **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _settings(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": file.fields.flag("tokenizer.ggml.add_bos_token", False),
        "model_max_length": file.count("context_length"),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = file.token_id(key)
        if number is not None:
            if number >= len(tokens):
                raise file.damaged(_SENSELESS)
            settings[f"{name}_token"] = tokens[number]
    template = file.fields.text("tokenizer.chat_template")
    return {**settings, "chat_template": template} if template else settings


def _generation(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    named = [file.token_id(key) for key in ("eos", "eot", "eom")]
    known = [
        number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == _CONTROL and token in _ENDINGS
    ]
    ends = dict.fromkeys(number for number in [*named, *known] if number is not None)
    return {
        "bos_token_id": file.token_id("bos"),
        "eos_token_id": list(ends),
        "pad_token_id": file.token_id("padding"),
    }
