"""The plain-text reader: prose, Markdown, source code, anything that decodes as text, in whatever
encoding its bytes turn out to be.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from nazx_cli.documents.document import Advance, Text
from nazx_cli.errors import DocumentError

_HEAD = 1 << 20  # bytes that tell whether a file is text
_CHUNK = 1 << 20  # bytes decoded at a time; pieces this big are given back to the system
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_MOST_CONTROLS = 0.01  # of those bytes; random bytes have 0.11
_MOST_DAMAGED = 0.01  # of the characters, for an encoding that had to be guessed
_JAPANESE_SHIFT = (b"\x1b$B", b"\x1b$@")  # ISO-2022-JP: all of it is ASCII bytes
_HIGH = re.compile(rb"[\x80-\xff]")
_SAMPLE = 1 << 16  # bytes of lines that tell an encoding, if a file is not too big for so few
_STRIDE, _LEAST_OF_STRIDE = 1 << 20, 1 << 10
_LONG_LINE = 1 << 14


def accepts(head: bytes, file: BinaryIO) -> bool:
    """True where a file that begins with ``head`` may be text."""
    return b"\0" not in head or bool(marked_encoding(head) or wide_encoding(head))


def read(file: BinaryIO, advance: Advance) -> Text:
    """The file's text; DocumentError where it is none.

    Decoded a chunk at a time, so that next to nothing but the text itself is held.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if encoding := marked_encoding(head):
        try:
            return Text(_decode(file, encoding, "strict", advance))
        except UnicodeDecodeError:
            name = encoding.removesuffix("-sig").upper()
            raise DocumentError(f"is broken {name}") from None
    if b"\0" in head:
        return Text(_decode_guess(file, wide_encoding(head), "is a binary file", advance))
    if len(head) - len(head.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(head):
        raise DocumentError("is a binary file")
    if head.isascii() and any(shift in head for shift in _JAPANESE_SHIFT):
        return Text(_decode_guess(file, "iso2022_jp", "is a binary file", advance))
    try:
        return Text(_decode(file, "utf-8", "strict", advance))
    except UnicodeDecodeError:
        return Text(_decode_damaged_or_other(file, advance))


def decode(data: bytes) -> str:
    """What ``read`` makes of a file that holds ``data``."""
    return read(io.BytesIO(data), lambda done: None).text


def normalize_newlines(text: str) -> str:
    """``\\r\\n`` and ``\\r`` become ``\\n``; text without them is not copied."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _decode(file: BinaryIO, encoding: str, errors: str, advance: Advance) -> str:
    """All of ``file``; a zero byte in an encoding of bytes is a DocumentError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    has_zeros = encoding.startswith(("utf-16", "utf-32"))
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)(errors), translate=True
    )
    pieces: list[str] = []
    while chunk := file.read(_CHUNK):
        if b"\0" in chunk and not has_zeros:
            raise DocumentError("is a binary file")
        pieces.append(decoder.decode(chunk))
        advance(file.tell() / size)
    pieces.append(decoder.decode(b"", final=True))
    return "".join(pieces)


def _decode_damaged_or_other(file: BinaryIO, advance: Advance) -> str:
    """UTF-8 with a few damaged bytes, else the encoding that fits best."""
    text = _decode(file, "utf-8", "replace", advance)
    damaged = text.count("\ufffd")
    pieces = (text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK))
    beyond_ascii = sum(len(piece) - len(piece.encode("ascii", "ignore")) for piece in pieces)
    if beyond_ascii - damaged > 3 * damaged:
        return text
    del text
    guess = narrow_encoding(_telling_lines(file)) or "utf-8"
    return _decode_guess(file, guess, "is in an encoding that cannot be told", advance)


def _decode_guess(file: BinaryIO, guess: str | None, fault: str, advance: Advance) -> str:
    """``file`` in an encoding that was guessed from a part; a few bytes may be out of place."""
    if guess is None:
        raise DocumentError(fault)
    text = _decode(file, guess, "replace", advance)
    if text.count("\ufffd") > _MOST_DAMAGED * len(text):
        raise DocumentError(fault)
    return text


