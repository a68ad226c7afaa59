"""A chat template's text for a conversation, with bounds on what it may take.

A template is a program from the Hub. Nearly all do no more than put the messages one after the
other: that they end soon can be seen from their syntax, and they run here. Any other runs in a
process of its own (``template_process``) that is held to a time and to memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE = 1 << 18
"""Characters of a template; the longest published ones have some 20,000."""

_MAX_PLAIN = 1 << 14


class OutputLimitError(Exception):
    """A template's text is longer than it may be."""


def run_template(source: str, variables: Mapping[str, Any], max_output: int) -> str:
    """The text that the template makes, in this process, in whatever time and memory it takes.

    ``OutputLimitError`` beyond ``max_output`` characters; else it can fail in any way that Python
    code can.
    """
    pieces, size = [], 0
    for piece in _compile(source).generate(variables):
        pieces.append(piece)
        size += len(piece)
        if size > max_output:
            raise OutputLimitError
    return "".join(pieces)


@lru_cache(maxsize=8)
def is_plain(source: str) -> bool:
    """Whether the template's time and memory are bounded by its length times that of the messages.

    No loop but over the messages, none within another; no calls, filters and operators but those
    whose results are no larger than what they are given; and no variables that could double.
    """
    if len(source) > _MAX_PLAIN:
        return False
    try:
        return _Plain(_environment().parse(source)).holds
    except (jinja2.TemplateError, RecursionError):
        return False


_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr),
    *(nodes.Getitem, nodes.Slice, nodes.If, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Compare, nodes.Operand, nodes.Sub, nodes.Neg),
    *(nodes.Break, nodes.Continue),
)
_FILTERS = {"trim", "length"}
_METHODS = {"strip", "lstrip", "rstrip", "startswith", "endswith", "split"}
_TESTS = {"defined", "undefined", "none", "string", "mapping", "iterable", "equalto", "eq"}
_MESSAGES = "messages"
_MAX_ASSIGNED, _MAX_JOINED = 32, 8  # variables; parts of a text that is put together


class _Plain:
    """Looks at a template's syntax tree; see ``is_plain``."""

    def __init__(self, tree: nodes.Template) -> None:
        self._assigned: dict[str, list[nodes.Node]] = {}
        assigns = list(tree.find_all(nodes.Assign))
        for assign in assigns:
            if isinstance(assign.target, nodes.Name):
                self._assigned.setdefault(assign.target.name, []).append(assign.node)
        self.holds = len(assigns) <= _MAX_ASSIGNED and self._all(tree, in_loop=False)

    def _all(self, node: nodes.Node, in_loop: bool) -> bool:
        if not self._one(node, in_loop):
            return False
        within = in_loop or isinstance(node, nodes.For)
        return all(self._all(child, within) for child in node.iter_child_nodes())

    def _one(self, node: nodes.Node, in_loop: bool) -> bool:
        if isinstance(node, nodes.For):
            return not in_loop and not node.recursive and self._is_sequence(node.iter)
        if isinstance(node, nodes.Assign):
            return self._grows_little(node)
        if isinstance(node, nodes.Filter):
            return node.name in _FILTERS and not node.args and not node.kwargs
        if isinstance(node, nodes.Test):
            return node.name in _TESTS
        if isinstance(node, nodes.Call):
            return self._is_small_call(node)
        if isinstance(node, nodes.Mod):  # of texts it is formatting
            number = isinstance(node.right, nodes.Const) and type(node.right.value) is int
            return number and isinstance(node.left, nodes.Getattr) and _is_loop(node.left.node)
        if isinstance(node, nodes.Add | nodes.Concat):
            return len(_names(node)) <= _MAX_JOINED
        return isinstance(node, _NODES)

    def _is_sequence(self, node: nodes.Node) -> bool:
        """The messages, some of them, or a variable that is never anything else."""
        values = self._assigned.get(node.name, []) if isinstance(node, nodes.Name) else []
        return all(map(_are_messages, values or [node]))

    def _grows_little(self, node: nodes.Assign) -> bool:
        """Whether a variable becomes one other at most, with something added."""
        if not isinstance(node.target, nodes.Name) or node.target.name in ("loop", _MESSAGES):
            return False
        return sum(name in self._assigned for name in _names(node.node)) <= 1

    def _is_small_call(self, node: nodes.Call) -> bool:
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            return False
        if isinstance(node.node, nodes.Name):
            return node.node.name == "raise_exception"
        constant = all(isinstance(arg, nodes.Const) for arg in node.args)
        return constant and isinstance(node.node, nodes.Getattr) and node.node.attr in _METHODS


def _names(node: nodes.Node) -> list[str]:
    own = [node] if isinstance(node, nodes.Name) else []
    return [name.name for name in (*own, *node.find_all(nodes.Name))]


def _are_messages(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = node.node
    return isinstance(node, nodes.Name) and node.name == _MESSAGES


def _is_loop(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "loop"


class _GenerationTag(Extension):
    """``{% generation %}``, which marks a template's answers for training; its body is kept."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
