"""The tables of docs/migrate-from-trl.md: what becomes of everything that a TRL script may say, by really saying it.

`tools/data/trl-1.16.json` (made by `tools/record_trl.py`) has what TRL 1.16 takes. Each option is given to the configuration that has its
part here, at TRL's default and at another value, and the table says what came of it: so a row cannot promise what the source does not do.
An option, argument, method or name that leads to no sentence raises SystemExit: every one is the same, translated, or refused with what
to use instead.

`tools/tables.py` compares the tables with the page, and with --record writes them.
"""

from __future__ import annotations

import html
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import burnish
import burnish.rewards
from burnish.config import DatasetSource, ModelConfig
from burnish.config.arguments import DOORS, refuse_arguments
from burnish.config.base import Config, options, rules, settle
from burnish.config.data import DataConfig
from burnish.config.values import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/migrate-from-trl.md"
RECORD = ROOT / "tools/data/trl-1.16.json"
TABLE = re.compile(r"^<!-- made: (\w+) -->\n([\s\S]*?)^<!-- end -->$", re.MULTILINE)
METHODS = ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO", "CPO", "ORPO")
OTHERS = {"ModelConfig": ModelConfig, "ScriptArguments": DataConfig, "DatasetMixtureConfig": DataConfig, "DatasetConfig": DatasetSource}
WHY = {
    "gradient_checkpointing": "it costs about a third more time; `burnish inspect` says what memory a run needs",
    "truncation_mode": "a row that is cut has lost its end-of-sequence token; both are counted",
    "train_sampling_strategy": "KTO's reference point is taken over the whole step, in any order",
    "epsilon": "as in the paper of the loss: 0.2, but for `gspo` and `gmpo`",
    "importance_sampling_level": "tokens, or the sequence where the loss is of sequences",
    "dtype": "for training, float32 as well",
    "dataset_test_split": "nothing is evaluated that was not asked for",
}
"""Option → why its default is another."""
LEFT_OUT = {
    "output_dir": "left out, it is a folder of `runs/` named after the method",
    "resume_from_checkpoint": "None is `'auto'`: the same command started again after a crash goes on",
    "vllm_server_host": "`'0.0.0.0'`, where a server listens, is `'127.0.0.1'`, where it is asked",
    "report_to": "a list; metrics are written to `output_dir` in any case",
}
"""Option → what its default means here."""
PROBES: dict[str, Any] = {
    "log_level": "error",
    "per_device_train_batch_size": 16, "gradient_accumulation_steps": 4, "bf16": True, "fp16": True, "warmup_ratio": 0.1,
    "activation_checkpointing": True, "torch_dtype": "bfloat16", "attn_implementation": "sdpa", "max_seq_length": 512,
    "evaluation_strategy": "epoch", "vllm_importance_sampling_cap": 2.0, "shuffle_dataset": True, "streaming": True,
}  # fmt: skip
"""Option → a value to try it with."""
TOGETHER: dict[str, dict[str, Any]] = {
    "vllm_mode": {"use_vllm": True, "vllm_mode": "colocate"},
    "steps_per_generation": {"gradient_accumulation_steps": 4, "steps_per_generation": 8},
    "generation_batch_size": {"batch_size": 4, "num_generations": 8, "generation_batch_size": 64},
}
"""Option → what it is tried with, where others decide what it means."""


class Another:
    """A value that is none of those which ask for nothing."""

    def __repr__(self) -> str:
        return "…"


@dataclass(frozen=True, kw_only=True)
class Row:
    option: str
    default: str
    here: str


def recorded() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def code(text: object) -> str:
    return f"`{text}`".replace("|", "\\|")


def cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|")


def config_of(name: str) -> type[Config]:
    """Our class of TRL's name."""
    found: type[Config] = OTHERS[name] if name in OTHERS else burnish.__getattr__(name)
    return found


def written(value: Any) -> str:
    return code({True: "True", False: "False", None: "None"}[value] if value is None or isinstance(value, bool) else repr(value))


def said(cls: type, name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None] | str:
    """What becomes of one option; or the sentence that refuses it, from what is said after its name and value."""
    try:
        return settle(cls, name, given)
    except ConfigError as error:
        return cell(str(error).partition(" is refused: ")[2] or str(error))


def row(cls: type[Config], name: str, default: Any) -> Row:
    """An option of TRL's. Raises SystemExit for one that is unknown here, or whose default is refused."""
    rule, known = rules(cls).get(name), options(cls)
    if rule is None and name not in known:
        raise SystemExit(f"{cls.__name__} knows nothing of TRL's {name}; give it a line in src/burnish/config/renamed.py.")
    if default != "<required>" and isinstance(at_default := said(cls, name, {name: default}), str):
        raise SystemExit(f"{cls.__name__} refuses TRL's own default: {at_default}")
    shown = "required" if default == "<required>" else written(default)
    return Row(option=code(name), default=shown, here=becomes(cls, name, default, rule))


