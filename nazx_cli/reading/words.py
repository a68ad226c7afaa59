"""Words of a text or a question: where they end, their stems, which of them say nothing.

A word is a maximal run of letters and digits, except that each character of a script written
without spaces is a word of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana and iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"
)
SPACED_WORD = re.compile(rf"[^\W_{_UNSPACED}]+")
WORD = re.compile(rf"[{_UNSPACED}]|{SPACED_WORD.pattern}")
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")

_STOP_WORDS = """
a an the and or but nor so if then than as of at by for from in into on onto to up with
without about over under out off this that these those it its he him his she her hers they
them their theirs we us our ours you your yours i me my mine is am are was were be been being
do does did doing done have has had having can could will would shall should may might must
not no yes s t d ll re ve m don isn wasn weren didn doesn couldn wouldn shouldn hasn haven hadn
there here any some all also just too very
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_QUESTION_WORDS = """
who whom whose what which when where why how please tell me explain describe say name list
give happen happens happened many much text book story document passage according author
kind type during
"""
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())
"""Words that shape a question and say little of what it is about."""


def words(text: str) -> list[str]:
    """The words of ``text``, case-folded, in order."""
    return [w.casefold() for w in WORD.findall(text)]


def begins_sentence(text: str, at: int) -> bool:
    """Whether the word at ``at`` is a sentence's first, as far as the characters before it tell."""
    before = text[:at].rstrip(" \t\"'“‘(*_[-#")
    return not before or before[-1] in ".!?…:;\n”’]"


def is_unspaced(character: str) -> bool:
    """True for a character of a script written without spaces between words."""
    return _UNSPACED_CHARACTER.match(character) is not None


def is_word_character(character: str) -> bool:
    """True for a character that can be part of a word."""
    return WORD.match(character) is not None


def script(letter: str) -> str:
    """The alphabet that ``letter`` is of, as ``LATIN``."""
    return unicodedata.name(letter, "").partition(" ")[0]


