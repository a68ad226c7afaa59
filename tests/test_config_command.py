"""``nazx config``: defaults of options in a file, and prompts by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import run_nazx as nazx
from cli_helpers import tiny_checkpoint
from store_helpers import MODEL, full_state

from nazx_cli.session.saving.store import Store


@pytest.fixture
def file() -> Path:
    return Path(os.environ["NAZX_HOME"]) / "config.toml"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


def generated(*arguments: str, env: dict[str, str] | None = None) -> int:
    out, _, code = nazx("ask", "--json", "Who?", *arguments, env=env)
    assert code == 0
    return int(json.loads(out)["stats"]["generated"])


def test_defaults_are_set_listed_and_taken_away(file: Path) -> None:
    assert nazx("config", "path")[0] == f"{file}\n"
    assert nazx("config", "set", "--", "--max_tokens", "7") == ("", "", 0)
    assert nazx("config", "set", "model", 'a "b" \x7f☃') == ("", "", 0)
    assert json.loads(nazx("config", "--json")[0]) == {
        "max-tokens": 7,
        "model": 'a "b" \x7f☃',
    }
    assert nazx("config", "get", "max-tokens")[0] == "7\n"
    file.write_text("# mine\n" + file.read_text())
    assert nazx("config", "unset", "model")[2] == 0
    assert file.read_text() == "# mine\nmax-tokens = 7\n"
    assert nazx("config", "get", "model")[2] == 2


def test_a_key_that_was_typed_in_wrongly_can_be_taken_away(file: Path) -> None:
    file.write_text("max_tokens = 100\n")
    _, err, code = nazx("ls")
    assert code == 2 and "next: nazx config unset max_tokens" in err
    assert nazx("config", "get", "max_tokens")[0] == "100\n"
    assert nazx("config", "unset", "max_tokens") == ("", "", 0)
    assert nazx("ls")[2] == 0


def test_all_else_of_a_file_that_is_changed_stays_as_it_stands(file: Path) -> None:
    mine = '# mine\nfile = [\n  "a.txt",\n  "b c.txt",\n]\nquiet = true  # always\n'
    file.write_text(mine + "\n[extra]\nx = 1\n")
    assert nazx("config", "set", "max-tokens", "5")[2] == 0
    assert nazx("config", "get", "max-tokens")[0] == "5\n"
    assert file.read_text() == f"{mine}max-tokens = 5\n\n[extra]\nx = 1\n"
    assert nazx("config", "unset", "file")[2] == 0
    assert file.read_text().startswith("# mine\nquiet = true  # always\nmax-tokens = 5\n")
    file.write_text("# nothing yet\n")
    assert nazx("config", "set", "quiet", "true")[2] == 0
    assert file.read_text() == "# nothing yet\nquiet = true\n"


@pytest.mark.skipif(os.name == "nt", reason="needs limits of file sizes")
def test_where_nothing_can_be_written_what_was_set_stays_and_removing_works(file: Path) -> None:
    nazx("config", "set", "max-tokens", "7")
    with Store(file.parent / "sessions").open("work", create=True) as session:
        session.save({"main": full_state()}, "main", (), MODEL)
    code = (
        "import resource\nfrom nazx_cli.cli.app import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\napp()"
    )

    def on_a_full_disk(*arguments: str) -> tuple[str, int]:
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
        return done.stderr.decode(), done.returncode

    err, exit_code = on_a_full_disk("config", "set", "max-tokens", "8")
    assert exit_code == 1 and "cannot be written" in err
    assert file.read_text() == "max-tokens = 7\n"
    assert on_a_full_disk("sessions", "rm", "work", "--yes") == ("", 0)
    left = {path.name for path in file.parent.rglob("*") if path.is_file()}
    assert left == {"config.toml"}


def test_a_flag_beats_the_environment_which_beats_the_file(model: str, file: Path) -> None:
    file.write_text(f"model = {json.dumps(model)}\nmax-tokens = 3\n")
    assert generated() == 3
    assert generated(env={"NAZX_MAX_TOKENS": "4"}) == 4
    assert generated("--max-tokens", "5", env={"NAZX_MAX_TOKENS": "4"}) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 1\n", "there is no option 'modle'"),
        ("max-tokens = 'many'\n", "max-tokens cannot be 'many'"),
        ("max-tokens = 0\n", "max-tokens cannot be 0"),
        ("read = 'fast'\n", "read cannot be 'fast'"),
        ("device = 'gpu'\n", "device cannot be 'gpu'"),
        ("= =\n", "cannot be read"),
        ("[model]\nx = 1\n", ""),
    ],
)
def test_a_file_that_is_wrong_is_one_line_and_can_be_mended(
    text: str, said: str, file: Path
) -> None:
    file.write_text(text)
    out, err, code = nazx("ls")
    if said:
        assert (out, code, err.count("\n")) == ("", 2, 1)
        assert str(file) in err and said in err
    assert nazx("config", "path")[2] == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("modle", "x"), ("max-tokens", "x"), ("read", "x"), ("vram-limit", "1"), ("index-size", "x")],
)
def test_what_is_no_option_or_no_value_is_not_set(key: str, value: str, file: Path) -> None:
    _, err, code = nazx("config", "set", key, value)
    assert code == 2 and err.count("\n") == 1
    assert not file.exists()


def test_a_variable_has_one_value_a_line(tmp_path: Path, model: str) -> None:
    for name in ("my book.txt", "other.txt"):
        (tmp_path / name).write_text("The otter eats trout.\n")
    files = "".join(f"{tmp_path / name}\n" for name in ("my book.txt", "other.txt"))
    ask = ("ask", "-m", model, "--max-tokens", "2", "--read", "recall", "--json", "trout?")
    out, err, code = nazx(*ask, env={"NAZX_FILE": files})
    assert code == 0, err
    assert {each["file"] for each in json.loads(out)["sources"]} == set(files.splitlines())


def test_a_prompt_by_name_is_asked_before_the_question(model: str, file: Path) -> None:
    (file.parent / "prompts").mkdir()
    (file.parent / "prompts" / "short.txt").write_text("Answer in a word.\n")
    assert nazx("config", "prompts")[0] == "short\n"
    ask = ("ask", "-m", model, "--max-tokens", "8", "--json")
    alone = json.loads(nazx(*ask, "--prompt", "short")[0])["answer"]
    assert alone == json.loads(nazx(*ask, "Answer in a word.")[0])["answer"]
    both = json.loads(nazx(*ask, "--prompt", "short", "Who?")[0])["answer"]
    assert both == json.loads(nazx(*ask, "Answer in a word.\n\nWho?")[0])["answer"]
    _, err, code = nazx(*ask, "--prompt", "../config")
    assert code == 2 and "there is no prompt" in err


def test_a_question_without_quotes_says_that_they_are_missing() -> None:
    _, err, code = nazx("ask", "what", "is", "the", "treasure")
    assert code == 2 and '"what is the treasure"' in err


def test_an_unknown_device_answers_with_those_there_are() -> None:
    _, err, code = nazx("gauge", "--device", "gpu")
    assert code == 2
    assert "'gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'" in err
