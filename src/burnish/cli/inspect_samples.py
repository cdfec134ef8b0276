"""`burnish inspect samples`: what a run has sampled, as the loss saw it. The model is not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, islice
from typing import Any

import numpy as np
import rich.console

from burnish.config.inspect import InspectSamplesConfig
from burnish.config.model import ModelConfig
from burnish.config.values import ConfigError
from burnish.models.load import load_tokenizer
from burnish.report.samples import read_samples
from burnish.report.tokens import show_example
from burnish.types import Branch, Example, Segment


def inspect_samples(args: InspectSamplesConfig) -> int:
    """Shows the first samples that match, token by token, with what each was worth. Raises ConfigError where there are none."""
    console = rich.console.Console()
    tokenizer = load_tokenizer(ModelConfig(model_name_or_path=args.model_name_or_path or args.output_dir))
    found = (line for line in read_samples(args.output_dir) if _matches(line, args))
    shown = list(islice(found, args.rows))
    if not shown:
        raise ConfigError(f"No sample in {args.output_dir} is like that; look at step and set, or leave them out.")
    for line in shown:
        show_example(_example(line), tokenizer, console)
        rewards = ", ".join(f"{name} {_told(value)}" for name, value in line["rewards"].items())
        worth = f"reward {_told(line['reward'])} ({rewards}), advantage {line['advantage']:.3g}, {line['finish_reason']}"
        console.print(
            f"step {line['step']}, {line['set']}, sample {line['sample']}: {worth}\n", markup=False, highlight=False, soft_wrap=True
        )
    return 0


def _matches(line: Mapping[str, Any], args: InspectSamplesConfig) -> bool:
    return (args.step is None or line["step"] == args.step) and (args.set is None or line["set"] == args.set)


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"failed: {value['failure']}"
    return "none" if value is None else f"{value:.3g}"


def _example(line: Mapping[str, Any]) -> Example:
    """Runs of tokens with one fate as segments."""
    segments, start = [Segment(token_ids=line["prompt_tokens"], source="prompt", trained=False)], 0
    for trained, run in groupby(line["trained"]):
        length = len(list(run))
        ids = np.asarray(line["tokens"][start : start + length], dtype=np.int32)
        segments.append(Segment(token_ids=ids, source="model" if trained else "tool", trained=bool(trained)))
        start += length
    return Example(group_id=line["group"], prompt=(), branches=(Branch(segments=tuple(segments)),))
