"""The command line. Options are parsed and checked before torch is imported; each command's room is imported when it runs."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

from burnish.cli.devices import DevicesConfig, on_devices
from burnish.config.base import Config, config, option, options, unknown
from burnish.config.data import DataConfig
from burnish.config.flags import with_words
from burnish.config.model import ModelConfig
from burnish.config.parse import parse
from burnish.config.plan import PlanConfig
from burnish.config.processes import processes
from burnish.config.values import ConfigError
from burnish.deprecated import with_new_command


@config
class InspectConfig(Config):
    """How much is shown."""

    rows: int = option(3, "Rows to show as coloured tokens.", at_least=0)


@config
class MergeConfig(Config):
    """Which adapter, and where to."""

    adapter: str = option(help="Folder of the adapter: the output_dir, or a checkpoint, of a run with use_peft.")
    output_dir: str = option(help="Folder that the merged model is written to.")


@dataclass(frozen=True, slots=True)
class Names:
    """A method's classes, in `config` and in `methods`, which are imported for its own commands alone."""

    config: str
    trainer: str


METHODS = {
    "sft": Names("SFTConfig", "SFTTrainer"),
    "dpo": Names("DPOConfig", "DPOTrainer"),
    "kto": Names("KTOConfig", "KTOTrainer"),
    "orpo": Names("ORPOConfig", "ORPOTrainer"),
    "cpo": Names("CPOConfig", "CPOTrainer"),
    "bco": Names("BCOConfig", "BCOTrainer"),
    "reward": Names("RewardConfig", "RewardTrainer"),
    "prm": Names("PRMConfig", "PRMTrainer"),
    "grpo": Names("GRPOConfig", "GRPOTrainer"),
    "rloo": Names("RLOOConfig", "RLOOTrainer"),
}


def _command(method: str, **first: type) -> type[Any]:
    """What the commands of a method parse: `first`, then the model, the data and the method's own options."""
    own = resolve_name(f"burnish.config.{method}:{METHODS[method].config}")
    parts = {**first, "model": ModelConfig, "data": DataConfig, "args": own}
    return make_dataclass(f"{method.capitalize()}Command", parts.items(), frozen=True, kw_only=True)


def _train(method: str, args: Sequence[str]) -> int:
    command = _command(method, devices=DevicesConfig)
    read = partial(parse, args, command, prog=f"burnish {method}", description=COMMANDS[method].help)
    return on_devices([method, *args], read, lambda: resolve_name(f"burnish.methods.{method}:{METHODS[method].trainer}"))


def _inspect(method: str, args: Sequence[str]) -> int:
    name = f"inspect {method}"
    command = parse(args, _command(method, inspect=InspectConfig), prog=f"burnish {name}", description=COMMANDS[name].help)
    from burnish.cli.early import early_checks

    early_checks(command.model, command.data, command.args)
    from burnish.cli.inspect import inspect_rows

    prepare_options = resolve_name(f"burnish.methods.{method}:prepare_options")
    return inspect_rows(prepare_options, command.model, command.data, command.args, rows=command.inspect.rows)


def _inspect_prompts(method: str, args: Sequence[str]) -> int:
    name = f"inspect {method}"
    command = parse(args, _command(method, inspect=InspectConfig), prog=f"burnish {name}", description=COMMANDS[name].help)
    from burnish.cli.early import early_checks

    early_checks(command.model, command.data, command.args)
    from burnish.cli.inspect_prompts import inspect_prompts

    return inspect_prompts(command.model, command.data, command.args, rows=command.inspect.rows)


def _inspect_samples(args: Sequence[str]) -> int:
    from burnish.config.inspect import InspectSamplesConfig

    command = parse(args, InspectSamplesConfig, prog="burnish inspect samples", description=COMMANDS["inspect samples"].help)
    from burnish.cli.early import check_samples

    check_samples(command)
    from burnish.cli.inspect_samples import inspect_samples

    return inspect_samples(command)


def _report(args: Sequence[str]) -> int:
    from burnish.cli.report import report, with_runs
    from burnish.config.report import PageConfig

    return report(parse(with_runs(args), PageConfig, prog="burnish report", description=COMMANDS["report"].help))


def _plan_sft(args: Sequence[str]) -> int:
    command = parse(args, _command("sft", plan=PlanConfig), prog="burnish plan sft", description=COMMANDS["plan sft"].help)
    from burnish.cli.early import check_model

    check_model(command.model)
    from burnish.cli.plan import plan_sft

    return plan_sft(command.plan, command.model, command.args)


def _merge(args: Sequence[str]) -> int:
    command = parse(args, MergeConfig, prog="burnish merge", description=COMMANDS["merge"].help)
    from burnish.cli.early import check_folder

    check_folder("adapter", command.adapter, "adapter_config.json")
    from burnish.models.export import merge_adapter

    print(f"The merged model is in {merge_adapter(command.adapter, command.output_dir)}.")
    return 0


def _generate(args: Sequence[str]) -> int:
    from burnish.config.generate import GenerateConfig

    parts = {"model": ModelConfig, "args": GenerateConfig}
    made = make_dataclass("GenerateCommand", parts.items(), frozen=True, kw_only=True)
    command: Any = parse(args, made, prog="burnish generate", description=COMMANDS["generate"].help)
    from burnish.cli.early import check_generate

    rows = check_generate(command.model, command.args)
    from burnish.cli.generate import generate

    return generate(command.model, command.args, rows)


def _compare(args: Sequence[str]) -> int:
    from burnish.config.compare import CompareConfig

    about = f"burnish compare RUN RUN [RUN ...]\n\n{COMMANDS['compare'].help}"
    command = parse(with_words(args, CompareConfig, "runs"), CompareConfig, prog="burnish compare", description=about)
    from burnish.cli.compare import compare_runs

    return compare_runs(command)


