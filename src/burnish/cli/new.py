"""`burnish new`: a folder that trains as it stands, made of the templates in `project/` and of sums that are drawn here.

A project of the model that comes with Burnish holds a copy of it, so that the folder can be moved, and runs without a network. Nothing here
imports torch.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from burnish.config.new import DEMO, NewConfig
from burnish.config.values import ConfigError
from burnish.config.yaml_file import dump
from burnish.demo import Forms, Split, load_path, make_pairs, make_rows

TEMPLATES = Path(__file__).parent / "project"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
TRAIN, EVAL = 2000, 100
"""Rows of the sample."""
ONLINE = ("grpo", "rloo")
SCORERS = ("reward", "prm")
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the model that comes with Burnish learns well with; another model has the method's own learning rate, for one epoch."""

    learning_rate: float
    max_steps: int
    curve: str
    """What was seen of held-out rows, from the start to the end."""


PACES = {
    "sft": Pace(learning_rate=2e-3, max_steps=120, curve="`loss` 5.2 at the start, 0.87 after 20 steps, 0.08 after 120"),
    "dpo": Pace(learning_rate=5e-4, max_steps=60, curve="`rewards/accuracies` 0 at the start, 0.86 after 20 steps, 0.90 after 60"),
    "kto": Pace(learning_rate=2e-4, max_steps=60, curve="`rewards/chosen` 0.84 and `rewards/rejected` -0.31 after 60 steps, from 0"),
    "orpo": Pace(
        learning_rate=2e-3, max_steps=60, curve="`rewards/accuracies` 0.81, `nll loss` 5.2 at first, 0.88 and 0.69 after 60 steps"
    ),
    "cpo": Pace(learning_rate=1e-3, max_steps=60, curve="`rewards/accuracies` 0.81, `nll loss` 5.2 at first, 0.86 and 0.87 after 60 steps"),
    "bco": Pace(learning_rate=5e-4, max_steps=60, curve="`rewards/chosen` 0.35 and `rewards/rejected` -1.51 after 60 steps, from 0"),
    "reward": Pace(learning_rate=1e-3, max_steps=60, curve="`accuracy` 0.48 at the start, 0.82 after 20 steps, 0.86 after 60"),
    "prm": Pace(learning_rate=1e-3, max_steps=100, curve="`accuracy` 0.50 at the start, 0.72 after 40 steps, 0.86 after 100"),
    "grpo": Pace(learning_rate=4e-4, max_steps=40, curve="`accuracy` 0.42 at the start, 0.64 after 20 steps, 0.79 after 40"),
    "rloo": Pace(learning_rate=4e-4, max_steps=60, curve="`accuracy` 0.42 at the start, 0.59 after 40 steps, 0.69 after 60"),
}


def new_project(args: NewConfig, learning_rate: float) -> int:
    """Writes the folder, whole or not at all, and says what to do next; `learning_rate` is the method's default. Raises ConfigError."""
    if args.project is None:
        raise ConfigError("burnish new needs the name of a folder to make, such as: burnish new my-project.")
    folder = Path(args.project).expanduser()
    check_new(folder)
    model = _model(args.model)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
        try:
            aside.chmod(0o777 & ~_umask())
            write_project(aside, args.method, model, learning_rate)
            aside.rename(folder)  # over an empty folder, too
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"project={args.project!r} cannot be made ({error.strerror}); name another folder.") from error
    print(_said(args.project, args.method, model))
    return 0


def check_new(folder: Path) -> None:
    """Refuses a name that is none, a folder that holds something, and a place that cannot be written to."""
    parent = folder.absolute().parent
    if not NAME.fullmatch(folder.name):
        raise ConfigError(f"project={str(folder)!r} must end with a name of letters, digits, '.', '_' and '-', such as my-project.")
    if folder.is_file():
        raise ConfigError(f"project={str(folder)!r} is a file; name a folder that is not there yet.")
    if folder.is_dir() and (inside := sorted(one.name for one in folder.iterdir())):
        raise ConfigError(f"project={str(folder)!r} is there already and holds {inside[0]!r}; name another folder, nothing is overwritten.")
    if not parent.is_dir():
        raise ConfigError(f"project={str(folder)!r} cannot be made, because there is no folder {parent}.")
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"project={str(folder)!r} cannot be made, because {parent} may not be written to; name another folder.")


