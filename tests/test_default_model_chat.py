"""A chat with the default model in a real terminal; opt in with ``-m network``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from resolve_helpers import resolve_model

from nazx_cli.errors import ModelUnavailableError

pytest.importorskip("pexpect")
pytest.importorskip("pyte")

from pseudo_terminal import PROMPT, Terminal

ALICE = Path(__file__).parent / "data" / "alice.txt"
GAUGE = r"resident memory .* \d+% .*"


@pytest.mark.network
def test_the_default_model_streams_names_its_sources_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_HOME", str(tmp_path / "home"))
    try:
        resolve_model("nazx-smol-135m")
    except ModelUnavailableError as error:
        pytest.skip(f"the default model is not in reach: {error.message}")
    terminal = Terminal("chat", "-f", str(ALICE), columns=200, timeout=120)
    assert "alice.txt (36,736 tokens)" in terminal.until(PROMPT)

    shown = terminal.enter("What did the baby turn into?")
    assert re.search(r"turn into\?\n.*\bpig\b", shown), shown
    assert re.search(r"^source: .*alice\.txt:\d+-\d+  “.*\bpig\b", shown, re.MULTILINE), shown
    assert re.search(r"^\(the model was given \d+ more passages\)$", shown, re.MULTILINE), shown
    terminal.until(rf"{PROMPT}\n{GAUGE}documents 36,736 tokens.*tokens/s$")

    terminal.enter("/set parameter summaries write")  # an extract is there at once
    terminal.send("Summarize the whole story.\r")
    before = terminal.until(rf"whole story\.\n(.+\n)*.{{20}}.*\n{GAUGE}tokens/s$")
    after = terminal.until(rf"whole story\.\n(.+\n)*.{{20}}.*\n(.+\n)+{GAUGE}tokens/s$")
    assert len(after) > len(before) and "sources:" not in after.partition("whole story.")[2]
    terminal.process.sendintr()
    stopped = terminal.until(rf"\(stopped; what was said is kept\)\n{PROMPT}")
    said = after.partition("whole story.\n")[2].partition("\n")[0]
    assert said in stopped

    assert re.search(r"^turns +2$", terminal.enter("/show"), re.MULTILINE)
    assert "undone: the last turn" in terminal.enter("/undo")
    terminal.send("/show\r")
    terminal.until(r"undone: [^\n]*\n>>> /show\n(.*\n)*turns +1$")
    terminal.send("\x04")
    assert terminal.end() == 0
