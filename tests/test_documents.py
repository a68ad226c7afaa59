from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.documents.gather import gather
from nazx_cli.errors import DocumentError


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(path: str, data: str | bytes = "some words\n") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data.encode() if isinstance(data, str) else data)


def names(*specs: str) -> list[str]:
    return [d.name for d in gather(specs).documents]


def text_of(data: bytes) -> str:
    write("doc", data)
    return gather(["doc"]).documents[0].text


def failure(*specs: str, stdin: str | None = None) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        gather(specs, stdin)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


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


def test_a_glob_reaches_into_folders() -> None:
    for name in ("x/1.txt", "x/y/2.txt", "x/y/3.md"):
        write(name)
    assert names("x/**/*.txt") == ["x/1.txt", "x/y/2.txt"]
    assert names("~/x/*.txt") == [str(Path("x/1.txt").resolve())]


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


def test_a_missing_folder_is_named() -> None:
    assert "nowhere" in failure("nowhere/a.txt").hint


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "is empty"),
        (b" \n\t\r\n", "is empty"),
        (b"abc\0def", "is a binary file"),
        (bytes(random.Random(1).choices(range(1, 256), k=5000)), "is a binary file"),
        ("Преступление и наказание ".encode("cp1251") * 50, "an encoding that cannot be told"),
        (b"\xff\xfea", "is broken UTF-16"),
    ],
)
def test_a_file_that_is_no_text_is_an_error(data: bytes, cause: str) -> None:
    write("f.txt", data)
    error = failure("f.txt")
    assert error.message.startswith("f.txt ")
    assert cause in error.message


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


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_encodings_are_told_apart(encoding: str) -> None:
    text = "Café à la crème, señor. " * 20
    assert text_of(text.encode(encoding)) == text


def test_big_endian_text_with_a_mark_is_read() -> None:
    assert text_of(b"\xfe\xff" + "žluťoučký".encode("utf-16-be")) == "žluťoučký"


def test_a_damaged_byte_does_not_spoil_the_rest_of_a_utf8_file() -> None:
    text = "“Oh dear!” said Alice – ‘quite’. " * 30
    read = text_of(text.encode() + b"\xff")
    assert read.startswith(text)
    assert read.endswith("\ufffd")


def test_line_ends_become_newlines() -> None:
    assert text_of(b"a\r\nb\rc\n") == "a\nb\nc\n"


def test_escape_codes_are_kept_when_reading() -> None:
    assert text_of(b"\x1b[31mred\x1b[0m and more words") == "\x1b[31mred\x1b[0m and more words"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x9b2Jx\x9d0;t\x9cy", "xy"),
        ("a\x08\x07\x00\x7fb\rc", "abc"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b(Bx\x1bcy", "xy"),
        ("never ended \x1b]0;title\nnext", "never ended 0;title\nnext"),
        ("a\u202eb\u2066c", "abc"),
        ("👩‍🚀 宇宙 é \u200d", "👩‍🚀 宇宙 é \u200d"),
        ("lone \ud800", "lone "),
    ],
)
def test_control_sequences_are_stripped_for_showing(text: str, shown: str) -> None:
    assert strip_control(text) == shown


def test_stripping_pieces_equals_stripping_the_whole() -> None:
    rng = random.Random(7)
    parts = ["\x1b", "[", "]", "P", "31", ";", "m", "\x07", "\\", "\x9b", "\x9c", "x", "\n", " ("]
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        stripper = ControlFilter()
        shown = ""
        at = 0
        while at < len(text):
            step = rng.randrange(1, 4)
            shown += stripper.push(text[at : at + step])
            at += step
        shown += stripper.flush()
        assert shown == strip_control(text), repr(text)
        assert not set(shown) & set("\x1b\x07\x9b\x9c")


def test_plain_text_is_never_held_back() -> None:
    stripper = ControlFilter()
    assert [stripper.push(c) for c in "plain [x]"] == list("plain [x]")
