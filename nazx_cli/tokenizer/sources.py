"""The prompt form of models that are trained to answer from numbered sources and to quote them
(Pleias-RAG), as a chat template.

Their checkpoints have no template, but special tokens for each part: the question, the sources,
what is found out about both (the language, the question's kind, what each source tells, a draft),
and last the answer, in which a reference quotes the source that a statement rests on. A message
of the role ``source`` is one source, its number first; they follow the question. Older models of
the kind mark a source's number on both sides and are not meant here.
"""

from __future__ import annotations

from collections.abc import Callable

ANALYSIS, ANSWER = "<|language_start|>", "<|answer_start|>"
"""Where the analysis begins, with which a reply opens, and where the answer does."""
END = "<|answer_end|>"
NUMBER = "<|source_id|>"
"""Stands before a source's number, there and where an answer refers to it."""
TOKENS = (
    *("<|query_start|>", "<|query_end|>", "<|source_start|>", NUMBER, "<|source_end|>"),
    *(ANALYSIS, ANSWER, END),
)
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}"
    "{{ '<|query_start|>' }}{{ message.content }}{{ '<|query_end|>\n' }}"
    "{% elif message.role == 'source' %}"
    "{{ '<|source_start|><|source_id|>' }}{{ message.content }}{{ '<|source_end|>\n' }}"
    "{% elif message.role == 'assistant' %}"
    "{{ '<|answer_start|>\n' }}{{ message.content }}{{ '\n<|answer_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|language_start|>\n' }}{% endif %}"
)


def takes_sources(id_of: Callable[[str], int | None]) -> bool:
    """Whether a tokenizer, whose ids ``id_of`` tells, has the tokens of this form."""
    return all(id_of(token) is not None for token in TOKENS)