def _new(args: Sequence[str]) -> int:
    from burnish.config.new import NewConfig

    named = ["--project", *args] if args and not args[0].startswith("-") else args
    command = parse(named, NewConfig, prog="burnish new", description=COMMANDS["new"].help)
    from burnish.cli.new import new_project

    own = resolve_name(f"burnish.config.{command.method}:{METHODS[command.method].config}")
    return new_project(command, options(own)["learning_rate"].default)


def _demo(args: Sequence[str]) -> int:
    parse(args, Config, prog="burnish demo", description=COMMANDS["demo"].help)
    from burnish.cli.demo import run

    return run()


def _experimental(args: Sequence[str]) -> int:
    from burnish.cli.experimental import run_experimental

    return run_experimental(args)


@dataclass(frozen=True, slots=True)
class Command:
    help: str
    run: Callable[[Sequence[str]], int]


COMMANDS = {
    "sft": Command(
        "Supervised fine-tuning: train a model on texts, on completions of prompts, or on conversations.", partial(_train, "sft")
    ),
    "dpo": Command("Direct preference optimisation and its family: learn from chosen and rejected answers.", partial(_train, "dpo")),
    "kto": Command("Kahneman-Tversky optimisation: learn from answers that are called desirable or not.", partial(_train, "kto")),
    "orpo": Command("Odds ratio preference optimisation: learn from pairs and imitate the chosen answers.", partial(_train, "orpo")),
    "cpo": Command("Contrastive preference optimisation, SimPO, AlphaPO: learn from pairs, without a reference.", partial(_train, "cpo")),
    "bco": Command("Binary classifier optimisation: learn to tell desirable answers from others.", partial(_train, "bco")),
    "reward": Command("Reward model: learn to score answers from pairs.", partial(_train, "reward")),
    "prm": Command("Process reward model: learn to judge each step of an answer.", partial(_train, "prm")),
    "grpo": Command("Group-relative policy optimisation and its family: learn from rewards of sampled answers.", partial(_train, "grpo")),
    "rloo": Command("REINFORCE leave-one-out: learn from rewards of sampled answers.", partial(_train, "rloo")),
    "inspect sft": Command("Show what sft would train, token by token, and train nothing.", partial(_inspect, "sft")),
    "inspect dpo": Command("Show the pairs that dpo would learn from, token by token.", partial(_inspect, "dpo")),
    "inspect kto": Command("Show the answers that kto would learn from, token by token.", partial(_inspect, "kto")),
    "inspect orpo": Command("Show the pairs that orpo would learn from, token by token.", partial(_inspect, "orpo")),
    "inspect cpo": Command("Show the pairs that cpo would learn from, token by token.", partial(_inspect, "cpo")),
    "inspect bco": Command("Show the answers that bco would learn from, token by token.", partial(_inspect, "bco")),
    "inspect reward": Command("Show the pairs that reward would learn from, token by token.", partial(_inspect, "reward")),
    "inspect prm": Command("Show the steps that prm would learn from, token by token.", partial(_inspect, "prm")),
    "inspect grpo": Command("Show the prompts that grpo would sample from, and try the rewards.", partial(_inspect_prompts, "grpo")),
    "inspect rloo": Command("Show the prompts that rloo would sample from, and try the rewards.", partial(_inspect_prompts, "rloo")),
    "inspect samples": Command("Show what a run has sampled, token by token, and what it was worth.", _inspect_samples),
    "compare": Command("Lay runs side by side: what differs between them, what each took, how far apart they ended.", _compare),
    "report": Command("Write one HTML file about runs: curves, samples, data, time, events; or serve it while they go on.", _report),
    "plan sft": Command("Say what sft would hold on each device, and what to change where that is too much.", _plan_sft),
    "generate": Command("Sample completions of a file of prompts, with their log-probs.", _generate),
    "merge": Command("Add a LoRA adapter into the weights of its base model.", _merge),
    "new": Command("Write a project that trains as it stands: configuration, rows, rewards, and what to do in which order.", _new),
    "demo": Command("Train a small model that comes with Burnish, in about four minutes.", _demo),
    "experimental": Command("Train with a method on trial; alone, list those that there are.", _experimental),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 2 for what was refused (in one sentence on stderr), 130 after Ctrl-C.

    A process that is one of several ends here.
    """
    status = _status(argv)
    if watch := sys.modules.get("burnish.distributed.watch"):  # imported where there may be other processes
        watch.leave_for_good(status)
    return status


def _status(argv: Sequence[str] | None) -> int:
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        if processes().rank == 0:
            print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output has left; without this the flush at exit would say so once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, RuntimeError) as error:
        # every exception class of this library is one sentence for the user; anything else is a fault, and keeps its traceback
        if type(error).__module__.partition(".")[0] != "burnish":
            raise
        watch = sys.modules.get("burnish.distributed.watch")
        if watch is None or watch.speaks_for_all(error):
            print(f"error: {error}", file=sys.stderr)
        return 2


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"burnish {version('burnish')}")
        return 0
    args, old = with_new_command(args)
    if old is not None:
        print(f"warning: {old}", file=sys.stderr)
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return COMMANDS[name].run(args[words:])
    two = len(args) > 1 and args[1][0] != "-" and any(name.startswith(f"{args[0]} ") for name in COMMANDS)
    sentence = unknown("burnish", " ".join(args[: 1 + two]), COMMANDS).replace("no option", "no command")
    raise ConfigError(sentence if "nearest" in sentence else sentence.replace("'.", "'; burnish --help lists those it has."))


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        f"usage: burnish COMMAND [OPTIONS]\n\n{commands}\n\nburnish COMMAND --help shows its options; burnish --version says which this is."
    )
