"""Gathering documents: files, folders, patterns and standard input, and what is left out."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from document_files import failure, write

import nazx_cli
from nazx_cli.documents.gather import gather


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def names(*specs: str) -> list[str]:
    return [d.name for d in gather(specs).documents]


def test_a_file_keeps_the_name_that_was_given() -> None:
    write("sub/a.txt", "hello")
    (document,) = gather(["./sub/../sub/a.txt"]).documents
    assert (document.name, document.text, document.format) == (
        "./sub/../sub/a.txt",
        "hello",
        "text",
    )


def test_a_home_folder_is_expanded() -> None:
    write("a.txt", "at home")
    assert gather(["~/a.txt"]).documents[0].text == "at home"


def test_a_folder_gives_its_text_files_sorted_and_lists_the_others() -> None:
    for name in ("f/b.txt", "f/a/z.md", "f/.hidden", "f/.git/config", "f/a/main.py"):
        write(name)
    write("f/picture.png", b"\x89PNG\0\0")
    write("f/blank.txt", " \n")
    found = gather(["f"])
    assert [d.name for d in found.documents] == ["f/a/main.py", "f/a/z.md", "f/b.txt"]
    assert [(s.name, s.reason) for s in found.skipped] == [
        ("f/blank.txt", "is empty"),
        ("f/picture.png", "is a binary file"),
    ]


def test_what_a_gitignore_names_is_left_out_and_counted_by_pattern() -> None:
    write("f/.gitignore", "# built\n*.log\nbuild/\n!keep.log\n/only.txt\n\n!\n")
    write("f/sub/.gitignore", "!again.log\nnotes.md\n")
    kept = ["a.txt", "keep.log", "sub/again.log", "sub/only.txt"]
    left_out = ["only.txt", "sub/notes.md", *(f"{n}.log" for n in range(20))]
    for name in (*kept, *left_out, "build/x.txt", "sub/build/keep.log"):
        write(f"f/{name}")
    found = gather(["f"])
    assert [d.name for d in found.documents] == [f"f/{name}" for name in kept]
    assert sorted((s.name, s.reason) for s in found.skipped) == [
        ("f/0.log and 19 more", "are ignored by *.log in f/.gitignore"),
        ("f/build/ and 1 more", "are ignored by build/ in f/.gitignore"),
        ("f/only.txt", "is ignored by /only.txt in f/.gitignore"),
        ("f/sub/notes.md", "is ignored by notes.md in f/sub/.gitignore"),
    ]


def test_a_repository_s_rules_hold_in_its_folders() -> None:
    write("repo/.gitignore", "*.log\nout/\n/sub/local.txt\n")
    for name in ("sub/a.txt", "sub/b.log", "sub/local.txt", "sub/private.txt", "out/c.log"):
        write(f"repo/{name}")
    assert names("repo/sub") == [
        f"repo/sub/{n}" for n in ("a.txt", "b.log", "local.txt", "private.txt")
    ]
    write("repo/.git/info/exclude", "private.txt\n")
    assert names("repo/sub") == ["repo/sub/a.txt"]
    assert names("repo/out") == ["repo/out/c.log"]  # asked for by name
    assert names("repo/sub/b.log") == ["repo/sub/b.log"]


def test_the_rules_are_those_of_git() -> None:
    subprocess.run(["git", "init", "-q", "r"], check=True)
    rng = random.Random(4)
    for _ in range(60):
        path = "/".join([*rng.choices("ab", k=rng.randrange(3)), rng.choice(["c.txt", "d.log"])])
        write(f"r/{path}")
    patterns = ["*.log", "a/", "/b", "!a/b", "**/b/*.txt", "a/**", "!c.txt", "b/*", "!/b/a/", "a"]
    patterns += ["[z-a]*", "*[!a-c].log", "[[:alpha:]].txt", "?.log", "**", "/**/a", "a/**/c.txt"]
    patterns += [
        "[a",
        "\\*.log",
        "c\\.txt",
        "\\",
        "*.t*t",
        "b/**",
        "**/a/**",
        "*.log  ",
        "[^]]*",
        "//",
    ]
    patterns += ["[]-]*.log", "[a\\]c]*", "/*/b", "**/", "!**/d.log", "c.tx[[:nosuch:]t]", "a**/b"]
    for _ in range(60):
        for folder in ("r", "r/a", "r/b", "r/a/b"):
            if Path(folder).is_dir():
                write(f"{folder}/.gitignore", "\n".join(rng.sample(patterns, 3)) + "\n")
        listed = subprocess.run(
            ["git", "-C", "r", "ls-files", "-co", "--exclude-per-directory=.gitignore"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        visible = sorted(f"r/{name}" for name in listed if ".gitignore" not in name)
        assert (sorted(names("r")) if visible else visible) == visible


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "**/a/" * 200 + "b", "/**" * 300 + "/b", "[a-z]*" * 40 + "0"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    write("f/.gitignore", f"{pattern}\n" * 50)
    deep = "f/" + "a/" * 60
    write(deep + "a" * 200)
    begun = time.process_time()
    assert names("f") == [deep + "a" * 200]
    assert time.process_time() - begun < 5


def test_of_a_long_gitignore_the_end_is_left_with_a_note() -> None:
    write("f/.gitignore", "a.txt\n" + "*b*c*d*\n" * 100_000 + "kept.txt\n")
    write("f/a.txt")
    write("f/kept.txt")
    found = gather(["f"])
    assert [d.name for d in found.documents] == ["f/kept.txt"]
    assert "f/.gitignore" in [s.name for s in found.skipped]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
def test_a_gitignore_that_is_no_file_is_passed_over(make: Callable[[str], None]) -> None:
    write("f/a.txt")
    make("f/.gitignore")
    assert names("f") == ["f/a.txt"]


def test_what_is_no_regular_file_in_a_folder_is_skipped() -> None:
    write("f/a.txt")
    os.mkfifo("f/pipe")
    Path("f/loop").symlink_to("loop")
    Path("f/zero").symlink_to("/dev/zero")
    for spec in ("f", "f/*"):
        found = gather([spec])
        assert [d.name for d in found.documents] == ["f/a.txt"]
        assert sorted(s.name for s in found.skipped) == ["f/loop", "f/pipe", "f/zero"]


def test_minified_scripts_are_read_only_where_they_are_named() -> None:
    long, short = "var a;" * 700, "var a;\n" * 700  # of 4,200 bytes in a line, and of more in many
    for name in ("index.js", "deep/Style.CSS", "drawing.svg"):
        write(f"f/{name}", f"/* a licence */\n{long}")
    kept = {"f/app.js": short, "f/line.js": "x" * 4095, "f/data.json": long, "f/book.txt": long}
    for name, text in kept.items():
        write(name, text)
    found = gather(["f"])
    assert {each.name: each.text for each in found.documents} == kept
    assert {each.reason for each in found.skipped} == {"is minified"}
    assert len(found.skipped) == 3
    assert len(gather(["f/**/*"]).documents) == len(kept)
    assert [each.name for each in gather(["f/index.js"]).documents] == ["f/index.js"]
    assert failure("f/deep").message == "f/deep has no readable text in it"


def test_a_link_to_itself_is_an_error() -> None:
    Path("loop").symlink_to("loop")
    assert "loop" in failure("loop").message


def test_a_glob_reaches_into_folders() -> None:
    for name in ("x/1.txt", "x/y/2.txt", "x/y/3.md"):
        write(name)
    assert names("x/**/*.txt") == ["x/1.txt", "x/y/2.txt"]
    assert names("~/x/*.txt") == [str(Path("x/1.txt").resolve())]


def test_a_glob_leaves_hidden_names_out_and_enters_no_folder_by_a_link() -> None:
    for name in ("x/1.txt", "x/y/2.txt", "x/.z/3.txt", "x/y/.4.txt", ".v/w/5.txt"):
        write(name)
    for number in range(3):
        Path(f"x/again{number}").symlink_to(".")
    assert names("x/**/*.txt") == ["x/1.txt", "x/y/2.txt"]
    assert names("x/**") == ["x/1.txt", "x/y/2.txt"]
    assert names("**/2.txt") == ["x/y/2.txt"]
    assert names(".v/**/*.txt") == [".v/w/5.txt"]
    assert names("x/**/.*.txt") == ["x/y/.4.txt"]
    assert names(str(Path.cwd() / "[x]/**/[2-9].txt")) == [str(Path("x/y/2.txt").resolve())]


def test_a_binary_file_is_told_from_its_beginning_however_long() -> None:
    write("a.txt")
    with Path("disk.img").open("wb") as file:
        file.truncate(1 << 40)
    begun = time.process_time()
    assert [skipped.reason for skipped in gather(["."]).skipped] == ["is a binary file"]
    assert time.process_time() - begun < 5


def test_a_file_whose_name_looks_like_a_glob_is_that_file() -> None:
    write("notes[1].txt", "mine")
    assert names("notes[1].txt") == ["notes[1].txt"]


def test_a_file_named_twice_is_read_once() -> None:
    write("d/a.txt")
    Path("d/b.txt").symlink_to("a.txt")
    assert names("d/a.txt", "d", "./d/a.txt", "d/*.txt") == ["d/a.txt"]


def test_standard_input_is_a_document() -> None:
    write("a.txt")
    found = gather(["a.txt", "-", "-"], "piped\r\ntext")
    assert [(d.name, d.text) for d in found.documents] == [
        ("a.txt", "some words\n"),
        ("stdin", "piped\ntext"),
    ]


@pytest.mark.parametrize("piped", [None, "", " \n"])
def test_standard_input_without_text_is_an_error(piped: str | None) -> None:
    assert "standard input" in failure("-", stdin=piped).message


def test_a_missing_file_names_the_nearest_one() -> None:
    write("books/alice.txt")
    error = failure("books/alcie.txt")
    assert error.message == "there is no file books/alcie.txt"
    assert error.hint == "did you mean books/alice.txt?"


@pytest.mark.parametrize("spec", ["", " "])
def test_an_empty_name_is_not_the_present_folder(spec: str) -> None:
    write("a.txt")
    assert failure(spec).message == "a document's name is empty"


def test_a_missing_folder_is_named() -> None:
    assert "nowhere" in failure("nowhere/a.txt").hint


def test_a_folder_without_text_is_an_error() -> None:
    write("f/data.bin", b"\0\1")
    assert failure("f").message == "f has no readable text in it"


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    assert "*.rst" in failure("*.rst").message


def test_an_unreadable_file_is_an_error() -> None:
    write("secret.txt")
    Path("secret.txt").chmod(0)
    if os.access("secret.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert "may not be read" in failure("secret.txt").message


def test_a_device_or_socket_is_refused_without_reading_it() -> None:
    assert "is a device" in failure("/dev/zero").message
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "is a device" in failure("s").message


def test_a_name_that_no_file_can_have_is_an_error() -> None:
    assert failure("What is this? " * 500).message.count("What") < 10
    assert "~nobody-here" in failure("~nobody-here/a.txt").message
    failure("a\0b")


def test_a_broken_link_is_an_error() -> None:
    Path("link.txt").symlink_to("gone.txt")
    assert "link.txt" in failure("link.txt").message


def test_a_document_knows_the_file_that_it_came_from() -> None:
    write("sub/a.txt", "hello\r\n")
    (origin,) = (d.origin for d in gather(["sub/a.txt"]).documents)
    assert origin is not None
    assert origin.path == str(Path("sub/a.txt").absolute())
    assert origin.sha256 == hashlib.sha256(b"hello\r\n").hexdigest()
    assert (origin.size, origin.mtime_ns) == (7, Path("sub/a.txt").stat().st_mtime_ns)


def test_what_cannot_be_read_again_has_no_origin() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=write, args=("pipe", "through a pipe"))
    writer.start()
    documents = gather(["pipe", "-"], "piped").documents
    writer.join()
    assert [(d.text, d.origin) for d in documents] == [("through a pipe", None), ("piped", None)]


def test_progress_is_told_in_bytes_over_all_files() -> None:
    write("f/a.txt", "words\n" * 400_000)
    write("f/b.bin", b"\0" * 1000)
    write("f/c.txt", "words\n" * 400_000)
    told: list[tuple[int, int]] = []
    gather(["f"], on_progress=lambda done, total: told.append((done, total)))
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert {total for _, total in told} == {4_801_000}
    assert done[-1] == 4_801_000
    assert len(set(done)) > 8


MEASURED = """
import resource, sys
from nazx_cli.documents.gather import gather
gather(["small.txt"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(document,) = gather(["big.txt"]).documents
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(document.text), (after - before) * 1024)
"""


def test_reading_a_big_file_takes_little_more_memory_than_its_text() -> None:
    line = "“Oh dear!” said Alice – ‘quite’, in plain words, and went on and on, never minding.\r\n"
    write("small.txt", line)
    count = 25_000_000 // len(line.encode())
    write("big.txt", line * count)
    printed = subprocess.run(
        [sys.executable, "-c", MEASURED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(nazx_cli.__file__).parents[1])},
    ).stdout
    characters, grown = map(int, printed.split())
    assert characters == count * (len(line) - 1)
    assert grown < 3 * 25_000_000
