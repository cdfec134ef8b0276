"""`burnish inspect grpo` and `rloo`: the prompts as tokens, and what the rewards say of a made-up answer. The model is not loaded."""

from __future__ import annotations

from collections.abc import Callable

import rich.console

from burnish.cli.sets import open_sets
from burnish.cli.train import quiet_bars
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.online import OnlineConfig
from burnish.models.load import load_tokenizer, stop_token_ids
from burnish.report.console import counted
from burnish.report.tokens import length_histogram, show_example
from burnish.rewards.dry_run import made_up
from burnish.rewards.samples import Failure, Reward
from burnish.rollout.prompts import PromptRenderer
from burnish.trainer.online import as_example, rewards_of
from burnish.trainer.prompt_sets import PromptSets


def inspect_prompts(model: ModelConfig, data: DataConfig, args: OnlineConfig, *, rows: int = 3) -> int:
    """Shows the first prompts, how long all are, and tries every reward on the first two. Raises DataError, RewardError."""
    quiet_bars()
    console = rich.console.Console()
    say: Callable[[str], None] = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
    rewards = rewards_of(None, args)
    try:
        train, held_out = open_sets(data, args.seed)
        stops = stop_token_ids(model)
        load = lambda: load_tokenizer(model, chat_template_path=args.chat_template_path, eos_token=args.eos_token)  # noqa: E731
        sets = PromptSets(train, held_out, args, load, lambda tokenizer: PromptRenderer(tokenizer, stops))
        assert sets.prompts is not None
        for prompt in sets.prompts.first(rows):
            say("")
            show_example(as_example(prompt), sets.tokenizer, console)
        say("")
        lengths = [len(prompt.token_ids) for prompt in sets.prompts.all()]
        say(length_histogram(lengths, args.max_prompt_length))
        if sets.prompts.too_long:
            are = "is" if len(sets.prompts.too_long) == 1 else "are"
            left_out = counted(len(sets.prompts.too_long), "prompt")
            say(f"{left_out} {are} longer than max_prompt_length={args.max_prompt_length} and left out.")
        ends = ", ".join(repr(sets.tokenizer.decode([one])) for one in sorted({sets.tokenizer.eos_token_id, *stops}))
        say(f"{counted(len(lengths), 'prompt')}; a completion ends with {ends}, or after {args.max_completion_length:,} tokens.")
        for prompt in sets.prompts.first(2):
            scored = rewards.submit([made_up(prompt.row)], 0).result().rewards[0]
            for func, reward in zip(rewards.pool.funcs, scored, strict=True):
                say(f"{prompt.place}: of a made-up answer, {func.name} {_told(reward)}.")
    finally:
        rewards.close()
    return 0


def _told(reward: Reward) -> str:
    if isinstance(reward, Failure):
        return f"fails: it {reward.reason}: {reward.detail.splitlines()[0]}" if reward.detail else f"fails: it {reward.reason}"
    return "has nothing to say" if reward is None else f"says {reward:g}"
