"""A chat template that is followed while it renders: which text was written for which message.

A template nearly always writes a conversation in a loop over its messages. The template is compiled with marks added to its
syntax tree: at the start of each pass for a message, after such a loop, and around `{% generation %}` blocks. A mark is one
private-use character in the output, taken out again afterwards. A template cannot read what it has written, so the text
without its marks is the plain rendering; where a loop runs inside a macro or a captured block, whose text can be read, the
plain rendering is made too and compared. Rendering happens in the sandbox of `transformers`: templates are untrusted code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

_FIRST = 0x100000  # plane 16 is for private use; message i is marked by character _FIRST + i
_END, _OPEN, _CLOSE = "\U0010fff0", "\U0010fff1", "\U0010fff2"
_MARK = re.compile("([\U00100000-\U0010fff2])")
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
PROMPT_FLAG = "add_generation_prompt"


class ChatTemplateError(ValueError):
    """The template cannot render this conversation, or its assistant spans cannot be established. One sentence."""


class TemplateRefusalError(ChatTemplateError):
    """The template itself raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A rendering and where its parts come from.

    Example, ChatML with messages user "Hi", assistant "Yo"::

        text = "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nYo<|im_end|>\\n"
        blocks = {0: (0, 31), 1: (31, 67)}     end = 67
    """

    text: str
    blocks: Mapping[int, tuple[int, int]]
    """Message → the characters written in its pass of the loop; a message that no loop passed has none."""
    torn: frozenset[int]
    """Messages for which text was written in more than one pass; their entry in `blocks` is only the last."""
    marked: tuple[tuple[int, int], ...]
    """The characters inside `{% generation %}` blocks, in order."""
    end: int
    """Where the last loop over messages ends; 0 where there was none."""
    loop: int | None
    """Which loop of the template that was."""


class _Marker(NodeTransformer):
    """Adds the marks. `buffered` holds the loops inside macros and captured blocks; loops are numbered in order of visit."""

    def __init__(self) -> None:
        self.loops = 0
        self.depth = 0
        self.captured = False
        """Whether a `{% generation %}` block stands where its text can be read."""
        self.buffered: set[int] = set()
        self.numbers: dict[nodes.For, int] = {}

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:  # noqa: N802
        number = self.loops
        self.loops += 1
        self.numbers[node] = number
        if self.depth:
            self.buffered.add(number)
        self.generic_visit(node)
        names = [node.target] if isinstance(node.target, nodes.Name) else list(node.target.find_all(nodes.Name))
        node.body[:0] = [_output(_call("_enter", nodes.Name(name.name, "load"), nodes.Const(number))) for name in names]
        return [node, _output(_call("_leave", nodes.Const(number)))]

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        if not isinstance(node.call.node, nodes.ExtensionAttribute):
            return self._buffer(node)
        self.captured |= self.depth > 0
        self.generic_visit(node)
        node.body = [_output(_call("_open")), *node.body, _output(_call("_close"))]
        return node

    def _buffer(self, node: nodes.Node) -> nodes.Node:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        return node

    visit_Macro = visit_AssignBlock = visit_FilterBlock = _buffer


def _call(name: str, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Call(nodes.Name(name, "load"), list(arguments), [], None, None)


def _output(expression: nodes.Expr) -> nodes.Output:
    return nodes.Output([expression])


class _Pen:
    """Writes the marks of one rendering. Only the outermost loop over messages is marked; what it scans inside is not."""

    def __init__(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.index = {id(message): i for i, message in enumerate(messages)}
        self.active: int | None = None
        self.current: int | None = None
        self.loops: list[int] = []
        self.written = 0

    def enter(self, value: Any, loop: int) -> str:
        i = self.index.get(id(value))
        if i is None or self.active not in (None, loop):
            return ""
        self.active, self.current = loop, i
        self.written += 1
        return chr(_FIRST + i)

    def leave(self, loop: int) -> str:
        if self.active != loop:
            return ""
        self.active = self.current = None
        self.loops.append(loop)
        self.written += 1
        return _END

    def open(self) -> str:
        self.written += 1
        return _OPEN

    def close(self) -> str:
        self.written += 1
        return _CLOSE

    def functions(self) -> dict[str, Callable[..., str]]:
        return {"_enter": self.enter, "_leave": self.leave, "_open": self.open, "_close": self.close}


class FollowedTemplate:
    """A compiled chat template, its syntax tree after `change`, if given. Errors: ChatTemplateError where it does not compile."""

    def __init__(self, source: str, change: NodeTransformer | None = None) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template  # its sandbox, filters and globals

        try:
            self._plain = _compile_jinja_template(source)
            environment = self._plain.environment
            tree = environment.parse(source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(f"The chat template is not valid Jinja (line {error.lineno}: {error.message}); correct it.") from error
        self.mentions = {name.name for name in tree.find_all(nodes.Name)}
        self.has_marks = any(isinstance(block.call.node, nodes.ExtensionAttribute) for block in tree.find_all(nodes.CallBlock))
        constant = _constant_endings(tree)
        marker = _Marker()
        tree = marker.visit(change.visit(tree) if change else tree)
        self._buffered, self._captured = marker.buffered, marker.captured
        self._constant = {marker.numbers[loop] for loop in constant}
        self._template = environment.from_string(tree)

    @property
    def takes_generation_prompt(self) -> bool:
        return PROMPT_FLAG in self.mentions

    def prompt_is_constant(self, loop: int | None) -> bool:
        """Whether what follows this loop over the messages cannot depend on the messages or the tools."""
        return loop in self._constant

    def text(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Render alone: `trace(messages, variables).text`, in half the time. Errors: as `trace`."""
        try:
            return self._plain.render({**variables, "messages": list(messages), PROMPT_FLAG: False})
        except _REFUSALS:
            return self.trace(messages, variables).text

    def trace(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], *, prompt: bool = False) -> Trace:
        """Render and follow. Errors: ChatTemplateError with the template's own words where it refuses the conversation."""
        pen = _Pen(messages)
        given = {**variables, "messages": list(messages), PROMPT_FLAG: prompt}
        try:
            text = self._template.render({**given, **pen.functions()})
        except _REFUSALS as error:
            where = "the conversation" if pen.current is None else f"message {pen.current} (role {messages[pen.current].get('role')!r})"
            raise TemplateRefusalError(f"The chat template refuses {where}: {' '.join(str(error).split()).rstrip('.! ')}.") from error
        pieces = _MARK.split(text)
        if len(pieces) // 2 != pen.written or len(messages) > ord(_END) - _FIRST:
            raise ChatTemplateError("A message holds private-use characters between U+100000 and U+10FFF2, used as marks here; drop them.")
        trace = _read(pieces, pen.loops)
        if (self._captured or self._buffered.intersection(pen.loops)) and trace.text != self._plain.render(given):
            raise ChatTemplateError("The chat template reads back what it writes for messages, so it cannot be followed; use another.")
        return trace


