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
    "gpt-2": _BYTE_LEVEL,
    "olmo": _BYTE_LEVEL,  # what llama.cpp calls GPT-NeoX's own
    "mpt": _BYTE_LEVEL,
    "default": _BYTE_LEVEL,
}

# Texts of tokens that end an answer, whether or not the file names them as such.
_ENDINGS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>")


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json`` by name.

    ``ModelUnavailableError`` for a kind of tokenizer that is not byte-level BPE, or whose way of
    cutting words is not known.
    """
    return {
        "tokenizer.json": to_json(_tokenizer(file)),
        "tokenizer_config.json": to_json(_settings(file)),
        "generation_config.json": to_json(_generation(file)),
    }


def _tokenizer(file: GgufFile) -> dict[str, Any]:
    kind = file.field("tokenizer.ggml.model")
    cut = file.field("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        what = f"tokenizer {kind!r}" if kind != "gpt2" else f"way of cutting words, {cut!r},"
        raise ModelUnavailableError(
            f"{file.path}: its {what} cannot be read from GGUF",
            "take the model's own safetensors checkpoint",
        )
    tokens = _tokens(file)
    merges = [merge.split(" ") for merge in file.field("tokenizer.ggml.merges", [])]
    vocab = {token: number for number, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise _damaged(file)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(file, tokens),
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[cut],
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.field("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise _damaged(file)
    return tokens


def _added_tokens(file: GgufFile, tokens: list[str]) -> list[dict[str, Any]]:
    types = file.field("tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(types) != len(tokens):
        raise _damaged(file)
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _settings(file: GgufFile) -> dict[str, Any]:
    tokens = _tokens(file)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(file.field("tokenizer.ggml.add_bos_token", False)),
        "model_max_length": file.own("context_length"),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = file.field(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            if number >= len(tokens):
                raise _damaged(file)
            settings[f"{name}_token"] = tokens[number]
    template = file.field("tokenizer.chat_template")
    return {**settings, "chat_template": template} if template else settings


def _generation(file: GgufFile) -> dict[str, Any]:
    named = [file.field(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    tokens = _tokens(file)
    types = file.field("tokenizer.ggml.token_type") or []
    known = [
        number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind == _CONTROL and token in _ENDINGS
    ]
    ends = dict.fromkeys(number for number in [*named, *known] if number is not None)
    return {
        "bos_token_id": file.field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": list(ends),
        "pad_token_id": file.field("tokenizer.ggml.padding_token_id"),
    }


def _damaged(file: GgufFile) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{file.path} is damaged: its tokenizer makes no sense", "fetch the model again"
    )
