"""What clients ask for: bodies of requests, checked and made into values.

What OpenAI's interface has and this server has not is refused by name, unless it asks for nothing
(``n`` 1, a penalty of 0); so is what nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from nazx_cli.errors import UsageError
from nazx_cli.foreign import parse_json
from nazx_cli.names import READ_MODES
from nazx_cli.serving.errors import ApiError
from nazx_cli.session.settings import SessionSettings, Wishes
from nazx_cli.session.state import History, Message, Turn

V = TypeVar("V")

_MOST_STOPS, _LONGEST_STOP = 16, 1_000
_MOST_ALTERNATIVES = 20
_MOST_PROMPTS = 32
_ASKS_NOTHING: Mapping[str, tuple[Any, ...]] = {
    # Known to OpenAI's interface: the values of each with which it can be done without.
    **dict.fromkeys(("frequency_penalty", "presence_penalty"), (0,)),
    **dict.fromkeys(("n", "best_of"), (1,)),
    **dict.fromkeys(("store", "echo"), (False,)),
    **dict.fromkeys(("logit_bias", "tools", "functions"), ({}, [])),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    **dict.fromkeys(
        ("audio", "prediction", "reasoning_effort", "verbosity", "web_search_options"), ()
    ),
}
_OF_NO_MATTER = (
    *("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
    *("safety_identifier", "service_tier", "user"),
)


@dataclass(frozen=True)
class Manner:
    """How an answer is made and sent, whatever is asked; None and 0: as the server is set up.

    ``logprobs`` is how many alternatives each token is told with, None: nothing is told of tokens.
    """

    wishes: Wishes = field(default_factory=Wishes)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    stream: bool = False
    include_usage: bool = False

    def over(self, settings: SessionSettings) -> SessionSettings:
        """``settings`` with what is wished in its place."""
        drawn = {name: value for name, value in vars(self.wishes).items() if value is not None}
        sampling = replace(settings.sampling, **drawn)
        most = settings.max_tokens if self.max_tokens is None else self.max_tokens
        return replace(settings, sampling=sampling, max_tokens=most)


@dataclass(frozen=True)
class ChatRequest:
    """A question, and the turns before it. ``files`` None: nothing is said of documents."""

    manner: Manner
    question: str
    history: History = field(default_factory=History)
    system: str | None = None
    files: tuple[str, ...] | None = None
    session: str | None = None
    read: str | None = None
    sources: bool = False

    def over(self, settings: SessionSettings) -> SessionSettings:
        """``settings`` with what is asked for in its place."""
        system = settings.system if self.system is None else self.system
        read = settings.read if self.read is None else self.read
        return replace(self.manner.over(settings), system=system, read=read)


@dataclass(frozen=True)
class CompletionRequest:
    """Texts to go on with, or their token ids."""

    manner: Manner
    prompts: tuple[str | tuple[int, ...], ...]


def chat_request(raw: bytes, model: str) -> ChatRequest:
    """The body of ``/v1/chat/completions``; ``ApiError`` where it is none."""
    body = _Body(raw, model)
    alternatives = body.count("top_logprobs", 0, _MOST_ALTERNATIVES)
    wants = body.flag("logprobs")
    if alternatives is not None and not wants:
        raise _wrong("top_logprobs", "needs logprobs to be true")
    longest = body.count("max_completion_tokens", 1)
    manner = body.manner(longest, (alternatives or 0) if wants else None)
    system, history, question = _conversation(body.take("messages"))
    own = _Part(body.take("nazx"), "nazx")
    files = own.texts("files")
    session, read = own.text("session"), own.text("read")
    if read is not None and read not in READ_MODES:
        raise _wrong("nazx.read", f"must be one of {', '.join(READ_MODES)}")
    asked = ChatRequest(
        manner, question, history, system, files, session, read, own.flag("sources")
    )
    own.finish()
    body.finish()
    if session is not None and history.turns:
        raise _wrong("messages", "must be the new question alone: the session has those before it")
    return asked


def completion_request(raw: bytes, model: str) -> CompletionRequest:
    """The body of ``/v1/completions``; ``ApiError`` where it is none."""
    body = _Body(raw, model)
    manner = body.manner(None, body.count("logprobs", 0, _MOST_ALTERNATIVES))
    prompts = _prompts(body.take("prompt"))
    body.finish()
    return CompletionRequest(manner, prompts)


class _Part:
    """A JSON object whose fields are taken one by one; ``finish`` refuses those that are left."""

    def __init__(self, data: Any, name: str = "") -> None:
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise _wrong(name or None, "must be a JSON object")
        self._data = {key: value for key, value in data.items() if value is not None}
        self._prefix = f"{name}." if name else ""

    def take(self, key: str) -> Any:
        """The value of ``key``, which is then done with; None where there is none."""
        return self._data.pop(key, None)

    def _typed(self, key: str, kind: Callable[[Any], bool], what: str) -> Any:
        value = self.take(key)
        if value is not None and not kind(value):
            raise _wrong(self._prefix + key, f"must be {what}")
        return value

    def text(self, key: str) -> str | None:
        """A text."""
        found: str | None = self._typed(key, lambda v: isinstance(v, str), "a string")
        return found

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts."""
        found = self._typed(key, _is_texts, "a list of strings")
        return None if found is None else tuple(found)

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing."""
        return bool(self._typed(key, lambda v: isinstance(v, bool), "true or false"))

    def count(self, key: str, least: int, most: int = 1 << 31) -> int | None:
        """A whole number in that range."""

        def fits(value: Any) -> bool:
            return _is_whole(value) and bool(least <= value <= most)

        found: int | None = self._typed(key, fits, f"a whole number from {least} to {most:,}")
        return found

    def finish(self) -> None:
        """Refuse what was not taken."""
        for key, value in self._data.items():
            name = self._prefix + key[:80]
            if self._prefix or key not in _ASKS_NOTHING:
                raise ApiError(400, f"Unknown parameter: '{name}'.", name, "unknown_parameter")
            if not any(value == each for each in _ASKS_NOTHING[key]):
                message = f"Unsupported parameter: '{name}' with this value."
                raise ApiError(400, message, name, "unsupported_parameter")


class _Body(_Part):
    """A request's whole body, meant for ``model``."""

    def __init__(self, raw: bytes, model: str) -> None:
        try:
            data = parse_json(raw)
        except ValueError as error:
            message = f"the body is not valid JSON in UTF-8: {str(error)[:100]}"
            raise ApiError(400, message, None, "invalid_json") from None
        super().__init__({} if data is None else data)
        for key in _OF_NO_MATTER:
            self.take(key)
        named = self.text("model")
        if named is None:
            raise ApiError(400, "you must provide a model parameter", "model", "missing")
        if named != model:
            message = f"The model '{named[:80]}' does not exist; this server has '{model}'."
            raise ApiError(404, message, "model", "model_not_found")

    def manner(self, max_tokens: int | None, logprobs: int | None) -> Manner:
        """What both kinds of requests say of their answers."""
        older = self.count("max_tokens", 1)
        stream = self.flag("stream")
        options = self.take("stream_options")
        if options is not None and not stream:
            raise _wrong("stream_options", "needs stream to be true")
        told = _Part(options, "stream_options")
        include_usage = told.flag("include_usage")
        told.flag("include_obfuscation")
        told.finish()
        return Manner(
            self._wishes(),
            older if max_tokens is None else max_tokens,
            self._stops(),
            logprobs,
            stream,
            include_usage,
        )

    def _wishes(self) -> Wishes:
        wishes = Wishes()
        for key in ("temperature", "top_p", "seed"):
            if key == "seed":
                value = self._typed(key, _is_whole, "a whole number")
            else:
                value = self._typed(key, _is_number, "a number")
            try:
                wishes = replace(wishes, **{key: value})
            except (UsageError, OverflowError) as error:
                raise _wrong(key, f"cannot be used: {error}") from None
        return wishes

    def _stops(self) -> tuple[str, ...]:
        value = self.take("stop")
        stops = [value] if isinstance(value, str) else [] if value is None else value
        fits = _is_texts(stops) and len(stops) <= _MOST_STOPS
        if not fits or not all(0 < len(stop) <= _LONGEST_STOP for stop in stops):
            raise _wrong("stop", f"must be a string, or a list of at most {_MOST_STOPS}")
        return tuple(stops)


