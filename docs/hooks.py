"""What MkDocs does with these pages beyond Markdown: text that is made from the code, and mathematics as MathML.

A line ``<!-- make: NAME WORDS -->`` becomes what ``MAKERS[NAME](*WORDS)`` says of the code as it is, so that it cannot be out of date.
"""

from __future__ import annotations

import html
import importlib
import inspect
import io
import pkgutil
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from burnish.checkpoint.continued import FREE
from burnish.cli import main as cli
from burnish.config.base import Option, options
from burnish.config.data import DatasetSource
from burnish.config.sft import SFTConfig
from burnish.config.values import describe

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- make: (.+?) -->$", re.MULTILINE)
COMMENT = re.compile(r"^<!-- .*?-->\n", re.MULTILINE | re.DOTALL)
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>", re.IGNORECASE)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def code(text: object) -> str:
    said = str(text)
    return f"`{said if said and said.isprintable() else repr(said)}`".replace("|", "\\|")


def cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("_", "\\_")


def command_classes() -> dict[str, list[type]]:
    """Command → its configuration classes, as it would parse them."""
    found: dict[str, list[type]] = {}

    def asked(args: Any, command: type, *, prog: str, description: str) -> None:
        own = dict(inspect.get_annotations(command))
        found[prog.removeprefix("burnish ")] = [command] if issubclass(command, cli.Config) else list(own.values())
        raise SystemExit

    parse, cli.parse = cli.parse, asked  # type: ignore[assignment]
    try:
        for command in cli.COMMANDS.values():
            with suppress(SystemExit), redirect_stdout(io.StringIO()):
                command.run([])
    finally:
        cli.parse = parse
    return found


def groups(classes: Iterable[type]) -> dict[type, dict[str, Option]]:
    """The class that introduces an option → its options, in the order of `--help`."""
    classes = list(classes)
    known = {name: one for cls in classes for name, one in options(cls).items()}
    owners = dict.fromkeys(base for cls in classes for base in cls.__mro__)
    own = {owner: {name: one for name, one in known.items() if one.owner is owner} for owner in owners}
    return {owner: inside for owner, inside in own.items() if inside}


def default(one: Option) -> str:
    if one.required:
        return "required"
    return code("true" if one.default is True else "false" if one.default is False else one.default)


def options_table(inside: dict[str, Option]) -> str:
    head = ("option", "accepts", "default", "")
    return table(head, ((code(name), cell(describe(o.kind, o.accepted)), default(o), cell(o.help)) for name, o in inside.items()))


def make_options() -> str:
    """Every option of every command; one that several commands share is shown once, and again where a method has another default."""
    parts, seen = [], set[type]()
    for name, classes in command_classes().items():
        new = [owner for owner in groups(classes) if owner not in seen]
        seen |= set(new)
        if new:
            parts.append(f"## `burnish {name}`\n\n{cli.COMMANDS[name].help}\n")
        for owner in new:
            doc = inspect.getdoc(owner) or ""
            parts.append(f"### {owner.__name__.removesuffix('Config')}\n\n{doc.partition(chr(10))[0]}\n\n{own_options(owner)}\n")
    return "\n".join(parts)


def make_class(name: str) -> str:
    """The options that stand in one configuration class itself."""
    found = {cls.__name__: cls for classes in command_classes().values() for one in classes for cls in one.__mro__}
    found[DatasetSource.__name__] = DatasetSource
    return own_options(found[name])


def own_options(cls: type) -> str:
    return options_table({name: options(cls)[name] for name in inspect.get_annotations(cls) if name in options(cls)})


def make_experimental() -> str:
    """Every entry: what its STATUS.toml says, its own page, and its options."""
    import burnish.experimental as incubator

    parts = []
    for name in incubator.entries():
        folder = incubator.HERE / name
        status = tomllib.loads((folder / "STATUS.toml").read_text(encoding="utf-8"))
        own = importlib.import_module(f"burnish.experimental.{name}.config").CONFIG
        facts = table(
            ("", ""),
            ((key.replace("_", " "), cell(", ".join(said) if isinstance(said, list) else str(said))) for key, said in status.items()),
        )
        about = make_include((folder / "README.md").relative_to(ROOT).as_posix(), "#")
        parts += [f"## `{name}`", facts, about, f"### Options of `{name}`", own_options(own)]
    return "\n\n".join(parts)


def make_free() -> str:
    """Options that a run may be continued with changed."""
    return ", ".join(code(name) for name in options(SFTConfig) if name in FREE) + "."


def make_code(name: str) -> str:
    """The source of a function, without its docstring, under where it stands."""
    function = pkgutil.resolve_name(name)
    lines, first = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines)).rstrip()
    if function.__doc__:
        source = re.sub(r'\n\s*"""[\s\S]*?"""', "", source, count=1)
    path = Path(inspect.getsourcefile(function) or "").relative_to(ROOT)
    return f'```python title="{path}, line {first}"\n{source}\n```'


def make_include(path: str, deeper: str = "") -> str:
    """A file of the repository, its title aside, under headings that are deeper by so many #."""
    blocks = re.split(r"(^```[\s\S]*?^```$)", (ROOT / path).read_text(encoding="utf-8").partition("\n")[2], flags=re.MULTILINE)
    return "".join(re.sub(r"^(?=#)", deeper, block, flags=re.MULTILINE) if i % 2 == 0 else block for i, block in enumerate(blocks))


def make_api(*names: str) -> str:
    """The signature and docstring of public names, through mkdocstrings; of a configuration alone its docstring."""
    import burnish

    def wish(one: type) -> str:
        return "\n    options: {members: false}" if issubclass(one, cli.Config) else ""

    found = {name: vars(burnish).get(name) or burnish.__getattr__(name) for name in names}
    return "\n\n".join(f"::: {one.__module__}.{name}{wish(one)}" for name, one in found.items())


MAKERS: dict[str, Callable[..., str]] = {
    "options": make_options,
    "class": make_class,
    "experimental": make_experimental,
    "free": make_free,
    "code": make_code,
    "include": make_include,
    "api": make_api,
}


def fill(markdown: str) -> str:
    """A page with what its markers ask for, and without comments, which are notes to the tests."""

    def made(marker: re.Match[str]) -> str:
        name, *words = marker[1].split()
        return MAKERS[name](*words)

    return COMMENT.sub("", MARKER.sub(made, markdown))


def mathml(page: str) -> str:
    """Arithmatex' ``\\(…\\)`` and ``\\[…\\]`` as MathML, which browsers draw without scripts."""
    from latex2mathml.converter import convert

    def inline(found: re.Match[str]) -> str:
        return convert(html.unescape(found[1]), display="block" if found[0].startswith("<div") else "inline")

    return re.sub(r'<(?:span|div) class="arithmatex">\\[(\[]([\s\S]*?)\\[)\]]</(?:span|div)>', inline, page)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return fill(markdown)


def on_page_content(content: str, **_: Any) -> str:
    return mathml(content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    if found := FETCHED.search(output):
        raise ValueError(f"{page.file.src_path} would fetch {found[0]} from elsewhere; bring it into docs/.")
    return output
