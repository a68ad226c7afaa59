"""English words whose forms no ending tells: a question says "steal", the book "stole"."""

from __future__ import annotations

from nazx_cli.reading.words import stem

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


def _families() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in _FORMS.split(";"):
        family = frozenset(stem(word) for word in line.split())
        for member in family:
            found[member] = found.get(member, frozenset()) | family
    return found


_FAMILY = _families()


def related_stems(word: str) -> frozenset[str]:
    """Stems of all forms of a case-folded ``word``, its own among them."""
    own = stem(word)
    family = _FAMILY.get(own, frozenset((own,)))
    for one, many in (("man", "men"), ("men", "man")):  # jurymen, horseman, Englishwomen
        if word.endswith(one) and len(word) > 4:
            family |= {word[: -len(one)] + many}
    return family
