"""The Next Token Game on a terminal: the text as it goes on, a prompt, and who is ahead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.styles import Style

from nazx_cli.game.match import Match
from nazx_cli.game.words import Question
from nazx_cli.ui.terminal.screen import Screen
from nazx_cli.ui.terminal.tables import Table, wrapped

_WIDEST = 76  # cells of a line of the story
_SHOWN = 14  # its last lines that are shown
_GAP = "____"
_HINT = "?"
_STYLE = Style.from_dict({"prompt": "bold"})


class Play:
    """Asks ``questions`` one after another, and tells after each who said what."""

    def __init__(self, match: Match, questions: Sequence[Question], screen: Screen) -> None:
        self.match, self._questions, self._screen = match, questions, screen
        self._prompt: PromptSession[str] = PromptSession(style=_STYLE)

    def run(self) -> bool:
        """Play to the end; False where the person left before (Ctrl-C, Ctrl-D)."""
        shown = 0
        for number, question in enumerate(self._questions, 1):
            self._screen.line(f"\nround {number} of {len(self._questions)}\n")
            self._screen.line(self._lines(question.before[shown:]))
            shown = len(question.before)
            try:
                said, hinted = self._ask(question.word)
                with self._screen.bar("the models guess") as bar:
                    turns = self.match.play(question, said, hinted=hinted, on_progress=bar.update)
            except (KeyboardInterrupt, EOFError):
                return False
            rows = [
                (player.name, turn.said or "-", f"+{turn.points}", str(player.points))
                for player, turn in turns
            ]
            self._screen.line(f"\nthe word is: {question.word}\n")
            self._screen.line(Table(rows, right=(2, 3)))
        return True

    def finish(self) -> None:
        """The final table, and what context was worth."""
        rows = [
            (
                player.name,
                f"{player.points}",
                f"{player.right} of {self.match.rounds}",
                "" if player.chance is None else f"{player.chance:.1%}",
            )
            for player in self.match.ranking()
        ]
        heading = ("player", "points", "right", "gave the word")
        self._screen.line("")
        self._screen.line(Table(rows, heading, right=(1, 2, 3)))
        for line in self.match.worth():
            self._screen.line(f"\n{line}")

    def _ask(self, word: str) -> tuple[str, bool]:
        """What the person says, and whether they were helped."""
        hinted = False
        while True:
            said = self._prompt.prompt([("class:prompt", "the next word: ")]).strip()
            if said != _HINT:
                return said, hinted
            hinted = True
            self._screen.line(f"it begins with {word[0]}; right is worth half of the points now")

    def _lines(self, text: str) -> str:
        """The end of ``text``, which goes on where the line before ended, and a gap."""
        width = min(self._screen.width or _WIDEST, _WIDEST)
        lines: list[str] = []
        for paragraph in re.split(r"\n\s*\n", f"{text.rstrip()} {_GAP}"):
            lines += [*wrapped(" ".join(paragraph.split()), width), ""]
        lines.pop()
        if len(lines) > _SHOWN:
            lines = ["…", *lines[-_SHOWN:]]
        return "\n".join(lines)