def _telling_lines(file: BinaryIO) -> bytes:
    """Lines that hold bytes beyond ASCII, from all over the file."""
    size = file.seek(0, io.SEEK_END)
    most = max(_LEAST_OF_STRIDE, _SAMPLE * _STRIDE // size)
    found: list[bytes] = []
    for start in range(0, size, _STRIDE):
        file.seek(start)
        chunk = file.read(_STRIDE)
        if start:  # a line cut in two may begin with half a character
            chunk = chunk.partition(b"\n")[2]
        if start + _STRIDE < size:
            chunk = chunk.rpartition(b"\n")[0]
        found += _lines_beyond_ascii(chunk, most)
    return b"\n".join(found) or _whole_characters(file)


def _whole_characters(file: BinaryIO) -> bytes:
    """The beginning of a file that is one line, cut where no character is."""
    file.seek(0)
    head = file.read(_SAMPLE + 1)
    return head if len(head) <= _SAMPLE else head[: max(map(head.rfind, (b" ", b".", b",")))]


def _lines_beyond_ascii(chunk: bytes, most: int) -> Iterator[bytes]:
    """Lines of ``chunk`` with bytes beyond ASCII, until there are ``most`` bytes of them."""
    at = 0
    while most > 0 and (high := _HIGH.search(chunk, at)):
        start = chunk.rfind(b"\n", 0, high.start()) + 1
        end = chunk.find(b"\n", high.start())
        at = end if end >= 0 else len(chunk)
        if at - start <= _LONG_LINE:
            most -= at - start
            yield chunk[start:at]


_MARKS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_WIDE_SAMPLE = 1 << 16  # bytes, a multiple of four
_LEAST_COMMON = 0.02  # spaces, line ends and full stops among the characters of any prose

_OTHER_SCRIPTS = (
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
    *("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5"),
    *("cp1253", "iso8859_7", "cp1255", "cp1256", "cp874"),
)
_WESTERN = ("cp1252", "cp850", "mac_roman")
_LETTERS = (  # of languages, beyond ASCII, common/rare, under the encodings that they come in
    (_WESTERN, "éèêàçâîôùû/æœëïü áãçéíóê/àâôõúªº äöüß åäö/é æøå/éòô áéíñóú/üªº àèéìòù/îó"),
    (_WESTERN, "éëï/áèêóöü àçèéíòó/ïüú· áðéíóúýþæö"),
    (("cp1250", "iso8859_2"), "áčďéěíňóřšťúůýž ąćęłńóśźż áéíóöőúüű áäčéíľňôšťúýž/ďĺóŕ čćđšž ăâîşţ"),
    (("cp1254",), "çğıöşü/âî"),
    (("cp1257",), "ąčęėįšųūž āčēģīķļņšūž äõöü/šž"),
    (("cp1258",), "ăâđêôơưàáèéìíòóùúýãõ\u0300\u0301\u0303\u0309\u0323"),
)
_HEBREW = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"
_MARKS_OF_ALL = frozenset("“”‘’„–—…«»¿¡°€£§•·©\xa0")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_LATIN_RUN = 1.6  # accented letters stand alone among plain ones; other scripts' stand together
_LATIN_SHARE = 0.1  # of bytes beyond ASCII, at most this is Latin script with some accents
_SIGNS_SHARE = 0.3  # at most this may be signs that are no language's letters
_LEAST_AT_HOME = 0.6  # of the characters beyond ASCII, of what is taken for a Latin script
_CLEARLY = 0.01  # by how much an encoding has to fit better than a more common one
_UNUSUAL = 0.8  # what a rare letter or a capital counts for: many of them are a sign of error
_KANA_SHARE = 0.2  # of the characters beyond ASCII; Japanese prose has about half
_SURELY_HEBREW = 0.97  # Russian read so comes to 0.9


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte-order mark announces."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, for bytes that hold zeros; None for binary ones."""
    sample = head[: min(_WIDE_SAMPLE, len(head) // 4 * 4 or len(head) // 2 * 2)]
    for encoding in _WIDE:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        if text and _is_prose(text):
            return encoding
    return None


def narrow_encoding(sample: bytes) -> str | None:
    """The encoding of text in bytes beyond ASCII that is not UTF-8; None where none fits.

    ``sample`` is best made of lines that hold such bytes. The languages of Latin script are
    told by their letters; what tells the others apart is left to charset-normalizer.
    """
    counts = {byte: count for byte, count in Counter(sample).items() if byte >= 128}
    if not counts:
        return None
    high, runs = sum(counts.values()), len(_HIGH_RUN.findall(sample))
    latin = _latin_encoding(counts)
    alone = high < _LATIN_RUN * runs
    if latin and (alone or high < _LATIN_SHARE * len(sample)):
        return latin
    if (_at_home(counts, "cp1255", _HEBREW) or 0) > _SURELY_HEBREW:
        return "cp1255"
    if japanese := next((e for e in ("cp932", "euc_jp") if _has_kana(sample, e)), None):
        return japanese
    from charset_normalizer import from_bytes

    latins = [encoding for encodings, _ in _LETTERS for encoding in encodings]
    best = from_bytes(sample, cp_isolation=[*_OTHER_SCRIPTS, *latins]).best()
    if best is not None and best.encoding in _OTHER_SCRIPTS:
        return best.encoding
    signs_alone = alone and high < _SIGNS_SHARE * len(sample)
    return latin or ("cp1252" if signs_alone else None)


def _latin_encoding(counts: dict[int, int]) -> str | None:
    """The encoding in which most characters are letters of one language, Western ones first."""
    best, most = None, _LEAST_AT_HOME
    for encodings, languages in _LETTERS:
        for encoding in encodings:
            for letters in languages.split():
                share = _at_home(counts, encoding, letters)
                if share is not None and share > most + _CLEARLY:
                    best, most = encoding, share
    return best


def _at_home(counts: dict[int, int], encoding: str, letters: str) -> float | None:
    """The share of bytes that are among ``letters`` or punctuation; None where one is nothing."""
    common, _, rare = letters.partition("/")
    worth = dict.fromkeys((*common.upper(), *rare, *rare.upper()), _UNUSUAL)
    worth.update(dict.fromkeys((*common, *_MARKS_OF_ALL), 1.0))
    try:
        hits = sum(n * worth.get(bytes([b]).decode(encoding), 0.0) for b, n in counts.items())
    except UnicodeDecodeError:
        return None
    return hits / float(sum(counts.values()))


def _has_kana(sample: bytes, encoding: str) -> bool:
    """True where hiragana make up a fair part: read wrongly, hardly anything looks like them."""
    text = sample.decode(encoding, "replace")
    beyond = sum(c > "\x7f" for c in text)
    return sum("ぁ" <= c <= "ん" for c in text) > _KANA_SHARE * beyond


def _is_prose(text: str) -> bool:
    """True where every character has a meaning and the most common ones are there."""
    strange = sum(unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") for c in set(text))
    allowed = sum(c in text for c in "\t\n\r\f\x1b")
    common = sum(text.count(c) for c in " \n.,。，、")
    return strange <= allowed and "\ufffd" not in text and common > _LEAST_COMMON * len(text)