def becomes(cls: type[Config], name: str, default: Any, rule: Any) -> str:
    known = options(cls)
    if rule is not None and rule.instead:
        others = ", ".join(written(one) for one in rule.unset if one != default)
        return f"refused{', but for ' if others else ''}{others}: {said(cls, name, {name: Another()})}"
    if rule is not None and rule.note:
        return f"taken, and changes nothing: {cell(rule.note)}."
    if name in TOGETHER or (rule is not None and rule.new != name):
        return translated(cls, name, default)
    own = known[name]
    mine = settle(cls, name, {name: default})[0].get(name, own.default) if default != "<required>" else own.default
    if own.required or mine == own.default:
        return f"the same; {LEFT_OUT[name]}" if name in LEFT_OUT else "the same"
    if name not in WHY:
        raise SystemExit(f"{cls.__name__}.{name} has another default than TRL's, {default!r}; say why in tools/migration.py, WHY.")
    return f"the same; its default is {written(own.default)}: {WHY[name]}"


def translated(cls: type[Config], name: str, default: Any) -> str:
    given = TOGETHER.get(name) or {name: PROBES.get(name, not default if isinstance(default, bool) else default)}
    found, as_said = said(cls, name, given), ", ".join(f"{key}={value!r}" for key, value in given.items())
    if isinstance(found, str):
        return f"{code(as_said)} is refused: {found}"
    new, note = found
    if not new and not note:
        raise SystemExit(f"{cls.__name__}.{name}: {as_said} became nothing; give it a value to try in tools/migration.py, PROBES.")
    if not new:
        return f"taken, and changes nothing: {cell(str(note).partition(' changes nothing: ')[2])}"
    return f"{code(as_said)} is {code(', '.join(f'{key}={value!r}' for key, value in new.items()))}"


def make_shared() -> str:
    """The options of transformers.TrainingArguments, as each method's configuration has them."""
    trl = recorded()
    rows: dict[str, dict[Row, list[str]]] = {name: {} for name in trl["TrainingArguments"]}
    for method in METHODS:
        defaults = trl["configs"][f"{method}Config"]
        for name, same in rows.items():
            if name in defaults:
                same.setdefault(row(config_of(f"{method}Config"), name, defaults[name]), []).append(method)
    out = []
    for same in rows.values():
        for one, methods in same.items():
            whose = "" if len(same) == 1 else f" ({', '.join(methods)})"
            out.append((one.option + whose, one.default, one.here))
    return table(("option", "TRL's default", "here"), out)


def make_defaults() -> str:
    """Where a default is another one."""
    trl, rows = recorded()["configs"], dict[tuple[str, str, str, str], list[str]]()
    for name in (*(f"{method}Config" for method in METHODS), *OTHERS):
        for option, default in trl[name].items():
            one = row(config_of(name), option, default)
            if found := re.fullmatch(r"the same; its default is (`.*?`): (.*)", one.here):
                rows.setdefault((one.option, one.default, found[1], found[2]), []).append(name.removesuffix("Config"))
    head = ("option", "of", "TRL 1.16", "here", "why")
    whose = {key: "all" if len(names) == len(METHODS) else ", ".join(names) for key, names in rows.items()}
    return table(head, ((key[0], whose[key], *key[1:]) for key in rows))


def make_own(name: str) -> str:
    """Options that TRL's class has beside those of transformers.TrainingArguments."""
    trl = recorded()
    shared = set(trl["TrainingArguments"])
    rows = [row(config_of(name), option, default) for option, default in trl["configs"][name].items() if option not in shared]
    return table(("option", "TRL's default", "here"), ((one.option, one.default, one.here) for one in rows))


def make_older() -> str:
    """Spellings that TRL 1.16 has no more."""
    trl = recorded()
    rows: dict[tuple[str, str], list[str]] = {}
    everything = {option for defaults in trl["configs"].values() for option in defaults}
    for name in (*(f"{method}Config" for method in METHODS), "BCOConfig", "PRMConfig", "ModelConfig"):
        cls = config_of(name)
        for old, rule in rules(cls).items():
            if old not in trl["configs"].get(name, everything) and old not in options(cls):
                default = rule.unset[0] if rule.unset else None
                rows.setdefault((code(old), becomes(cls, old, default, rule)), []).append(name.removesuffix("Config"))
    everywhere = len(METHODS) + 2
    return table(
        ("option", "of", "here"),
        ((option, "all" if len(whose) == everywhere else ", ".join(whose), here) for (option, here), whose in rows.items()),
    )


