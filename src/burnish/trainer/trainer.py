"""The trainer that all methods share.

A method's trainer adds how its rows become examples (`prepare_options`), its reference where it has one, and its loss (`method`).
What can be refused is refused before the model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from burnish.checkpoint.continued import identity_of
from burnish.checkpoint.directory import RunDirectory
from burnish.checkpoint.files import Found
from burnish.checkpoint.identity import environment, model_identity
from burnish.checkpoint.state import TrainState
from burnish.checkpoint.trainer_state import TrainerState
from burnish.checkpoint.weights import gather_weights
from burnish.checkpoint.weights import load_model as load_weights
from burnish.config.arguments import refuse_arguments
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.parse import agree, dump_yaml, to_dict
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError
from burnish.data.batches import Batches
from burnish.data.dataset import Dataset, JoinedExamples, formats_for, named_sets
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.distributed.launch import barrier, gather, launch, seed_everything
from burnish.loop import evaluate, train
from burnish.models.export import save_model
from burnish.models.load import adapt_tokenizer, load_tokenizer, stop_token_ids
from burnish.models.memory import Placement, estimate_memory, microbatch_tokens
from burnish.models.optimizer import check_own, from_config, make_schedule
from burnish.models.policy import TreeModel
from burnish.models.reference import WantedReference
from burnish.models.start import Started, start_policy
from burnish.report.console import Console, counted
from burnish.report.evaluation import EvalTokens, columns, named_numbers
from burnish.report.events import Events
from burnish.report.reporter import Reporter
from burnish.report.tokens import show_example
from burnish.report.trackers import Trackers, check_trackers
from burnish.run import Method, Run
from burnish.trainer.familiar import Familiar
from burnish.trainer.sets import Opened, Reading, Sets
from burnish.types import TokenOutputs, TokenTree

C = TypeVar("C", bound=TrainConfig)


class TrainOutput(NamedTuple):
    """What `train()` returns, with transformers' names."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer(Familiar, Generic[C]):
    """Assembles a run and holds it.

    `model` is a folder, a hub id or a transformers model; `train_dataset` a file, hub id, `datasets` object or list of
    dicts; `eval_dataset` likewise, or a dict of several. `processing_class` is the tokenizer (the model's own if None).
    `peft_config` adds an adapter; `optimizers` is (optimizer, schedule), each None for the configured one;
    `compute_metrics` takes an `EvalTokens` and returns a dict of numbers.

    Raises ConfigError, DataError, ModelError: bad options and rows before the model is loaded.
    """

    config_class: ClassVar[type[TrainConfig]]
    policy_evaluates: ClassVar[bool] = True
    """Whether evaluation is the loss over a set; else it is `eval_metrics` alone."""

    def __init__(
        self,
        model: Any,
        args: C | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        callbacks: Sequence[Any] | None = None,
        peft_config: Any = None,
        formatting_func: Callable[..., Any] | None = None,
        optimizers: tuple[Any, Any] | None = None,
        compute_metrics: Callable[[EvalTokens], Mapping[str, float]] | None = None,
        model_config: ModelConfig | None = None,
        data_config: DataConfig | None = None,
        **elsewhere: Any,
    ) -> None:
        refuse_arguments(elsewhere)
        self.args: C = args if args is not None else self.config_class()  # type: ignore[assignment]
        if not isinstance(self.args, self.config_class):
            raise ConfigError(f"args is a {type(args).__name__}; {type(self).__name__} takes a {self.config_class.__name__}.")
        check_trackers(self.args.report_to)
        asked = self.args.changed("eval_strategy", "eval_on_start")
        if asked and not named_sets(eval_dataset):
            raise ConfigError(f"{asked[0]} needs data to evaluate on; give eval_dataset.")
        folder = Path(self.args.output_dir)
        self.here = launch(self.args.ddp_timeout, folder / "stacks")
        self.console = Console(main=self.here.main, live=False if self.args.disable_tqdm else None, quiet=self.args.quiet)
        self.formatting_func, self.compute_metrics = formatting_func, compute_metrics
        self.model_config, self.args = self._configs(model, model_config, peft_config)
        self.data_config = data_config
        self.directory = RunDirectory(folder, self.here)
        self.events = Events(folder, self.here, lambda: 0, self.console.warn)
        self.console.warn(*self.args.notes)

        self.sets: Any = self.read_sets(train_dataset, eval_dataset, lambda: self._tokenizer(processing_class))
        self.processing_class = self.sets.tokenizer

        seed_everything(self.args.seed)
        if compute_metrics is not None and self.args.model_kind != "causal":
            raise ConfigError("compute_metrics sees log-probs, and this model gives scores; leave it out: evaluation has their metrics.")
        wanted: dict[str, Any] = {"kind": self.args.model_kind, "reference": self.reference()}
        tokenizer, here = self.processing_class, self.here
        started = start_policy(model, self.model_config, self.args, peft_config, tokenizer, here, self._observe, **wanted)
        self.console.message(*started.messages)
        self.policy, self.model, self.started = started.policy, started.policy.model, started
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks or ()]
        self.run = self._assemble(self.method(started), started.wrapped, optimizers)
        self.events.steps_done = lambda: self.state.global_step
        self._identity: dict[str, str] = {}
        self.run.fire("on_init_end")

    # What a method's trainer says

    def method(self, started: Started) -> Method:
        raise NotImplementedError

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        raise NotImplementedError

    def read_sets(self, train: Any, evaluation: Any, tokenizer: Callable[[], Any]) -> Any:
        """What is trained and evaluated on, all that can be refused of it refused: `Sets`, or what has the same names."""
        reading = Reading(formats=self.formats, options=self._options, arranged=self.arranged, arranged_stream=self.arranged_stream)
        return Sets(train, evaluation, reading, self.args, tokenizer)

    def batches(self) -> Batches:
        """The source of steps."""
        return self.sets.batches(self.max_tokens, self.here)

    def eval_metrics(self, prefix: str, seen: Iterable[tuple[TokenTree, TokenOutputs]]) -> Mapping[str, float]:
        """Further metrics of an evaluation set: those of the user's `compute_metrics`."""
        if self.compute_metrics is None:
            return {}
        return named_numbers(self.compute_metrics(EvalTokens.joined(gather(columns(seen), self.here, "what an evaluation computed"))))

    def formats(self, dataset: Dataset) -> tuple[Format, ...]:
        """The format of each source's rows. Raises DataError for rows that the method does not read."""
        rows: Any = self.args
        return formats_for(rows, dataset, has_formatting_func=self.formatting_func is not None)

    def arranged(self, examples: JoinedExamples, training: bool) -> Any:
        """What becomes of prepared examples before they are drawn."""
        return examples

    def arranged_stream(self, opened: Opened) -> Opened:
        return opened

    def reference(self) -> WantedReference | None:
        """What the policy is to be compared with; None where it is with nothing."""
        return None

    def prepare_to_run(self) -> None:
        """What has to be done once, by the policy as it is at the start, before the first step or evaluation."""

    # What a user calls

    @property
    def state(self) -> TrainerState:
        return self.run.state.trainer

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.run.state.optimizer

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback() if isinstance(callback, type) else callback)

    def remove_callback(self, callback: Any) -> None:
        """`callback`, or all that are of that class."""
        self.callbacks[:] = [one for one in self.callbacks if one is not callback and type(one) is not callback]

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Trains to the end, from the newest checkpoint in `output_dir` where the run was cut short.

        SIGTERM and SIGINT end it after the step at hand, with a checkpoint unless save_strategy is "no"; a second one at once.

        Raises TrainingError for a loss that is not finite, CheckpointError where the folder holds another run, DistributedError where
        another rank is late or gone; after SIGINT KeyboardInterrupt, after SIGTERM SystemExit with status 143, on every rank.
        """
        if self.sets.train_set is None:
            raise ConfigError("There is nothing to train on; give train_dataset.")
        wanted = {None: self.args.resume_from_checkpoint, True: "auto", False: "never"}.get(resume_from_checkpoint, resume_from_checkpoint)  # type: ignore[arg-type]
        with self.events.of_run(self.run.signals), self.run.signals, self.directory.settled(self.console.warn):
            self._train(str(wanted))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best(Path(self.state.best_model_checkpoint))
        losses = [line["loss"] for line in self.state.log_history if "loss" in line]
        loss = sum(losses) / max(1, len(losses))
        return TrainOutput(self.state.global_step, loss, {"train_loss": loss, **(self.state.log_history[-1] if losses else {})})

    def _train(self, wanted: str) -> None:
        run, say = self.run, self.console.message
        try:
            found = self._begin(wanted)
            if found.step < run.max_steps:
                self._preflight(found)
                self.console.start(run.max_steps, found.step)
                train(run)
                self.directory.finish()
                if self.sets.streamed is not None:
                    say(f"Read from the stream: {self.sets.streamed.report}")
                self.console.conclude(self.directory.path)
            else:
                self.console.warn(f"The run in {self.directory.path} is finished, at step {found.step}; overwrite_output_dir begins anew.")
        finally:
            run.report.close()  # type: ignore[attr-defined]
            run.report = Reporter(self.console)
        run.signals.leave(self.console.warn, f"after step {self.state.global_step} of {run.max_steps}; {self.directory.last_good()}")

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Metrics over `eval_dataset`, or over the trainer's own sets."""
        self.prepare_to_run()
        if eval_dataset is not None:
            self.run.eval_sets = self._eval_trees(self.sets.prepared(eval_dataset))
        try:
            return evaluate(self.run)
        finally:
            self.run.eval_sets = self._eval_trees(self.sets.eval)

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Writes the model (with an adapter: the adapter) and its tokenizer so that transformers and PEFT read them."""
        weights = gather_weights(self.model, self.here, copy=False)
        if self.here.main:
            save_model(self.model, Path(output_dir or self.args.output_dir), self.processing_class, weights.state)
        barrier(self.here, "rank 0 to write the model")

    # How it is put together

    def _configs(self, model: Any, given: ModelConfig | None, peft_config: Any) -> tuple[ModelConfig, C]:
        """Both configurations, which share options, in agreement; the model's with its name."""
        named, given = isinstance(model, str | Path), given or ModelConfig()
        unheard = given.changed("dtype", "model_revision", "adapter_name_or_path", "load_in_4bit", "model_init_kwargs")
        if not named and (unheard := unheard or self.args.changed("model_init_kwargs")):
            raise ConfigError(f"{unheard[0]} has no effect on a model that is loaded already; leave it out, or give the model's name.")
        config, args = agree(given, self.args)
        if peft_config is not None and config.use_peft:
            raise ConfigError("peft_config and model_config with use_peft=True both describe an adapter; give one of them.")
        return replace(config, model_name_or_path=str(model if named else model.config.name_or_path)), args

    def _options(self, row_format: Format) -> PrepareOptions:
        stops = stop_token_ids(self.model_config)
        return replace(self.prepare_options(row_format), formatting_func=self.formatting_func, stop_token_ids=stops)

    def _observe(self, policy: TreeModel) -> None:
        """What can be said of the policy only while this process holds all of it."""
        placed = Placement(device=self.here.device.type, processes=self.here.world_size, per_node=self.here.local_world_size)
        self.memory = estimate_memory(policy, self.args, placed, row=self.sets.longest)
        self.max_tokens = self.args.max_tokens_per_microbatch or microbatch_tokens(self.memory, self.here.device)
        tokens = max(self.max_tokens, self.sets.longest)  # a longer row has a micro-batch of its own
        self._memory_words = f"{self.memory.describe(tokens)} with {tokens:,} tokens in a micro-batch"
        self._model_identity = model_identity(policy.model)

    def _tokenizer(self, given: Any) -> Any:
        path, eos = self.args.chat_template_path, self.args.eos_token  # type: ignore[attr-defined]
        if given is not None:
            return adapt_tokenizer(given, chat_template_path=path, eos_token=eos)
        if not self.model_config.model_name_or_path:
            raise ConfigError("The model was not loaded from anywhere that could hold its tokenizer; give processing_class.")
        return load_tokenizer(self.model_config, chat_template_path=path, eos_token=eos)

    def _assemble(self, method: Method, wrapped: nn.Module, optimizers: tuple[Any, Any] | None) -> Run:
        args, batches = self.args, self.batches()
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * (batches.steps_per_epoch or 0))
        optimizer, scheduler = optimizers or (None, None)
        check_own(optimizer, scheduler, self.model, fsdp=args.fsdp)
        if optimizer is None:
            optimizer, configured = from_config(args, self.model, steps)
        else:
            configured = make_schedule(args, optimizer, steps)
        trainer = TrainerState(
            max_steps=steps,
            num_train_epochs=math.ceil(args.num_train_epochs),
            logging_steps=args.logging_steps,
            eval_steps=args.eval_steps or args.logging_steps,
            save_steps=args.save_steps,
            is_local_process_zero=self.here.local_rank == 0,
            is_world_process_zero=self.here.main,
        )
        state = TrainState(
            model=self.model,
            optimizer=optimizer,
            scheduler=scheduler or configured,
            trainer=trainer,
            callbacks=self.callbacks,
            processing_class=self.processing_class,
            method=method,
        )
        return Run(
            policy=wrapped,
            method=method,
            args=args,
            here=self.here,
            state=state,
            batches=batches,
            max_steps=steps,
            max_epochs=math.inf if args.max_steps > 0 else trainer.num_train_epochs,
            report=Reporter(self.console),
            save=self._save,
            last_good=self.directory.last_good,
            eval_sets=self._eval_trees(self.sets.eval),
            extra_metrics=self.eval_metrics if self.compute_metrics or not self.policy_evaluates else None,
        )

    def _eval_trees(self, sets: Mapping[str, Any]) -> Mapping[str, Callable[[], Iterable[TokenTree]]]:
        """This rank's micro-batches of each set, on which the console keeps an eye."""
        trees, ranks = self.sets.trees(sets, self.max_tokens, self.here), self.here.world_size
        return {name: partial(self.console.evaluating, name, made, -(-len(sets[name]) // ranks)) for name, made in trees.items()}

    # A run's folder

    def identity(self) -> dict[str, str]:
        """What must be the same for a run to be continued, by the name that an error will use."""
        reference = self.started.reference
        return identity_of(self.args) | {
            "model": self._model_identity,
            **({} if reference is None else {"reference": reference.identity}),
            "data": self.sets.identity,
            "weights of the data": self.sets.weights,
            "steps": str(self.run.max_steps),
            "compute_dtype": str(self.policy.compute_dtype).removeprefix("torch."),
        }

    def _begin(self, wanted: str) -> Found:
        """Finds where to begin, restores it, and opens the run's files."""
        run, args, directory, say = self.run, self.args, self.directory, self.console.message
        self._identity = self._identity or self.identity()  # of the model as it was before the first step
        seed_everything(args.seed + self.here.rank)  # dropout is a function of the seed, whatever was drawn since the model was made
        with self.events.refusals():
            directory.hold()
            found = directory.find(wanted, self._identity, overwrite=args.overwrite_output_dir, done=self.state.global_step)
        for path, why in found.skipped:
            self.console.warn(f"Skipped {path.name}: {why}")
            self.events.write("skip", checkpoint=path.name, why=why)
        self.prepare_to_run()
        if found.path is not None:
            say(*run.state.load(found.path, self.here))
            best = run.state.trainer.best_model_checkpoint
            if best and not Path(best).exists():  # the folder was moved, or is spelled otherwise
                run.state.trainer.best_model_checkpoint = str(found.path.parent / Path(best).name)
            say(f"Continuing from {found.path}, step {found.step} of {run.max_steps}.")
            self.events.write("resume", checkpoint=str(found.path))
            if run.state.control.should_training_stop:
                say("A callback ended this run there; overwrite_output_dir begins anew.")
        if self.here.main:
            config = dump_yaml(self.model_config, *filter(None, [self.data_config]), args)
            directory.describe(config=config, environment=environment(), data=self.sets.described())
            if found.path is not None:
                directory.adopt_metrics(found.path)
            name = args.run_name or directory.path.name
            trackers = Trackers(args.report_to, name, directory.path, to_dict(args), start_step=found.step, message=self.console.warn)
            run.report = Reporter.open(self.console, directory.metrics, run.state.metrics_offset, found.step, trackers)
        return found

    def _preflight(self, found: Found) -> None:
        """Before step 1: what becomes of the rows, and one example as the loss sees it."""
        self.console.message(f"Memory: {self._memory_words}.")
        examples = self.sets.train
        if examples is None:
            return
        for part in examples.parts:
            self.console.message(str(part.report))
        self.console.message(f"{counted(len(examples), 'example')}, {counted(self.run.max_steps, 'step')} of {self.args.batch_size}.")
        if not found.step and self.here.main:
            show_example(examples[0], self.processing_class, self.console.console, max_tokens=120)

    def _save(self) -> None:
        report = self.run.report
        offset = report.sync() if isinstance(report, Reporter) else 0
        limit, background = self.args.save_total_limit, self.args.save_async
        with self.events.saving(), self.console.aside("saving"):
            self.directory.save(self.run.state, self._identity, limit=limit, metrics_offset=offset, background=background)

    def _load_best(self, path: Path) -> None:
        self.directory.find(str(path), self._identity, overwrite=False)  # whole, and of this run
        load_weights(self.model, path)
        self.console.message(f"Loaded the best model, {path.name} ({self.args.metric_for_best_model} {self.state.best_metric:.4g}).")
