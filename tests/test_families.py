"""Today's chat templates: the ids of transformers, and what follows from a template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_helpers import ScriptedModel, tiny_checkpoint
from families import FAMILIES, MarkupModel, family_backend, family_tokenizer, template
from workspace_helpers import add, answer

from nazx_cli import load_model
from nazx_cli.engine.sampling import Sampling
from nazx_cli.errors import ModelUnavailableError
from nazx_cli.session.events import Answer
from nazx_cli.session.session import Session
from nazx_cli.session.settings import OURS, SessionSettings, Wishes
from nazx_cli.session.state import Message
from nazx_cli.session.templating.templates import render, stop_ids

SYSTEM = Message("system", "Be brief & exact.")
TALK = [
    Message("user", "  Who is {{ 'Alice' }}?\n"),
    Message("assistant", " A girl — naïve 👧.\n\n{% raw %}"),
    Message("user", "Why?", context="Passages from a.txt:\n\n[1] Alice\n\nwas <b>…"),
    Message("assistant", "Because."),
    Message("user", "And then"),
]
SAID = ["One.", "Two.", "Three."]
THOUGHT = {"deepseek-r1": ("Hm</think>",)}  # before each answer


def reference(name: str, messages: list[Message], generation: bool, **switches: bool) -> list[int]:
    """What transformers makes of the messages, in the form that the family's template takes."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    turns: list[dict[str, object]] = [{"role": m.role, "content": m.text} for m in messages]
    if not family.system and turns[0]["role"] == "system":
        system, first, *rest = turns
        turns = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
    if family.parts:
        turns = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in turns]
    special = {"bos_token": family.bos or None, "eos_token": family.eos}
    peer = PreTrainedTokenizerFast(tokenizer_object=family_backend(name), **special)
    peer.chat_template = template(name)
    ids = peer.apply_chat_template(
        turns, add_generation_prompt=generation, return_dict=False, **switches
    )
    return list(ids)


@pytest.mark.parametrize("system", [True, False], ids=["system", "no-system"])
@pytest.mark.parametrize("name", FAMILIES)
def test_ids_equal_those_of_transformers(name: str, system: bool) -> None:
    tokenizer = family_tokenizer(name)
    for count in range(1, len(TALK) + 1):
        messages = [SYSTEM] * system + TALK[:count]
        generation = count % 2 == 1
        wanted = reference(name, messages, generation)
        assert render(tokenizer, messages, generation) == wanted
        if not generation:
            continue
        asked_only = reference(name, messages, False)
        assert render(tokenizer, messages, False) == asked_only


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("name", ["qwen3", "smollm3", "granite3", "deepseek-r1"])
def test_ids_with_thinking_switched_equal_those_of_transformers(name: str, think: bool) -> None:
    wanted = reference(name, TALK, True, enable_thinking=think, thinking=think)
    assert render(family_tokenizer(name), TALK, think=think) == wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_the_system_text_is_said_once_before_the_question(name: str) -> None:
    tokenizer = family_tokenizer(name)
    text = tokenizer.decode(render(tokenizer, [SYSTEM, TALK[-1]]), skip_special=False)
    assert text.count(SYSTEM.content) == 1
    assert text.index(SYSTEM.content) < text.index(TALK[-1].content)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_template_puts_behind_an_answer_ends_it(name: str) -> None:
    tokenizer, family = family_tokenizer(name), FAMILIES[name]
    ends = {tokenizer.special_ids[text] for text in (family.eos, family.end)}
    assert stop_ids(tokenizer) == ends


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_ends_at_its_templates_token(name: str) -> None:
    answers = [*THOUGHT.get(name, ()), f"Yes.{FAMILIES[name].end}More."]
    lm = MarkupModel(answers, tokenizer=family_tokenizer(name))
    *_, answer = Session(lm).ask("Is it?")  # type: ignore[arg-type]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish) == ("Yes.", "stop")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_obeys_its_template(name: str) -> None:
    answers = [each for text in SAID for each in (*THOUGHT.get(name, ()), text)]
    lm = ScriptedModel(answers, tokenizer=family_tokenizer(name))
    session = Session(lm, settings=SessionSettings(system="Be brief."))  # type: ignore[arg-type]
    for question in ("A", "B", "C"):
        list(session.ask(question))
    assert [turn.answer for turn in session.turns] == SAID
    session.take_back()
    assert "Two." in lm.tokenizer.decode(session.conversation_ids())


# How tokens are chosen


DRAWS = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}


def drawing(tmp_path: Path, settings: dict[str, object], **wishes: object) -> Session:
    """A session with a checkpoint whose makers publish ``settings``."""
    folder = tiny_checkpoint(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    chosen = SessionSettings(max_tokens=8, sampling=Wishes(seed=5, **wishes))  # type: ignore[arg-type]
    return Session(load_model(folder), settings=chosen)


def test_what_the_makers_say_of_sampling_stands_where_the_person_says_nothing(
    tmp_path: Path,
) -> None:
    session = drawing(tmp_path, DRAWS, top_k=3)
    shown = session.parameters()
    assert shown["temperature"] == "0.6 (the model's own)"
    assert (shown["top_k"], shown["top_p"]) == ("3", "0.95 (the model's own)")
    assert shown["repeat_penalty"] == "1 (the model's own)"
    drawn = answer(session.ask("Why?"))
    session.set_parameter("temperature", "0")
    likeliest = answer(session.regen())
    assert likeliest != drawn
    assert session.set_parameter("temperature", "none") == "temperature is 0.6 (the model's own)"
    assert answer(session.regen()) == drawn


def test_questions_about_documents_get_the_likeliest_answer(tmp_path: Path) -> None:
    session = drawing(tmp_path, DRAWS)
    add(session, "The fox bought a lantern.")
    assert session.parameters()["temperature"] == "0"
    plain = drawing(tmp_path, {})
    add(plain, "The fox bought a lantern.")
    assert answer(session.ask("Who?")) == answer(plain.ask("Who?"))


def test_thinking_is_drawn_as_the_makers_say_the_answer_about_documents_not() -> None:
    published = Sampling(temperature=0.6, top_p=0.95)
    lm = MarkupModel(["<think>", "Hm</think>", "A fox."], tokenizer=family_tokenizer("qwen3"))
    lm.published_sampling = published
    session = Session(lm)  # type: ignore[arg-type]
    add(session, "The fox bought a lantern.")
    list(session.ask("Who?"))
    assert lm.samplings == [OURS, published, OURS]


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [({}, "0"), ({"temperature": 0.6}, "0"), ({"do_sample": True}, "1 (the model's own)")],
)
def test_makers_who_do_not_draw_leave_the_likeliest(
    tmp_path: Path, settings: dict[str, object], temperature: str
) -> None:
    assert drawing(tmp_path, settings).parameters()["temperature"] == temperature


@pytest.mark.parametrize("wrong", [{"temperature": "hot"}, {"top_p": 7}, {"top_k": -1}])
def test_makers_who_make_no_sense_are_told(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ModelUnavailableError, match=rf"generation_config.*{next(iter(wrong))}"):
        list(drawing(tmp_path, {"do_sample": True, **wrong}).ask("Why?"))