def _conversation(messages: Any) -> tuple[str | None, History, str]:
    """System message, turns and question of a list of messages."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of messages")
    said = [_message(at, each) for at, each in enumerate(messages)]
    system = "\n\n".join(text for role, text in said if role == "system") or None
    spoken: list[tuple[str, str]] = []
    for role, text in said:
        if role == "system":
            continue
        if spoken and spoken[-1][0] == role:  # in several messages what is one
            text = f"{spoken.pop()[1]}\n\n{text}"
        spoken.append((role, text))
    if not spoken or spoken[-1][0] != "user" or not spoken[-1][1].strip():
        raise _wrong("messages", "must end with a question of the user")
    if spoken[0][0] != "user":
        raise _wrong("messages", "must begin with the user, after any system message")
    pairs = zip(spoken[:-1:2], spoken[1:-1:2], strict=True)
    turns = tuple(
        Turn(question, Message("user", question), (), answer, interrupted=False)
        for (_, question), (_, answer) in pairs
    )
    return system, History(turns), spoken[-1][1]


def _message(at: int, message: Any) -> tuple[str, str]:
    """Role and text of one message."""
    name = f"messages[{at}]"
    if not isinstance(message, dict):
        raise _wrong(name, "must be a JSON object")
    role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
    if role not in ("system", "user", "assistant"):
        raise _wrong(f"{name}.role", "must be system, developer, user or assistant")
    content = message.get("content")
    if isinstance(content, str):
        return role, content
    if not isinstance(content, list):
        raise _wrong(f"{name}.content", "must be a string or a list of text parts")
    texts = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise _wrong(f"{name}.content[{number}]", "must be a part of type text")
        texts.append(text)
    return role, "\n".join(texts)


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    fits = isinstance(value, list) and 0 < len(value) <= _MOST_PROMPTS
    if not fits or not all(isinstance(each, str) or _is_ids(each) for each in value):
        raise _wrong("prompt", f"must be a string, token ids, or a list of up to {_MOST_PROMPTS}")
    return tuple(each if isinstance(each, str) else tuple(each) for each in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_ids(value: Any) -> bool:
    return bool(isinstance(value, list) and value and all(map(_is_whole, value)))


def _wrong(param: str | None, what: str) -> ApiError:
    return ApiError(400, f"{param or 'the body'} {what}", param, "invalid_value")
