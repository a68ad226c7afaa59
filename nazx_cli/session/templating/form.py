"""What a chat template does with what it is given, found by running it on a few short messages.

Templates differ in more than their marks: some refuse a system message, some want every text as a
list of parts, some have a switch for thinking. No name of a model tells; the template itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from nazx_cli.errors import ModelUnavailableError
from nazx_cli.session.templating.sandbox import MAX_SOURCE, OutputLimitError, is_plain, run_template

if TYPE_CHECKING:
    from nazx_cli.tokenizer import Tokenizer

Turns = Sequence[Mapping[str, str]]
"""Messages as templates get them: ``role`` and ``content``."""

FAILED = "the model's chat template failed"
CORRECT = "correct the checkpoint's chat_template, or use another model with --model"
_LEAST_OUTPUT = 1 << 18  # characters
_SYSTEM, _ASKED, _SAID = "nazxsystem", "nazxasked", "nazxsaid"  # texts that no template has


class ExcessError(ModelUnavailableError):
    """A template took more time, memory or text than any needs; it would again."""


def form_of(tokenizer: Tokenizer) -> Form:
    """The form of the tokenizer's chat template, which it must have."""
    return _form(tokenizer.chat_template or "", tuple(sorted(tokenizer.special.items())))


@lru_cache(maxsize=8)
def _form(source: str, special: tuple[tuple[str, str], ...]) -> Form:
    return Form(source, dict(special))


class Form:
    """A template's Jinja ``source``, and the ``special`` tokens' texts that it may name.

    Whatever runs it raises ``ModelUnavailableError`` where it fails, ``ExcessError`` where it takes
    too much.
    """

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        self._source = source
        self._special = special

    def text(self, turns: Turns, *, opens: bool, think: bool | None = None) -> str:
        """The conversation as text; with ``opens`` up to where an answer begins.

        ``think`` asks a template that has a switch to have the model think, or not to; None leaves
        it to the template. A system message for which there is no place goes before the first
        question.
        """
        if len(turns) > 1 and turns[0]["role"] == "system" and not self._has_system:
            system, first, *rest = turns
            joined = f"{system['content']}\n\n{first['content']}"
            turns = [{**first, "content": joined}, *rest]
        return self._run(turns, opens, think, parts=self._takes_parts)

    @cached_property
    def has_switch(self) -> bool:
        """Whether it can be told not to have the model think."""
        asked, off = ({"role": "user", "content": _ASKED},), False
        return self.text(asked, opens=True, think=True) != self.text(asked, opens=True, think=off)

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """What stands behind an answer, that is the last message and that is not."""
        talk = (
            {"role": "user", "content": _ASKED},
            {"role": "assistant", "content": _SAID},
            {"role": "user", "content": _ASKED},
        )
        parts = self._takes_parts
        texts = (self._tried(talk[:end], opens=False, parts=parts) for end in (2, 3))
        return tuple(text.rpartition(_SAID)[2] for text in texts if _SAID in text)

    def mentions(self, text: str) -> bool:
        """Whether ``text`` stands in the template."""
        return text in self._source

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether a content has to be a list of parts: as a text it gets lost."""
        asked = ({"role": "user", "content": _ASKED},)
        return _ASKED not in self._tried(asked) and _ASKED in self._tried(asked, parts=True)

    @cached_property
    def _has_system(self) -> bool:
        """Whether a system message comes through."""
        turns = ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": _ASKED})
        return _SYSTEM in self._tried(turns, parts=self._takes_parts)

    def _tried(self, turns: Turns, *, opens: bool = True, parts: bool = False) -> str:
        """The text; none where the template refuses the messages."""
        try:
            return self._run(turns, opens, None, parts=parts)
        except ExcessError:
            raise
        except ModelUnavailableError:
            return ""

    def _run(self, turns: Turns, opens: bool, think: bool | None, *, parts: bool) -> str:
        source = self._source
        if len(source) > MAX_SOURCE:
            raise ExcessError(f"the model's chat template has {len(source):,} characters", CORRECT)
        messages: Sequence[Mapping[str, Any]] = turns
        if parts:
            messages = [
                {**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns
            ]
        variables = {
            **self._special,
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": opens,
        }
        if think is not None:
            variables |= {"enable_thinking": think, "thinking": think}
        max_output = _LEAST_OUTPUT + 8 * sum(len(turn["content"]) for turn in turns)
        return _run_bounded(source, variables, max_output)


def _run_bounded(source: str, variables: Mapping[str, Any], max_output: int) -> str:
    from nazx_cli.session.templating.process import TemplateLimitError, run_in_process

    try:
        run = run_template if is_plain(source) else run_in_process
        return run(source, variables, max_output)
    except MemoryError:
        raise
    except OutputLimitError:
        raise ExcessError(f"{FAILED}: its text is far longer than the messages", CORRECT) from None
    except TemplateLimitError as error:
        raise ExcessError(f"{FAILED}: {error}", CORRECT) from None
    # A template is a program of unknown origin: it can fail in any way that Python code can.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelUnavailableError(f"{FAILED}: {reason[:200]}", CORRECT) from error
