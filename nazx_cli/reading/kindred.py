"""Words about the same thing: a question asks for a "trial", the text tells of an "accusation".

A short list of everyday English, by topic. It only lends weight to passages; nothing is taken
for the same word.
"""

from __future__ import annotations

from nazx_cli.reading.irregular import related_stems

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


def _kin() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for line in _TOPICS.split(";"):
        topic = frozenset().union(*(related_stems(word) for word in line.split()))
        for member in topic:
            found[member] = found.get(member, frozenset()) | topic
    return found


_KIN = _kin()


def kindred_stems(stems: frozenset[str]) -> frozenset[str]:
    """Stems of words about the same thing as a word with ``stems``, these left out."""
    return frozenset().union(*(_KIN.get(s, frozenset()) for s in stems)) - stems
