"""Text out of bytes: its encoding, its line ends, and what is no text; and safe to show."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from document_files import failure, write

from nazx_cli.documents.control import ControlFilter, strip_control
from nazx_cli.documents.gather import gather
from nazx_cli.documents.text import decode


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def text_of(data: bytes) -> str:
    write("doc", data)
    return gather(["doc"]).documents[0].text


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
