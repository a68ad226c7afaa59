from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import nazx_cli
from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.documents.gather import gather
from nazx_cli.documents.text import decode
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
    for _ in range(25):
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
        (bytes(random.Random(1).choices(range(128, 256), k=5000)), "encoding that cannot be told"),
        (bytes(random.Random(2).choices(range(256), k=5000)), "is a binary file"),
        (b"".join(n.to_bytes(2, "little") for n in range(0, 9000, 7)), "is a binary file"),
        (b"\0\0\0", "is a binary file"),
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


SAMPLES = {
    "ja": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも泣いていた。\n",
    "zh": "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n",
    "zh-tw": "話說天下大勢，分久必合，合久必分。周末七國分爭，併入於秦。\n",
    "ko": "옛날 옛적에 어느 마을에 착한 나무꾼이 살고 있었습니다. 나무를 하여 장에 팔았습니다.\n",
    "ru": "Все счастливые семьи похожи друг на друга. Всё смешалось в доме Облонских.\n",
    "uk": "Як умру, то поховайте мене на могилі серед степу широкого на Вкраїні милій.\n",
    "el": "Τη γλώσσα μου έδωσαν ελληνική, το σπίτι φτωχικό στις αμμουδιές του Ομήρου.\n",
    "he": "בראשית ברא אלהים את השמים ואת הארץ. והארץ היתה תהו ובהו וחשך על פני תהום.\n",
    "ar": "كان يا ما كان في قديم الزمان ملك عظيم يعيش في قصر كبير مع بناته الثلاث.\n",
    "th": "กาลครั้งหนึ่งนานมาแล้วมีพระราชาผู้ยิ่งใหญ่องค์หนึ่งอาศัยอยู่ในปราสาทหลังใหญ่\n",
    "pl": "Litwo! Ojczyzno moja! ty jesteś jak zdrowie; ile cię trzeba cenić, ten się dowie.\n",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy. Bylo nebylo, za devatero horami žil král.\n",
    "tr": "Bir varmış bir yokmuş, kalbur saman içinde, güzel bir kız yaşarmış. Işık ığdır.\n",
    "fi": "Hyvää päivää, mitä kuuluu? Älä höpötä, sanoi äiti ja lähti kävelemään järvelle.\n",
    "es": "En un lugar de la Mancha vivía un hidalgo de rocín flaco. ¿Qué? ¡El año!\n",
    "de": "# Überprüfung der Größe\nx = 1\n",
    "en": "It’s the “best” of times – it was the worst of times; the café was shut.\n",
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *(("ja", "shift_jis"), ("ja", "euc_jp"), ("ja", "iso2022_jp"), ("ja", "utf-16-le")),
        *(("zh", "gb18030"), ("zh", "utf-16-be"), ("zh-tw", "big5"), ("ko", "cp949")),
        *(("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "cp866"), ("ru", "iso8859-5")),
        *(("ru", "utf-16-le"), ("uk", "cp1251"), ("uk", "koi8-u"), ("el", "cp1253")),
        *(("he", "cp1255"), ("ar", "cp1256"), ("th", "cp874"), ("tr", "cp1254")),
        *(("pl", "cp1250"), ("pl", "iso8859-2"), ("cs", "cp1250"), ("cs", "iso8859-2")),
        *(("fi", "cp1252"), ("es", "cp1252"), ("es", "cp850"), ("es", "mac_roman")),
        *(("de", "cp1252"), ("en", "cp1252"), ("en", "utf-16-le"), ("en", "utf-32-be")),
    ],
)
def test_an_encoding_without_a_mark_is_told_by_its_text(language: str, encoding: str) -> None:
    one_line = SAMPLES[language].replace("\n", " ") * 600
    for text in (SAMPLES[language], SAMPLES[language] * 40, one_line):
        assert text_of(text.encode(encoding)) == text


def test_words_far_inside_a_long_plain_file_tell_its_encoding() -> None:
    text = "x = 1  # plain\n" * 200_000 + SAMPLES["ru"] + "y = 2\n" * 300_000
    assert text_of(text.encode("koi8-r")) == text


def test_a_damaged_byte_does_not_spoil_the_rest_of_a_file_in_another_encoding() -> None:
    text = SAMPLES["ja"] * 40
    data = text.encode("shift_jis")
    read = text_of(data + b"\x81\n" + data)
    assert read.startswith(text)
    assert "\ufffd" in read


@pytest.mark.parametrize("stray", [0x80, 0x81, 0x9D, 0xC3, 0xE9, 0xFF])
def test_a_stray_byte_does_not_spoil_a_plain_file(stray: int) -> None:
    text = "plain words\n" * 50
    read = text_of(text.encode() + bytes([stray]) + b"\n")
    assert (read[:-2], len(read)) == (text, len(text) + 2)


def test_characters_and_line_ends_are_whole_wherever_a_long_file_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = SAMPLES["ja"] + "a\nb\n\n" + SAMPLES["pl"]
    for chunk in range(1, 9):
        monkeypatch.setattr("nazx_cli.documents.text._CHUNK", chunk)
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
            assert text_of(text.replace("\n", "\r\n").encode(encoding)) == text


def test_big_endian_text_with_a_mark_is_read() -> None:
    assert text_of(b"\xfe\xff" + "žluťoučký".encode("utf-16-be")) == "žluťoučký"


def test_a_damaged_byte_does_not_spoil_the_rest_of_a_utf8_file() -> None:
    text = "“Oh dear!” said Alice – ‘quite’. " * 30
    read = text_of(text.encode() + b"\xff")
    assert read.startswith(text)
    assert read.endswith("\ufffd")


def test_no_bytes_are_no_text_but_no_binary_file_either() -> None:
    assert decode(b"") == ""


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