LONGEST_SUFFIX = 8
"""A word is at most this much longer than its stem ..."""
STEM_CHANGES = 1
"""... and agrees with it in all but at most this many of the stem's last characters."""


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A light stem of a lower-case word: plural, -ed, -ing and -ly endings go.

    All of the stem but its last character begins the word (see STEM_CHANGES).
    """
    if len(word) <= 3 or not word.isascii():
        return word
    word = _without_plural(word)
    for ending in ("ingly", "edly", "ing", "ed", "ly"):
        if word.endswith(ending):
            base = word[: -len(ending)]
            if len(base) >= 3 and re.search("[aeiouy]", base):
                return _trimmed(base)
            break
    return _trimmed(word)


def _without_plural(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _trimmed(base: str) -> str:
    """One form for stop/stopp(ed), make/mak(ing), cry/cri(ed)."""
    if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "aeiouls":
        base = base[:-1]
    if len(base) > 3 and base.endswith("e"):
        base = base[:-1]
    if len(base) > 2 and base.endswith("i"):
        base = base[:-1] + "y"
    return base


_FORMS = """
arise arose arisen; awake awoke awoken; beat beaten; become became; begin began begun; bend bent;
bind bound; bite bit bitten; bleed bled; blow blew blown; break broke broken; breed bred;
bring brought; build built; burn burnt; buy bought; catch caught; choose chose chosen; cling clung;
come came; creep crept; deal dealt; dig dug; draw drew drawn; dream dreamt; drink drank drunk;
drive drove driven; eat ate eaten; fall fell fallen; feed fed; feel felt; fight fought; find found;
flee fled; fling flung; fly flew flown; forbid forbade forbidden; forget forgot forgotten;
forgive forgave forgiven; freeze froze frozen; get got gotten; give gave given; go went gone;
grind ground; grow grew grown; hang hung; hear heard; hide hid hidden; hold held; keep kept;
kneel knelt; know knew known; lay laid; lead led; leap leapt; learn learnt; leave left; lend lent;
lie lay lain; light lit; lose lost; make made; mean meant; meet met; pay paid; ride rode ridden;
ring rang rung; rise rose risen; run ran; say said; see saw seen; seek sought; sell sold; send sent;
shake shook shaken; shine shone; shoot shot; show shown; shrink shrank shrunk; sing sang sung;
sink sank sunk; sit sat; slay slew slain; sleep slept; slide slid; smell smelt; sow sown;
speak spoke spoken; speed sped; spend spent; spin spun; spring sprang sprung; stand stood;
steal stole stolen; stick stuck; sting stung; strike struck stricken; strive strove striven;
swear swore sworn; sweep swept; swell swollen; swim swam swum; swing swung; take took taken;
teach taught; tear tore torn; tell told; think thought; throw threw thrown; understand understood;
wake woke woken; wear wore worn; weave wove woven; weep wept; win won; wind wound;
withdraw withdrew withdrawn; write wrote written;
man men; woman women; child children; foot feet; tooth teeth; goose geese; mouse mice; louse lice;
ox oxen; wife wives; knife knives; life lives; wolf wolves; thief thieves; leaf leaves; half halves;
shelf shelves; self selves; calf calves; loaf loaves; die dead death; old older oldest elder eldest;
good better best; bad worse worst; big bigger biggest; strong strength; long length; high height
"""


def _families(table: str, stems_of: Callable[[str], frozenset[str]]) -> dict[str, frozenset[str]]:
    """Of each stem the stems that stand with it on some line of ``table``."""
    found: dict[str, frozenset[str]] = {}
    for line in table.split(";"):
        family = frozenset().union(*map(stems_of, line.split()))
        for member in family:
            found[member] = found.get(member, frozenset()) | family
    return found


_FAMILY = _families(_FORMS, lambda word: frozenset((stem(word),)))


def related_stems(word: str) -> frozenset[str]:
    """Stems of all forms of a case-folded ``word``, its own among them."""
    own = stem(word)
    family = _FAMILY.get(own, frozenset((own,)))
    for one, many in (("man", "men"), ("men", "man")):  # jurymen, horseman, Englishwomen
        if word.endswith(one) and len(word) > 4:
            family |= {word[: -len(one)] + many}
    return family


_TOPICS = """
trial court judge jury juror accuse accusation accused charge guilty innocent crime verdict
sentence evidence witness prison; steal rob thief robber robbery theft; kill murder slay death dead
die execute behead; wound hurt injure; punish punishment penalty; war battle fight army soldier
enemy; win victory defeat conquer; marry marriage wedding wife husband bride bridegroom; love
beloved sweetheart; child baby infant; parent father mother; brother sister sibling; king queen
prince princess throne crown palace castle; servant maid attendant; friend companion comrade; money
coin gold silver pay price cost; rich wealth wealthy treasure fortune; poor poverty beggar; job
work trade profession occupation; food eat meal dinner supper breakfast feast hungry hunger; drink
thirst thirsty wine; cook kitchen; smoke pipe tobacco; sleep dream bed asleep awake; sick ill
illness disease cure heal doctor physician; afraid fear frighten terrified terror scare; angry
anger rage fury furious cross; sad sorrow grief weep cry tears unhappy miserable; happy joy glad
delight pleased merry cheerful; surprise astonish amaze; sorry regret apologize forgive pardon;
laugh smile grin; shout scream cry call; ask inquire question beg; answer reply respond; advice
advise counsel warn warning; promise vow swear oath; lie deceive trick cheat pretend disguise;
secret hide conceal; find discover search seek; lose lost missing; give gift present reward prize;
get receive obtain; take seize grab catch; carry bring fetch; send message letter messenger; write
letter pen; read book; learn study lesson school teach teacher; play game; sing song music tune
dance; travel journey voyage trip; road path way; arrive reach come; leave depart go; return back;
escape flee run; follow chase pursue hunt; enter door gate; open unlock key; close shut lock; begin
start commence; end finish stop last; become turn change transform; make build create; break
destroy smash; cut chop sever; burn fire flame; throw fling hurl toss; fall drop tumble; climb
ascend; fly wing; swim sea; ship boat sail; sea ocean shore coast; river stream brook; forest wood
tree; mountain hill; field meadow; garden flower; house home cottage dwelling live; room chamber
hall; town village city; country land kingdom; small little tiny shrink; big large huge giant great
grow; old aged; young youth; beautiful lovely handsome pretty fair; ugly hideous; clever wise
wisdom clue; stupid foolish fool silly; strong strength power powerful; weak feeble tired weary;
brave courage bold; cold freeze frost snow ice winter; hot heat warm; rain storm weather wind;
night dark darkness evening; day morning sun light; clock time hour watch; year month week; horse
ride steed; dog hound; cat kitten; bird nest feather; fish net; wolf fox bear; witch magic spell
enchant wizard sorcerer charm; ghost spirit; clothes dress garment coat wear; shoe boot foot; hat
cap head; face look appearance; see look watch notice; hear listen sound noise; think believe idea
thought; know understand; remember forget; want wish desire; need require must; try attempt; help
aid assist save rescue; refuse deny reject; agree consent accept; allow permit let; order command;
rule law; reason cause because; problem trouble difficulty danger; name call; box chest; sword
knife weapon; stone rock; ring jewel
"""


_KIN = _families(_TOPICS, related_stems)


def kindred_stems(stems: frozenset[str]) -> frozenset[str]:
    """Stems of words about the same thing as a word with ``stems``, these left out."""
    return frozenset().union(*(_KIN.get(s, frozenset()) for s in stems)) - stems