def write_project(folder: Path, method: str, model: str, learning_rate: float) -> None:
    """Fills an empty folder. `model`: "demo", a hub id, or an absolute path."""
    jinja = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    demo, online = model == DEMO, method in ONLINE
    pace = PACES[method]
    rate = pace.learning_rate if demo else learning_rate
    named = model if not demo else "./runs/warmup" if online else "model"
    said = {
        "method": method,
        "demo": demo,
        "online": online,
        "scorer": method in SCORERS,
        "model": named,
        "which": dump({"model_name_or_path": named}),  # quoted where it has to be
        "learning_rate": _written(rate),
        "halved": _written(rate / 2),
        "max_steps": pace.max_steps,
        "curve": pace.curve,
        "train": TRAIN,
    }
    names = ["config.yaml", "README.md", ".gitignore", *(["warmup.yaml"] if demo and online else [])]
    for name in names:
        (folder / name).write_text(jinja.get_template(f"{name.lstrip('.')}.jinja").render(said), encoding="utf-8")
    sets: dict[str, Rows] = {"train": sample_rows(method, TRAIN, "train"), "eval": sample_rows(method, EVAL, "test")}
    if demo and online:
        sets["warmup"] = sample_rows("sft", TRAIN, "train")
    (folder / "data").mkdir()
    for name, rows in sets.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if online:
        shutil.copyfile(TEMPLATES / "rewards.py", folder / "rewards.py")
    if demo:
        shutil.copytree(load_path(), folder / "model")


def sample_rows(method: str, n: int, split: Split) -> Rows:
    """`n` sums and differences as the rows that the method reads; none of those of split "test" is in "train"."""
    if method == "sft":
        return [{"messages": row["messages"]} for row in make_rows(n, seed=0, split=split)]
    if method in ONLINE:
        forms: Forms = "new"
        return [{"prompt": row["messages"][:1], "answer": row["answer"]} for row in make_rows(n, seed=1, split=split, forms=forms)]
    pairs = make_pairs(n, seed=0, split=split)
    if method in ("kto", "bco"):
        return list(_labelled(pairs))
    return list(_in_steps(pairs)) if method == "prm" else pairs


def _labelled(pairs: Rows) -> Iterator[dict[str, Any]]:
    """One answer to each question, right or wrong by the toss of a coin."""
    rng = random.Random(0)
    for pair in pairs:
        label = rng.random() < 0.5
        yield {"prompt": pair["prompt"], "completion": pair["chosen" if label else "rejected"], "label": label}


def _in_steps(pairs: Rows) -> Iterator[dict[str, Any]]:
    """47+38=77+8=75 is three steps, of which the last is wrong; what follows a wrong step is wrong."""
    for i, pair in enumerate(pairs):
        right, said = (pair[name][0]["content"].split("=") for name in ("chosen", "rejected" if i % 2 else "chosen"))
        labels = [said[: k + 1] == right[: k + 1] for k in range(len(said))]
        yield {"prompt": pair["prompt"][0]["content"] + "\n", "completions": said, "labels": labels}


def _model(name: str) -> str:
    """As the configuration names it from inside the project. Raises ConfigError."""
    if name == DEMO:
        return name
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model={name!r} must be a folder that holds config.json, and this one does not.")
        return str(path.resolve())
    if path.exists() or not HUB_ID.fullmatch(name):
        raise ConfigError(f"model={name!r} is no folder and no hub id; give one such as HuggingFaceTB/SmolLM2-135M-Instruct, or demo.")
    return name


def _written(rate: float) -> str:
    """1e-6 as 1.0e-6, which every reader of YAML takes for a number."""
    return f"{rate:.1e}".replace("e-0", "e-")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _said(project: str, method: str, model: str) -> str:
    demo, online = model == DEMO, method in ONLINE
    what = "the small model that comes with Burnish" if demo else model
    warmup = ("burnish sft --config warmup.yaml", "half a minute: that model has not met a question yet")
    steps = [
        (f"cd {project}", ""),
        *([warmup] if demo and online else []),
        (f"burnish inspect {method} --config config.yaml", "what will be learnt from, token by token"),
        (f"burnish {method} --config config.yaml", "about a minute on one core" if demo else "trains"),
    ]
    width = max(len(words) for words, _ in steps[1:])
    lines = [f"  {words:{width}}  {about}".rstrip() for words, about in steps]
    return f"{project} is ready: {TRAIN:,} rows for {method}, and {what}.\n\n" + "\n".join(lines) + "\n\nREADME.md there says what is next."
