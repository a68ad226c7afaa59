"""Which part's answer stands, how sure it is said to be, and fitting that."""

from __future__ import annotations

import math
import random

import pytest
from cli_helpers import ScriptedModel

from nazx_cli.evaluation.data.stories import Question, Section, Story
from nazx_cli.reading.passages import Passage
from nazx_cli.session.calibration import FEATURES, Calibration, doubt, features
from nazx_cli.session.citation import NOT_SAID
from nazx_cli.session.parts import Asking, PartAnswer, choose
from nazx_cli.session.prompt import Prompt, user_message
from nazx_cli.training.tuning.calibrating import Tried, fit, try_out

PROMPT = Prompt("What does the otter eat?", user_message("What does the otter eat?"))


def answer(
    text: str,
    opens: float = -0.1,
    logprobs: tuple[float, ...] = (-0.2, -0.4),
    cited: str = "",
    rank: int = 0,
) -> PartAnswer:
    passage = Passage("a.txt", 1, 1, 0, 1, cited) if cited else None
    return PartAnswer(PROMPT, text, passage, opens, logprobs, "stop", rank)


def weighing(**weights: float) -> Calibration:
    return Calibration(
        {name: weights.get(name, 0.0) for name in FEATURES}, refuse=0.1, refuse_one=0.2
    )


def test_the_features_are_what_they_say() -> None:
    answers = [
        answer("Trout.", -0.5, (-0.2, -0.6), "The otter eats trout.", rank=2),
        answer("Fresh trout!", -0.1, (-9.0,), "Nobody came."),
        answer("Eat otters.", -20.0),
    ]
    first, second, third = features(answers, PROMPT.question)
    assert all(set(row) == set(FEATURES) for row in (first, second, third))
    assert [row["stands"] for row in (first, second, third)] == [0, 1, 0]
    assert first["opens"] == -0.5 and first["opens_beside"] == pytest.approx(-0.4)
    assert first["mean"] == pytest.approx(-0.4) and first["least"] == -0.6
    assert second["mean"] == second["least"] == third["opens"] == -6.0  # no less than that
    assert [row["rank"] for row in (first, second, third)] == [2, 0, 0]
    assert first["agreed"] == pytest.approx(2 / 3 * math.exp(-0.1))  # one of two words, and of one
    assert second["agreed"] == pytest.approx(2 / 3 * math.exp(-0.5))
    assert (first["asked"], second["asked"], third["asked"]) == (1.0, 0.0, 0.0)
    assert (first["echo"], third["echo"]) == (0.0, 1.0)


def test_the_part_that_is_surest_to_answer_does_and_the_first_of_equals() -> None:
    equal = [answer("a"), answer("b"), answer("c")]
    assert choose(equal, weighing()).text == "a"
    surer = [*equal[:2], answer("c", -0.01, (-9.0,))]
    assert choose(surer, weighing(mean=1.0)).text == "c"  # whatever its words are worth
    assert choose([answer("", -0.01), *equal], weighing()).text == "a"


def test_the_confidence_is_that_of_the_logistic_model() -> None:
    found = choose([answer("a", -0.5)], weighing(constant=1.0, opens=2.0))
    assert not found.says_not and found.confidence == pytest.approx(0.5)


def test_how_unsure_an_answer_is_is_told_in_words() -> None:
    told = {0.0: "a guess", 0.149: "a guess", 0.15: "unsure", 0.499: "unsure", 0.5: "", 1.0: ""}
    assert {sure: doubt(sure) for sure in told} == told and doubt(None) == ""


def test_beside_an_unsure_answer_stands_the_next_that_says_something_else() -> None:
    said = ["Trout.", "Fresh trout!", "", "Frogs.", "Pike."]
    answers = [
        answer(text, opens)
        for text, opens in zip(said, (-0.1, -0.2, -0.3, -0.9, -0.8), strict=True)
    ]
    found = choose(answers, weighing(opens=1.0))
    assert found.text == "Trout." and found.confidence < 0.5 and found.second is not None
    other, sure = found.second
    assert other.text == "Pike." and sure == pytest.approx(1 / (1 + math.exp(0.8)))
    assert choose(answers, weighing(constant=1.0, opens=1.0)).second is None  # sure enough
    assert choose(answers[:2], weighing(opens=1.0)).second is None  # nothing else was said
    yes_no = [answer("Yes."), answer("No.", -0.2)]  # of stop words alone
    assert (choose(yes_no, weighing(opens=1.0)).second or (None,))[0] is yes_no[1]
    refused = choose([answer("a", -9.0), answer("b", -9.0)], weighing(opens=1.0))
    assert refused.says_not and refused.second is None


