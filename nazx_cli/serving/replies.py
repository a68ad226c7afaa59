"""Answers as OpenAI's clients read them: whole, or as a stream of chunks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nazx_cli.reading.passages import place, source_record
from nazx_cli.serving.desk import End, Piece, Source
from nazx_cli.serving.logprobs import TokenChances, of_chat, of_completion
from nazx_cli.serving.requests import ChatRequest, CompletionRequest
from nazx_cli.session.calibration import doubt, is_unsure, rounded

DONE = b"data: [DONE]\n\n"


@dataclass
class Reply:
    """The reply to one request while it is put together; ``model`` is the name it goes by."""

    asked: ChatRequest | CompletionRequest
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_tokens: int = 0
    generated: int = 0

    def __post_init__(self) -> None:
        self.is_chat = isinstance(self.asked, ChatRequest)
        self._id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._begun: set[int] = set()
        self._told: dict[int, int] = {}  # characters of each choice so far

    def whole(self, items: Iterable[Piece | End]) -> dict[str, Any]:
        """The reply as one object."""
        text: dict[int, str] = {}
        tokens: dict[int, list[TokenChances]] = {}
        choices: list[dict[str, Any]] = []
        thinking = ""
        for item in items:
            if isinstance(item, Piece):
                text[item.index] = text.get(item.index, "") + item.text
                thinking += item.thinking
                tokens.setdefault(item.index, []).extend([item.token] if item.token else [])
                continue
            self._count(item)
            said = text.get(item.index, "")
            choice: dict[str, Any] = {"index": item.index, "finish_reason": _reason(item)}
            choice["logprobs"] = self._logprobs(tokens.get(item.index, []), 0)
            if self.is_chat:
                message: dict[str, Any] = {"role": "assistant", "content": said}
                message |= {"refusal": None} | self._ending(item)
                if thinking:
                    message["reasoning_content"] = thinking.strip()
                choice["message"] = message
            else:
                choice["text"] = said
            choices.append(choice)
        kind = "chat.completion" if self.is_chat else "text_completion"
        return self._object(kind, choices) | {"usage": self._usage()}

    def chunks(self, item: Piece | End) -> Iterator[bytes]:
        """What ``item`` adds to a stream: nothing where it tells nothing."""
        if self.is_chat and item.index not in self._begun:
            self._begun.add(item.index)
            yield self._chunk(item.index, {"role": "assistant", "content": ""})
        if isinstance(item, End):
            self._count(item)
            yield self._chunk(item.index, self._ending(item), finish=_reason(item))
        elif item.text or item.thinking or item.token:
            delta: dict[str, Any] = {"content": item.text}
            if item.thinking:
                delta["reasoning_content"] = item.thinking
            told = self._told.get(item.index, 0)
            self._told[item.index] = told + len(item.text)
            logprobs = self._logprobs([item.token] if item.token else [], told)
            yield self._chunk(item.index, delta, logprobs)

    def last_chunks(self) -> Iterator[bytes]:
        """What ends a stream."""
        if self.asked.manner.include_usage:
            yield event(self._object(self._kind, []) | {"usage": self._usage()})
        yield DONE

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": logprobs}
        choice |= {"delta": delta} if self.is_chat else {"text": delta.get("content", "")}
        usage = {"usage": None} if self.asked.manner.include_usage else {}
        return event(self._object(self._kind, [choice]) | usage)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _count(self, end: End) -> None:
        self.prompt_tokens += end.prompt_tokens
        self.generated += end.generated

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt_tokens + self.generated,
        }

    def _logprobs(self, tokens: list[TokenChances], offset: int) -> dict[str, Any] | None:
        if self.asked.manner.logprobs is None or not tokens:
            return None
        return of_chat(tokens) if self.is_chat else of_completion(tokens, offset)

    def _ending(self, end: End) -> dict[str, Any]:
        """What the end of a chat's answer tells beside its reason."""
        if not isinstance(self.asked, ChatRequest):
            return {}
        own: dict[str, Any] = {
            "mode": end.mode,
            "finish": end.finish,
            "confidence": rounded(end.confidence),
            "unsure": is_unsure(end.confidence),
            "doubt": doubt(end.confidence),
            "likely": end.likely,
            "notices": list(end.notices),
        }
        if self.asked.sources:
            own["sources"] = [source_record(passage) for passage in end.read]
        if end.second is not None:
            other, source = end.second.runner_up, end.second.source
            own["runner_up"] = {
                "answer": other.text,
                "confidence": rounded(other.confidence),
                "citation": None if source is None else citation(source),
            }
        cited = [citation(each) for each in end.sources]
        annotations = [{"type": "file_citation", "file_citation": each} for each in cited]
        return {"annotations": annotations, "nazx": own}


def event(data: dict[str, Any]) -> bytes:
    """``data`` as one event of a stream; no text in it can end that event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def citation(source: Source) -> dict[str, Any]:
    """Where the passage of a source stands and what it says."""
    passage = source.passage
    return {
        "file_id": source.file,
        "document": source.document,
        "filename": passage.document,
        "place": place(passage, source.quote).lstrip(":, "),
        "first_line": passage.first_line,
        "last_line": passage.last_line,
        "quote": source.quote,
    }


def _reason(end: End) -> str:
    """OpenAI's word for why an answer ended; it has none for loops."""
    return "length" if end.finish == "length" else "stop"
