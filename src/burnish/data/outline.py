"""What a template writes around the contents of messages, found once for all conversations of the same roles.

Most templates write a message's content as it is and never look at it. Such a template is rendered with a `_Content` in place of
each content: a string that can be joined to others, stripped and written, and notes everything else that is done to it. Where
nothing else was done, the rendering is that of every conversation of these roles, whatever they say: an `Outline`, with room for
the contents. What a string does not notice (most filters, say), the template is made to say when it does it (`_Noter`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from burnish.data.spans import Rendering, Span, Turn
from burnish.data.template import FollowedTemplate, Trace

_FIRST, _STRIPPED = 0xF0000, 0xF8000  # plane 15 is for private use; the content of message i is character _FIRST + i
LONGEST = _STRIPPED - _FIRST
_ROOM = re.compile("([\U000f0000-\U000ffffd])")
_FILTERS = {"trim", "length", "count", "first", "last", "list", "default", "d"}
_TESTS = {"defined", "undefined", "none", "string", "mapping", "true", "false", "boolean", "eq", "equalto", "ne", "==", "!="}
_FUNCTIONS = {"raise_exception", "namespace", "range", "strftime_now"}
_EXPRESSIONS = (
    *(nodes.TemplateData, nodes.Const, nodes.Name, nodes.NSRef, nodes.ExtensionAttribute, nodes.List, nodes.Tuple, nodes.Dict),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Add, nodes.Sub, nodes.Neg),
)
_UNSEEN = "_unseen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The rendering of conversations of the same roles, with room for their contents.

    Example, ChatML with the roles user, assistant: `texts` are ``<|im_start|>user\\n``, room, ``<|im_end|>\\n<|im_start|>assistant\\n``,
    room, ``<|im_end|>\\n``; `contents` are (0, 1). The model's span begins behind the first 43 characters and 1 content.
    """

    texts: tuple[str, ...]
    """The template's own, with an empty string in the place of each content."""
    contents: tuple[int, ...]
    """Message whose content stands in each place."""
    stripped: tuple[bool, ...]
    """Whether the template strips it there."""
    edges: tuple[tuple[int, int], ...]
    """Where spans meet, the start and the end included: (characters of the template's own before it, contents before it)."""
    spans: tuple[Span, ...]
    end_of_turn: str | None
    departures: int

    def text(self, given: Sequence[str]) -> str:
        """The rendering of messages with these contents."""
        texts = list(self.texts)
        texts[1::2] = self._placed(given)
        return "".join(texts)

    def fill(self, given: Sequence[str]) -> Rendering:
        """`text` with its spans."""
        texts = list(self.texts)
        texts[1::2] = placed = self._placed(given)
        before = list(accumulate(map(len, placed), initial=0))
        edges = [own + before[contents] for own, contents in self.edges]
        spans = zip(edges, edges[1:], self.spans, strict=False)
        return Rendering(
            text="".join(texts),
            spans=tuple([Span(start, end, like.source, like.trained) for start, end, like in spans]),
            end_of_turn=self.end_of_turn,
            departures=self.departures,
        )

    def _placed(self, given: Sequence[str]) -> list[str]:
        if True not in self.stripped:
            return [given[i] for i in self.contents]
        return [given[i].strip() if stripped else given[i] for i, stripped in zip(self.contents, self.stripped, strict=True)]


def contents_of(messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[str]] | None:
    """(roles, contents) of messages that have nothing else, and in which every content says something."""
    roles, contents = [], []
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or type(content) is not str or not content or content.isspace():
            return None
        roles.append(role)
        contents.append(content)
    return (tuple(roles), contents) if 0 < len(roles) < LONGEST else None


def outline_of(rendering: Rendering, turns: Sequence[Turn], template: Blindfolded) -> Outline | None:
    """The outline that a rendering of `template.conversation` shows; None where it may depend on what the contents are."""
    pieces = _ROOM.split(rendering.text)
    if template.looked or not all(turn.closed_by for turn in turns):  # another end may lie in the white space of a content
        return None
    contents = [ord(room) - _FIRST for room in pieces[1::2]]
    pieces[1::2] = [""] * len(contents)
    rooms = [match.start() for match in _ROOM.finditer(rendering.text)]
    edges = [0, *(span.end for span in rendering.spans)]
    before = [sum(room < edge for room in rooms) for edge in edges]
    return Outline(
        texts=tuple(pieces),
        contents=tuple(i % LONGEST for i in contents),
        stripped=tuple(i >= LONGEST for i in contents),
        edges=tuple((edge - rooms_before, rooms_before) for edge, rooms_before in zip(edges, before, strict=True)),
        spans=rendering.spans,
        end_of_turn=rendering.end_of_turn,
        departures=rendering.departures,
    )


