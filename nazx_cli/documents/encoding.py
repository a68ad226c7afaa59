"""Telling which encoding bytes are in that are not UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter

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