def _constant_endings(tree: nodes.Template) -> set[nodes.For]:
    """The loops at the template's top level after which the generation prompt is written from nothing that a row can change."""
    stores = [name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"] + [ref.name for ref in tree.find_all(nodes.NSRef)]
    own_default = {
        node.target.name  # {% set x = x if x is defined else true %}
        for node in tree.body
        if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) and stores.count(node.target.name) == 1
        if _loads(node) == {node.target.name}
    }
    row = set(stores) - own_default | {macro.name for macro in tree.find_all(nodes.Macro)} | {"messages", "tools", "documents", "loop"}
    endings = set()
    for i, node in enumerate(tree.body):
        after = set().union(*map(_loads, tree.body[i + 1 :]))
        if isinstance(node, nodes.For) and PROMPT_FLAG in after and not after & row:
            endings.add(node)
    return endings


def _loads(node: nodes.Node) -> set[str]:
    return {name.name for name in node.find_all(nodes.Name) if name.ctx == "load"}


def _read(pieces: list[str], loops: list[int]) -> Trace:
    """`pieces` alternate text and mark."""
    blocks: dict[int, tuple[int, int]] = {}
    torn: set[int] = set()
    marked: list[tuple[int, int]] = []
    opened: list[int] = []
    current: int | None = None
    start = position = end = 0
    text = "".join(pieces[::2])
    for piece, mark in zip(pieces[::2], pieces[1::2], strict=False):
        position += len(piece)
        if mark == _OPEN:
            opened.append(position)
        elif mark == _CLOSE:
            marked.append((opened.pop(), position))
        else:
            if current is not None:
                _close_block(current, start, position, text, blocks, torn)
            current, start = (None, position) if mark == _END else (ord(mark) - _FIRST, position)
            end = position if mark == _END else end
    found = tuple((a, b) for a, b in marked if b > a)
    return Trace(text=text, blocks=blocks, torn=frozenset(torn), marked=found, end=end, loop=loops[-1] if loops else None)


def _close_block(i: int, start: int, end: int, text: str, blocks: dict[int, tuple[int, int]], torn: set[int]) -> None:
    known = blocks.get(i)
    if known is None or text[known[0] : known[1]].isspace() or known[0] == known[1]:
        blocks[i] = (start, end)
    elif text[start:end].strip():
        torn.add(i)
        blocks[i] = (start, end)
