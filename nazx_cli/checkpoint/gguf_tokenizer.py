"""The tokenizer inside a GGUF file, as the files of a Hugging Face checkpoint."""

from __future__ import annotations

from typing import Any

from nazx_cli.checkpoint.gguf import GgufFile
from nazx_cli.checkpoint.gguf_vocabulary import (
    CONTROL,
    ENDINGS,
    Vocabulary,
    read_vocabulary,
    senseless,
)
from nazx_cli.checkpoint.write import to_json


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json`` by name.

    ``ModelUnavailableError`` as ``read_vocabulary``.
    """
    vocabulary = read_vocabulary(file)
    return {
        "tokenizer.json": to_json(vocabulary.spec),
        "tokenizer_config.json": to_json(_settings(file, vocabulary)),
        "generation_config.json": to_json(_generation(file, vocabulary)),
    }


def _settings(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": file.fields.flag("tokenizer.ggml.add_bos_token", vocabulary.adds_bos),
        "model_max_length": file.count("context_length"),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = file.token_id(key)
        if number is not None:
            if number >= len(vocabulary.tokens):
                raise senseless(file)
            settings[f"{name}_token"] = vocabulary.tokens[number]
    template = file.fields.text("tokenizer.chat_template")
    return {**settings, "chat_template": template} if template else settings


def _generation(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    named = [file.token_id(key) for key in ("eos", "eot", "eom")]
    known = [
        number
        for number, (token, kind) in enumerate(
            zip(vocabulary.tokens, vocabulary.types, strict=True)
        )
        if kind == CONTROL and token in ENDINGS
    ]
    ends = dict.fromkeys(number for number in [*named, *known] if number is not None)
    return {
        "bos_token_id": file.token_id("bos"),
        "eos_token_id": list(ends),
        "pad_token_id": file.token_id("padding"),
    }