def make_values() -> str:
    """The values of options that have a few, as each is taken."""
    rows = []
    for name, choices in recorded()["values"].items():
        cls = config_of("SFTConfig" if name == "TrainingArguments" else name)
        for option, values in choices.items():
            rule = rules(cls).get(option)
            if rule is None or not (rule.instead or rule.note):
                rows.append((code(option), name.removesuffix("Config"), *of_values(cls, option, values)))
    return table(("option", "of", "the same", "otherwise"), rows)


def of_values(cls: type[Config], option: str, values: Iterable[str]) -> tuple[str, str]:
    same, others = [], dict[str, list[str]]()
    for value in values:
        found = said(cls, option, {**TOGETHER.get(option, {}), option: value})
        if isinstance(found, str):
            others.setdefault(f"refused: {found}", []).append(code(value))
        elif found[0].get(option, value) in (value, [value]):
            same.append(code(value))
        else:
            others.setdefault(f"{written(found[0][option])}", []).append(code(value))
    return ", ".join(same), "; ".join(f"{', '.join(which)}: {what}" for what, which in others.items())


def make_arguments() -> str:
    """Arguments of TRL's trainers."""
    whose: dict[str, list[str]] = {}
    trl = recorded()["arguments"]
    for trainer, names in trl.items():
        for name in names:
            whose.setdefault(name, []).append(trainer.removesuffix("Trainer"))
    rows = []
    for name, methods in whose.items():
        ours = [method for method in methods if name in parameters(f"{method}Trainer")]
        if ours and ours != methods:
            raise SystemExit(f"{name} is an argument of {', '.join(ours)}, and of others of TRL's not; say what it is there.")
        rows.append((code(name), "all" if len(methods) == len(trl) else ", ".join(methods), "the same" if ours else refused(name)))
    return table(("argument", "of", "here"), rows)


def parameters(trainer: str) -> set[str]:
    made: type = burnish.__getattr__(trainer)
    return {name for cls in made.__mro__ for name in inspect.signature(cls.__init__).parameters if cls is not object}


def refused(argument: str) -> str:
    try:
        refuse_arguments({argument: Another()})
    except ConfigError as error:
        sentence = str(error).partition(f"{argument!r}: ")[2]
        if sentence.startswith("see help"):
            raise SystemExit(f"Nothing is said of the argument {argument}; give it a line in src/burnish/config/arguments.py.") from None
        return f"refused: {cell(sentence)}"
    raise SystemExit(f"The argument {argument} is neither taken nor refused.")


def make_methods() -> str:
    """Methods of TRL's trainers."""
    trainer = burnish.__getattr__("SFTTrainer")
    same, rows = [], dict[str, list[str]]()
    for name in recorded()["methods"]:
        try:
            found = getattr(object.__new__(trainer), name)
            assert callable(found)
            same.append(code(name))
        except AttributeError as error:
            instead = str(error).partition(f"{name!r}: ")[2]
            if not instead:
                raise SystemExit(f"Nothing is said of the method {name}; give it a line in src/burnish/config/arguments.py.") from None
            rows.setdefault(cell(instead), []).append(code(name))
    return table(("method", "here"), [(", ".join(same), "the same"), *((", ".join(names), text) for text, names in rows.items())])


def make_names() -> str:
    """What TRL's modules export."""
    rows: dict[str, list[str]] = {}
    for door, names in recorded()["doors"].items():
        ours = burnish if door == "trl" else burnish.rewards
        for name in names:
            if name in ours.__all__:
                here = f"the same, from `{ours.__name__}`"
            elif name in DOORS:
                here = cell(DOORS[name])
            else:
                raise SystemExit(f"Nothing is said of {door}.{name}; give it a line in src/burnish/config/arguments.py, DOORS.")
            rows.setdefault(here, []).append(code(name))
    return table(("name", "here"), ((", ".join(names), here) for here, names in rows.items()))


MAKERS: dict[str, Callable[[], str]] = {
    "defaults": make_defaults,
    "shared": make_shared,
    **{name: (lambda name=name: make_own(name)) for name in (*(f"{method}Config" for method in METHODS), *OTHERS)},
    "values": make_values,
    "older": make_older,
    "arguments": make_arguments,
    "methods": make_methods,
    "names": make_names,
}


def made(text: str) -> str:
    """The page with its tables as the source has them. Raises SystemExit where one is missing."""
    there = [name for name, _ in TABLE.findall(text)]
    if missing := [name for name in MAKERS if name not in there]:
        raise SystemExit(f"{PAGE}: has no table of {', '.join(missing)}; put back <!-- made: {missing[0]} --> and <!-- end -->.")
    return TABLE.sub(lambda found: f"<!-- made: {found[1]} -->\n{MAKERS[found[1]]()}<!-- end -->", text)