def test_an_empty_answer_stands_behind_every_other_and_alone_says_not() -> None:
    assert choose([answer("", -0.01), answer("b", -2.0)], weighing(opens=1.0)).text == "b"
    assert choose([answer("", -0.01)], weighing()).says_not


def test_no_part_likely_to_answer_says_not() -> None:
    found = choose([answer("a", math.log(0.05)), answer("b", math.log(0.09))], weighing(opens=1.0))
    assert (found.text, found.says_not) == (NOT_SAID, True)
    assert found.confidence == pytest.approx(0.91)
    assert choose([answer("a", math.log(0.15))], weighing()).says_not  # its bar is another
    assert not choose([answer("a", math.log(0.15)), answer("b", -5.0)], weighing()).says_not


@pytest.mark.parametrize(
    "notes",
    [{}, {"choice": None}, {"choice": {"weights": 3}}, {"choice": {"weights": {"mean": "x"}}}],
)
def test_notes_that_make_no_sense_leave_the_default(notes: dict[str, object]) -> None:
    assert Calibration.of(notes) == Calibration()


def test_notes_are_what_was_kept() -> None:
    kept = weighing(mean=0.5, agreed=1.5)
    assert Calibration.of({"choice": kept.to_json()}) == kept


def test_fitting_finds_what_tells_right_from_wrong() -> None:
    rng = random.Random(5)
    tried = []
    for _ in range(200):
        sure = [rng.uniform(-4.0, -0.1) for _ in range(4)]
        answers = tuple(answer(f"w{at}", -0.2, (each,)) for at, each in enumerate(sure))
        chance = [1 / (1 + math.exp(-2 - 2 * each)) for each in sure]
        scores = tuple(float(rng.random() < each) for each in chance)
        tried.append(Tried(PROMPT.question, answers, scores))
    calibration = fit(tried)
    told = calibration.confidences(tried[0].answers, PROMPT.question)
    wanted = [1 / (1 + math.exp(-2 - 2 * a.logprobs[0])) for a in tried[0].answers]
    assert told == pytest.approx(wanted, abs=0.1)
    assert calibration.refuse == pytest.approx(
        math.exp(-0.2), abs=1e-4
    )  # all are as sure to answer


def test_few_questions_that_have_an_answer_are_turned_away() -> None:
    chances = [at / 100 for at in range(1, 101)]
    one = [Tried("Who?", (answer("a", math.log(each)),), (1.0,)) for each in chances]
    low = answer("b", -9.0)
    two = [Tried("Who?", (answer("a", math.log(0.5 + each / 2)), low), (1, 0)) for each in chances]
    calibration = fit([*one, *two])
    for tried in (one, two):
        assert sum(calibration.says_not(each.answers) for each in tried) == 3
    assert calibration.refuse > 0.5 > calibration.refuse_one


def test_nothing_to_fit_on_leaves_the_default() -> None:
    assert fit([]) == Calibration()


def test_trying_out_puts_questions_to_a_book_and_to_their_own_story_and_scores_answers() -> None:
    stories = [
        Story(
            title=animal,
            sections=(Section("1", f"The {animal} lives in the {place}. " * 30),),
            questions=(Question(f"Where does the {animal} live?", (f"in the {place}",)),),
        )
        for animal, place in [("heron", "marsh"), ("otter", "river")]
    ]
    lm = ScriptedModel(["[1] In the marsh.|-0.1"] * 40, can_cite=True)
    told: list[tuple[int, int]] = []
    tried = try_out(lm, stories, 10, Asking(), lambda done, of: told.append((done, of)))  # type: ignore[arg-type]
    assert told == [(1, 2), (2, 2)] and len(tried) == 2
    assert {each.question for each in tried} == {q.text for s in stories for q in s.questions}
    marsh = next(each for each in tried if "heron" in each.question)
    assert set(marsh.scores) == {1.0}
