"""Chat templates: put together from statements that take time, memory or output."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from fuzz.checkpoints import as_json, model_case, tiny_files
from fuzz.law import Case
from fuzz.mutate import mutated

_VALUES = (
    *("messages", "messages[0].content", "m.content", "'a'", "1", "10**9", "-1", "none", "loop"),
    *("bos_token", "[1, 2]", "{'a': 1}", "range(99999)", "n.x", "x", "2**64", "1.5", "f", "self"),
)
_EXPRESSIONS = (
    *("{a} * {b}", "{a} + {b}", "{a} ~ {b}", "{a} ** {b}", "{a} % {b}", "{a} // {b}", "not {a}"),
    *("{a} | center({b})", "{a} | tojson(indent={b})", "{a} | format({b})", "{a} | join({b})"),
    *("{a} | list", "{a} | length", "{a} | sort", "{a} | replace({b}, {a})", "{a} | indent({b})"),
    *("{a} | wordwrap({b})", "{a} | batch({b}, {a}) | list", "{a} | slice({b}) | list", "f({a})"),
    *("{a} | trim", "{a} | upper", "{a} | urlize", "{a} | sum", "{a} | map('string') | list"),
    *("{a}[{b}]", "{a}[:{b}]", "{a}.format({b})", "{a}.ljust({b})", "{a}.zfill({b})", "[{a}, {b}]"),
    *("{a} in {b}", "{a} == {b}", "{a} if {b} else {a}", "lipsum(n={a})", "cycler({a})", "({a})"),
    *("'%99999999d' | format({a})", "'{{:>99999999}}'.format({a})", "{a}.__class__", "{a}.mro()"),
    *("raise_exception({a})", "strftime_now({a})", "{a} | pprint", "{a} is divisibleby {b}"),
)
_STATEMENTS = (
    *(
        "{{{{ {e} }}}}",
        "{{% set x = {e} %}}",
        "{{% set n.x = {e} %}}",
        "text",
        "{{% if {e} %}}{b}{{% endif %}}",
    ),
    *("{{% for m in {e} %}}{b}{{% endfor %}}", "{{% for m in messages %}}{b}{{% endfor %}}"),
    *("{{% macro f(x) %}}{b}{{% endmacro %}}", "{{% set x %}}{b}{{% endset %}}", "{{% break %}}"),
    *("{{% for m in {e} recursive %}}{{{{ loop({e}) }}}}{{% endfor %}}", "{{% include {e} %}}"),
    *(
        "{{% filter upper %}}{b}{{% endfilter %}}",
        "{{% call f(1) %}}{b}{{% endcall %}}",
        "{{% raw %}}",
    ),
    *(
        "{{% generation %}}{b}{{% endgeneration %}}",
        "{{% set n = namespace(x={e}) %}}",
        "{{# {e} #}}",
    ),
)
_TOKENS = (
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"for",
    b"if",
    b"end",
    b"|",
    b"(",
    b")",
    b"[",
    b"~",
    b"*",
    b"'",
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Without end."""
    settings = json.loads(tiny_files()["tokenizer_config.json"])
    while True:
        template = _block(rng, 0)
        if rng.random() < 0.2:
            template = mutated(rng, template.encode(), _TOKENS).decode("utf-8", "replace")
        argv = ("ask", "--model", "model", "--max-tokens", "2", "--system", "Be brief.", "Why?")
        changed = as_json({**settings, "chat_template": template})
        yield model_case(rng, "template", {"tokenizer_config.json": changed}, *argv)


def _block(rng: random.Random, depth: int) -> str:
    return "".join(_statement(rng, depth) for _ in range(rng.randint(1, 4 - depth)))


def _statement(rng: random.Random, depth: int) -> str:
    form = rng.choice(_STATEMENTS)
    inner = _block(rng, depth + 1) if depth < 3 and "{b}" in form else "text"
    return form.format(e=_expression(rng, 0), b=inner)


def _expression(rng: random.Random, depth: int) -> str:
    if depth > 2 or rng.random() < 0.35:
        return rng.choice(_VALUES)
    if rng.random() < 0.02:
        return rng.choice(("(", "[", "not ", "-")) * rng.choice((50, 500, 5000)) + "1"
    a, b = _expression(rng, depth + 1), _expression(rng, depth + 1)
    return rng.choice(_EXPRESSIONS).format(a=a, b=b)
