"""What a question about the whole of the documents asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nazx_cli.reading.recall import Term, holding, question_terms

if TYPE_CHECKING:
    from nazx_cli.reading.library import Library

_SUMMARY = (
    r"summar(y|i[sz]e[ds]?|i[sz]ing|i[sz]ation|ies)|overview|outline|synops[ei]s|gist|recap"
    r"|abstract|tl;?dr|plot|sum(ming)?\s+((\w+\s+)?\w+\s+)?up"
)
_OVERVIEW = re.compile(
    rf"\b({_SUMMARY}"
    r"|(main|key|central|major|overall|chief)\s+(\w+\s+)?"
    r"(themes?|ideas?|points?|topics?|messages?|arguments?|events?|takeaways?|findings?)"
    r"|themes?|moral|setting|what\s+topics|what('s|’s|\s+is|\s+are|\s+was)\b.{0,60}\babout\W*$"
    r"|what\s+does\s+(this|it|the\s+\w+)(\s+\w+)?\s+(say|cover|deal\s+with|contain)\W*$"
    r"|what\s+happens(\s+in\s+(this|the)\s+\w+)?\W*$)",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(
    rf"\b({_SUMMARY})\b|^\W*(please\s+)?describe\b|^\W*tell\s+(me\s+)?(more|all|everything)?\s*about\b"
    r"|\bwhat\s+(happens|becomes)\s+(to|of)\b(?!.*\b(when|after|because|before|if|as|while|once|that)\b)"
    r"|\brelationship\b.{0,20}\bbetween\b|\bin\s+general\b"
    r"|\b(throughout|over\s+the\s+course\s+of)\s+(the|this)\s+(story|book|novel|text|play|meeting)\b"
    r"|\b(significance|importance)\s+of\b|\broles?\b.{0,40}\bin\s+the\s+(story|book|novel|text)\b"
    r"|\band\s+(what|why|how)\s+(is|are)\s+(its|it|his|he|her|she|their|they|the\s+\w+['’]s)\s+"
    r"(significan(ce|t)|importan(ce|t)|relationship|roles?|personality|characteristics|traits)\b"
    r"|\b(and|are)\s+(its|his|her|their)\s+(significance|importance|roles?|traits|characteristics)\b"
    r"|\bwhat\s+do\s+we\s+(know|learn)\s+about\b"
    r"|\b(setting|discussion|discussed)\b",
    re.IGNORECASE,
)
_WHOLE_WORDS = """
summarize summarise summary summarization summaries sum summing overview outline synopsis gist recap
abstract tl dr tldr main key central major overall chief theme themes idea ideas point points
topic topics message messages argument arguments event events takeaway takeaways finding
findings book books story stories text texts document documents file files novel article paper
report chapter chapters plot content contents whole entire full short brief briefly sentence
sentences paragraph paragraphs bullet bullets words word one two three four five six seven eight
nine ten line lines write make provide concise detailed general cover covers contain contains deal
deals work read reading author here moral setting take place
"""
_ABOUT_THE_WHOLE = frozenset(_WHOLE_WORDS.split())
_SHAPING_WORDS = """
describe tell relationship between significance significant importance important role roles
character characters characteristics traits personality know learn throughout course happens
becomes discussion discussed discuss meeting like changes change all everything more settings
"""
_ACCOUNT_WORDS = frozenset(_SHAPING_WORDS.split())
_EVERYWHERE = 0.25  # of the passages: a word in more of them picks none out

_NUMBER_WORDS = "one two three four five six seven eight nine ten"
_NUMBERS = {word: number for number, word in enumerate(_NUMBER_WORDS.split(), 1)}
_NUMBER = rf"(\d{{1,4}}|{'|'.join(_NUMBERS)}|a\s+single)"
_LENGTH = re.compile(
    rf"\b{_NUMBER}\s+(?:\w+\s+)?(words?|sentences?|lines?|paragraphs?|bullets?|points?)\b",
    re.IGNORECASE,
)
_BULLETS = re.compile(r"\bbullets?\b|\b(bulleted\s+)?list\b", re.IGNORECASE)
_SHORT = re.compile(r"\b(short(ly|er)?|brief(ly)?|quick(ly)?|concise(ly)?|tl;?dr)\b", re.IGNORECASE)
_LONG = re.compile(r"\b(long(er)?|detail(s|ed)?|thorough(ly)?)\b", re.IGNORECASE)
_PARAGRAPH_WORDS = 80


@dataclass(frozen=True)
class Length:
    """How long an account is asked to be: at most so many ``words`` or ``sentences`` where the
    question says so, else ``times`` what is usual; ``bullets``: as a list."""

    words: int | None = None
    sentences: int | None = None
    times: float = 1.0
    bullets: bool = False

    @classmethod
    def asked(cls, question: str) -> Length:
        """What ``question`` says of it."""
        bullets = _BULLETS.search(question) is not None
        if found := _LENGTH.search(question):
            text, unit = found.group(1).lower(), found.group(2).lower()
            count = int(text) if text.isdigit() else _NUMBERS.get(text, 1)
            count = max(1, count)
            if unit.startswith("word"):
                return cls(words=count, bullets=bullets)
            if unit.startswith("paragraph"):
                return cls(words=count * _PARAGRAPH_WORDS, bullets=bullets)
            return cls(sentences=count, bullets=bullets or unit.startswith(("bullet", "point")))
        times = 0.4 if _SHORT.search(question) else 1.5 if _LONG.search(question) else 1.0
        return cls(times=times, bullets=bullets)


def is_overview(library: Library, question: str, before: str = "") -> bool:
    """Whether ``question`` asks about the documents as a whole.

    It does when it asks for a summary or the like and names nothing that only part of the
    documents is about, or when neither it nor what was said ``before``, of which it speaks, names
    anything at all ("What is going on?"). What it names and they do not have is not the whole: of
    that they do not say.
    """
    if _OVERVIEW.search(question) is None:
        said = f"{before} {question}"
        named = any(term.word not in _ACCOUNT_WORDS for term in _named(library, said))
        return not named and not has_content_of(library, said)
    total = max(1, len(library.cuts) - 1)
    many = [holding(library, term) for term in _named(library, question)]
    return all(n > _EVERYWHERE * total for n in many if n)


def has_content_of(library: Library, question: str) -> bool:
    """Whether a word of content of ``question`` occurs in the documents."""
    return any(_stands(library, term) for term in _content(question))


def wants_account(library: Library, question: str) -> bool:
    """Whether an answer to ``question`` takes many sentences: it asks about the whole in so many
    words, or for a summary, a description, what becomes of somebody."""
    if _ACCOUNT.search(question):
        return True
    return _OVERVIEW.search(question) is not None and is_overview(library, question)


def focus(library: Library, question: str) -> list[Term]:
    """Of the words of such a question those that say what part of the documents it is about."""
    terms = [t for t in _named(library, question) if t.word not in _ACCOUNT_WORDS]
    return [term for term in terms if _stands(library, term)]


def _stands(library: Library, term: Term) -> bool:
    return any(library.matcher.has(stem) for stem in term.stems)


def _content(question: str) -> list[Term]:
    return [t for t in question_terms(question) if t.has_content]


def _named(library: Library, question: str) -> list[Term]:
    """Words of content that neither ask for an overview nor name a document."""
    known = (_ABOUT_THE_WHOLE, library.title_words)
    return [t for t in _content(question) if not any(t.word in each for each in known)]
