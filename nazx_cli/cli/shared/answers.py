"""Options on how answers are made, and the settings that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.shared.options import count_option, option
from nazx_cli.engine.sampling import BOUNDS
from nazx_cli.names import READ_MODES, SUMMARIES, THINKING

if TYPE_CHECKING:
    from nazx_cli.session.settings import SessionSettings


def _bounded(flag: str, help: str, metavar: str) -> Any:
    """An option for one of the settings of ``Sampling``, held to its bounds."""
    low, high = BOUNDS[flag.removeprefix("--").replace("-", "_")]

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value:g} is out of range; choose {low:g} to {high:g}")
        return value

    return option(flag, help, metavar=metavar, callback=check)


@dataclass(frozen=True)
class AnswerOptions:
    """How answers are made."""

    system: Annotated[str | None, option("--system", "System message.", "-s", metavar="TEXT")] = (
        None
    )
    read: Annotated[str, option("--read", "How documents are read.", choices=READ_MODES)] = "auto"
    summaries: Annotated[
        str,
        option(
            "--summaries",
            "Who words a summary: the document (extract) or the model (write).",
            choices=SUMMARIES,
        ),
    ] = "auto"
    think: Annotated[
        str, option("--think", "Thinking before an answer, of models that do.", choices=THINKING)
    ] = "hide"
    max_thinking: Annotated[
        int,
        count_option("--max-thinking", "Most tokens of thinking, which is no answer.", least=0),
    ] = 2048
    max_tokens: Annotated[int, count_option("--max-tokens", "Most tokens of an answer.")] = 512
    ctx: Annotated[int | None, count_option("--ctx", "Most tokens the context may hold.")] = None
    temperature: Annotated[
        float | None,
        _bounded(
            "--temperature",
            "0 takes the likeliest token. Default, as of the next four: what the model's makers "
            "say, where no documents are asked about; else 0.",
            metavar="T",
        ),
    ] = None
    top_k: Annotated[
        int | None, _bounded("--top-k", "Draw from the K likeliest; 0: from all.", metavar="K")
    ] = None
    top_p: Annotated[
        float | None, _bounded("--top-p", "Draw from the likeliest that sum to P.", metavar="P")
    ] = None
    min_p: Annotated[
        float | None, _bounded("--min-p", "Leave out below P times the likeliest.", metavar="P")
    ] = None
    repeat_penalty: Annotated[
        float | None,
        _bounded(
            "--repeat-penalty",
            "Above 1 discourages repetition; 1 is off. Default: 1.1, or the makers'.",
            metavar="R",
        ),
    ] = None
    seed: Annotated[int | None, _bounded("--seed", "Same seed, same answer.", metavar="N")] = None
    no_grounding: Annotated[
        bool,
        option("--no-grounding", "Let answers have names and numbers that the documents have not."),
    ] = False

    def settings(self) -> SessionSettings:
        """The session's settings; ``UsageError`` where a value makes no sense."""
        from nazx_cli.session.settings import SessionSettings, Wishes

        sampling = Wishes(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=self.seed,
        )
        return SessionSettings(
            system=self.system,
            ctx=self.ctx,
            max_tokens=self.max_tokens,
            sampling=sampling,
            read=self.read,
            grounding=not self.no_grounding,
            summaries=self.summaries,
            think=self.think,
            max_thinking=self.max_thinking,
        )