class Blindfolded(FollowedTemplate):
    """A template that is shown a `_Content` instead of each content. Errors: as `FollowedTemplate`."""

    def __init__(self, source: str) -> None:
        super().__init__(source, _Noter())
        self._taken = bool(_ROOM.search(source))
        self.looked = False
        """Whether it did anything with a content but strip and write it."""

    def conversation(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """A new conversation to be shown to it; nothing of that has been looked at."""
        self.looked = self._taken
        return [{"role": role, "content": chr(_FIRST + i)} for i, role in enumerate(roles)]

    def trace(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], *, prompt: bool = False) -> Trace:
        hidden = [{**message, "content": _content(message["content"], self)} for message in messages]
        return super().trace(hidden, {**variables, _UNSEEN: self._unseen}, prompt=prompt)

    def _unseen(self, value: Any = "") -> Any:
        self.looked = True
        return value


class _Noter(NodeTransformer):
    """Has a template say so when it does what a `_Content` does not notice."""

    def __init__(self) -> None:
        self._written: set[nodes.Node] = set()

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self._written.update(*map(_written, node.nodes))
        return self.generic_visit(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self.generic_visit(node) if _is_seen(node, self._written) else self._capture(node)

    def _capture(self, node: Any) -> nodes.Node:
        node.body.append(nodes.Output([_unseen()]))
        return node

    visit_FilterBlock = visit_AssignBlock = _capture  # noqa: N815

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        hidden = isinstance(node, nodes.Expr) and not _is_seen(node, self._written)
        node = super().generic_visit(node, *args, **kwargs)
        return _unseen(node) if hidden else node


def _unseen(*value: Any) -> nodes.Expr:
    return nodes.Call(nodes.Name(_UNSEEN, "load"), list(value), [], None, None)


def _look(self: Any, *_: Any, **__: Any) -> Any:
    self.template.looked = True
    raise jinja2.TemplateError("the template looks at what a message says")


def _strip(self: Any, chars: str | None = None) -> Any:
    text = str(self)
    if chars is not None or len(text) != 1:
        return _look(self)
    return _content(chr(ord(text) + LONGEST), self.template) if _FIRST <= ord(text) < _STRIPPED else self


def _add(self: Any, other: Any) -> Any:
    return _content(str(self) + str(other), self.template) if isinstance(other, str) else _look(self)


def _radd(self: Any, other: Any) -> Any:
    return _content(str(other) + str(self), self.template) if isinstance(other, str) else _look(self)


_OBJECT = {
    "__class__",
    "__new__",
    "__init__",
    "__getattribute__",
    "__getnewargs__",
    "__str__",
    "__doc__",
    "__setattr__",
    "__init_subclass__",
}
_Content: Any = type(
    "_Content",
    (str,),
    {name: _look for name in dir(str) if name not in _OBJECT}
    | {"strip": _strip, "__add__": _add, "__radd__": _radd, "__rmul__": _look, "__rmod__": _look, "__bool__": lambda _: True},
)
"""A content that may be written and not read. It is true: `contents_of` takes none that is empty."""


def _content(text: str, template: Blindfolded) -> Any:
    content = _Content(text)
    content.template = template
    return content


def _written(node: nodes.Node) -> set[nodes.Node]:
    """The concatenations whose result is written and nothing else."""
    if isinstance(node, nodes.Concat):
        return {node}.union(*map(_written, node.nodes))
    if isinstance(node, nodes.CondExpr):
        return _written(node.expr1) | (_written(node.expr2) if node.expr2 else set())
    return set()


def _is_seen(node: nodes.Node, written: set[nodes.Node]) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS
    if isinstance(node, nodes.Test):
        return node.name in _TESTS
    if isinstance(node, nodes.CallBlock):
        return isinstance(node.call.node, nodes.ExtensionAttribute)
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            return not (node.kwargs or node.dyn_args or node.dyn_kwargs) and all(isinstance(arg, nodes.Const) for arg in node.args)
        return isinstance(node.node, nodes.ExtensionAttribute) or (isinstance(node.node, nodes.Name) and node.node.name in _FUNCTIONS)
    if isinstance(node, nodes.Concat):  # gives a plain string
        return node in written
    if isinstance(node, nodes.Mod):  # formats a string
        return isinstance(node.right, nodes.Const) and isinstance(node.right.value, int)
    if isinstance(node, nodes.Compare):  # whether a content is part of another string
        others = (node.expr, *(operand.expr for operand in node.ops[:-1]))
        return not any(
            operand.op in ("in", "notin") and not isinstance(left, nodes.Const) and not isinstance(operand.expr, nodes.List | nodes.Tuple)
            for left, operand in zip(others, node.ops, strict=True)
        )
    return isinstance(node, _EXPRESSIONS)
