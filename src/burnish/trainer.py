"""From what a user gives to a `Run`: the assembly that all methods share.

A method's trainer adds which rows it reads and how they become examples (`prepare_options`) and its loss (`method`).
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
from burnish.data.batches import Batches, OfflineBatches, StreamBatches, evaluation_trees
from burnish.data.dataset import Dataset, JoinedExamples, as_dataset, named_sets, prepare_all
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.data.prepare_stream import PreparedStream, prepare_stream
from burnish.data.sources import StreamRows
from burnish.distributed.launch import barrier, gather, launch, seed_everything
from burnish.loop import evaluate, train
from burnish.models.export import save_model
from burnish.models.load import adapt_tokenizer, load_tokenizer
from burnish.models.memory import ROW, Placement, estimate_memory, microbatch_tokens
from burnish.models.optimizer import check_own, from_config, make_schedule
from burnish.models.policy import TreeModel
from burnish.models.start import start_policy
from burnish.report.console import Console
from burnish.report.evaluation import EvalTokens, columns
from burnish.report.events import Events
from burnish.report.reporter import Reporter
from burnish.report.tokens import show_example
from burnish.report.trackers import Trackers, check_trackers
from burnish.run import Method, Run
from burnish.types import TokenOutputs, TokenTree

C = TypeVar("C", bound=TrainConfig)

SHUFFLE_BUFFER = 1000
"""Rows of a stream that are shuffled together."""


class TrainOutput(NamedTuple):
    """What `train()` returns, with transformers' names."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer(Generic[C]):
    """Assembles a run and holds it.

    `model` is a folder, a hub id or a transformers model; `train_dataset` a file, hub id, `datasets` object or list of
    dicts; `eval_dataset` likewise, or a dict of several. `processing_class` is the tokenizer (the model's own if None).
    `peft_config` adds an adapter; `optimizers` is (optimizer, schedule), each None for the configured one;
    `compute_metrics` takes an `EvalTokens` and returns a dict of numbers.

    Raises ConfigError, DataError, ModelError: bad options and rows before the model is loaded.
    """

    config_class: ClassVar[type[TrainConfig]]

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
        self.console = Console(main=self.here.main, live=False if self.args.disable_tqdm else None)
        self.formatting_func, self.compute_metrics = formatting_func, compute_metrics
        self.model_config, self.args = self._configs(model, model_config, peft_config)
        self.data_config = data_config
        self.directory = RunDirectory(folder, self.here)
        self.events = Events(folder, self.here, lambda: 0, self.console.message)
        for note in self.args.notes:
            self.console.message(note)

        train_set = None if train_dataset is None else as_dataset(train_dataset)
        if train_set is not None and train_set.streaming and self.args.max_steps < 1:
            raise ConfigError("A stream does not say how long it is; give max_steps.")
        eval_sets = {prefix: as_dataset(given) for prefix, given in named_sets(eval_dataset).items()}
        formats = {id(one): self.formats(one) for one in (*filter(None, [train_set]), *eval_sets.values())}
        self.processing_class = self._tokenizer(processing_class)
        self.train_examples = None if train_set is None or train_set.streaming else self._prepare(train_set, formats[id(train_set)])
        self.eval_examples = {prefix: self._prepare(one, formats[id(one)]) for prefix, one in eval_sets.items()}

        seed_everything(self.args.seed)
        started = start_policy(model, self.model_config, self.args, peft_config, self.processing_class, self.here, self._observe)
        for message in started.messages:
            self.console.message(message)
        self.policy, self.model = started.policy, started.policy.model
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks or ()]
        self.train_set, self.train_formats = train_set, formats.get(id(train_set), ())
        self.run = self._assemble(self.method(started.aux_loss_coef), started.wrapped, optimizers)
        self.events.steps_done = lambda: self.state.global_step
        self._identity: dict[str, str] = {}
        self.run.fire("on_init_end")

    # What a method's trainer says

    def method(self, aux_loss_coef: float) -> Method:
        raise NotImplementedError

    def formats(self, dataset: Dataset) -> tuple[Format, ...]:
        """The format of each source's rows. Raises DataError for rows that the method does not read."""
        raise NotImplementedError

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        raise NotImplementedError

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
        if self.train_examples is None and self.train_set is None:
            raise ConfigError("There is nothing to train on; give train_dataset.")
        wanted = {None: self.args.resume_from_checkpoint, True: "auto", False: "never"}.get(resume_from_checkpoint, resume_from_checkpoint)  # type: ignore[arg-type]
        with self.events.of_run(self.run.signals), self.run.signals, self.directory.settled(self.console.message):
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
                if self._streamed is not None:
                    say(f"Read from the stream: {self._streamed.report}")
            else:
                say(f"The run in {self.directory.path} is finished, at step {found.step}; overwrite_output_dir begins anew.")
        finally:
            run.report.close()  # type: ignore[attr-defined]
            run.report = Reporter(self.console)
        run.signals.leave(say, f"after step {self.state.global_step} of {run.max_steps}; {self.directory.last_good()}")

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Metrics over `eval_dataset`, or over the trainer's own sets."""
        run = self.run
        if eval_dataset is not None:
            sets = {prefix: as_dataset(given) for prefix, given in named_sets(eval_dataset).items()}
            run.eval_sets = self._eval_trees({prefix: self._prepare(one, self.formats(one)) for prefix, one in sets.items()})
        try:
            return evaluate(run)
        finally:
            run.eval_sets = self._eval_trees(self.eval_examples)

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Writes the model (with an adapter: the adapter) and its tokenizer so that transformers and PEFT read them."""
        weights = gather_weights(self.model, self.here, copy=False)
        if self.here.main:
            save_model(self.model, Path(output_dir or self.args.output_dir), self.processing_class, weights.state)
        barrier(self.here, "rank 0 to write the model")

    # How it is put together

    def _configs(self, model: Any, given: ModelConfig | None, peft_config: Any) -> tuple[ModelConfig, C]:
        """Both configurations, which share options, in agreement; the model's with its name."""
        named = isinstance(model, str | Path)
        config, args = agree(given or ModelConfig(), self.args)
        unheard = [] if named else config.changed("model_init_kwargs", "dtype", "model_revision", "adapter_name_or_path", "load_in_4bit")
        if unheard:
            raise ConfigError(f"{unheard[0]} has no effect on a model that is loaded already; leave it out, or give the model's name.")
        if peft_config is not None and config.use_peft:
            raise ConfigError("peft_config and model_config with use_peft=True both describe an adapter; give one of them.")
        return replace(config, model_name_or_path=str(model if named else model.config.name_or_path)), args

    def _observe(self, policy: TreeModel) -> None:
        """What can be said of the policy only while this process holds all of it."""
        placed = Placement(device=self.here.device.type, processes=self.here.world_size, per_node=self.here.local_world_size)
        self.memory = estimate_memory(policy, self.args, placed, row=self._longest())
        self.max_tokens = self.args.max_tokens_per_microbatch or microbatch_tokens(self.memory, self.here.device)
        tokens = max(self.max_tokens, self._longest())  # a longer row has a micro-batch of its own
        self._memory_words = f"{self.memory.describe(tokens)} with {tokens:,} tokens in a micro-batch"
        self._model_identity = model_identity(policy.model)

    def _longest(self) -> int:
        return ROW if self.train_examples is None else int(self.train_examples.lengths.max(initial=1))

    def _tokenizer(self, given: Any) -> Any:
        path, eos = self.args.chat_template_path, self.args.eos_token  # type: ignore[attr-defined]
        if given is not None:
            return adapt_tokenizer(given, chat_template_path=path, eos_token=eos)
        if not self.model_config.model_name_or_path:
            raise ConfigError("The model was not loaded from anywhere that could hold its tokenizer; give processing_class.")
        return load_tokenizer(self.model_config, chat_template_path=path, eos_token=eos)

    def _prepare(self, dataset: Dataset, formats: Sequence[Format]) -> JoinedExamples:
        options = [self.prepare_options(one) for one in formats]
        return prepare_all(dataset, self.processing_class, options, self.args.dataset_cache_dir, self.args.dataset_num_proc)  # type: ignore[attr-defined]

    def _batches(self) -> Batches:
        shape = {"batch_size": self.args.batch_size, "max_tokens": self.max_tokens, "rank": self.here.rank, "ranks": self.here.world_size}
        self._streamed: PreparedStream | None = None
        if self.train_set is None:
            return StreamBatches(lambda cursor: iter(()), **shape)
        if self.train_examples is None:
            self._streamed = self._stream(self.train_set)
            return StreamBatches(self._streamed.open_at, **shape)
        weights = self.train_set.weights
        order = self.train_examples.order(weights, seed=self.args.seed, shuffle=self.args.train_sampling_strategy == "random")
        return OfflineBatches(self.train_examples, order.indices, **shape)

    def _stream(self, dataset: Dataset) -> PreparedStream:
        streams = [rows if isinstance(rows, StreamRows) else StreamRows.over(rows) for rows in dataset.sources]
        buffer = SHUFFLE_BUFFER if self.args.train_sampling_strategy == "random" else 0
        options = replace(self.prepare_options(self.train_formats[0]), format=None)
        return prepare_stream(streams, self.processing_class, options, weights=dataset.weights, seed=self.args.seed, shuffle_buffer=buffer)

    def _assemble(self, method: Method, wrapped: nn.Module, optimizers: tuple[Any, Any] | None) -> Run:
        args, batches = self.args, self._batches()
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
            eval_sets=self._eval_trees(self.eval_examples),
            extra_metrics=self._extra_metrics if self.compute_metrics else None,
        )

    def _eval_trees(self, sets: Mapping[str, JoinedExamples]) -> dict[str, Callable[[], Iterable[TokenTree]]]:
        shape = {"max_tokens": self.max_tokens, "rank": self.here.rank, "ranks": self.here.world_size}
        return {prefix: partial(evaluation_trees, examples, **shape) for prefix, examples in sets.items()}

    def _extra_metrics(self, seen: Iterable[tuple[TokenTree, TokenOutputs]]) -> Mapping[str, float]:
        assert self.compute_metrics is not None
        found = self.compute_metrics(EvalTokens.joined(gather(columns(seen), self.here, "what an evaluation computed")))
        try:
            return {name: float(value) for name, value in found.items()}
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(f"compute_metrics gave {found!r}; let it return a dict of names and numbers.") from None

    # A run's folder

    def identity(self) -> dict[str, str]:
        """What must be the same for a run to be continued, by the name that an error will use."""
        sources = self.train_set.sources if self.train_set else ()
        data = self.train_examples.fingerprint[:16] if self.train_examples else f"stream of {', '.join(rows.name for rows in sources)}"
        return identity_of(self.args) | {
            "model": self._model_identity,
            "data": data,
            "weights of the data": str(self.train_set and self.train_set.weights),
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
            say(f"Skipped {path.name}: {why}")
            self.events.write("skip", checkpoint=path.name, why=why)
        if found.path is not None:
            for message in run.state.load(found.path, self.here):
                say(message)
            best = run.state.trainer.best_model_checkpoint
            if best and not Path(best).exists():  # the folder was moved, or is spelled otherwise
                run.state.trainer.best_model_checkpoint = str(found.path.parent / Path(best).name)
            say(f"Continuing from {found.path}, step {found.step} of {run.max_steps}.")
            self.events.write("resume", checkpoint=str(found.path))
            if run.state.control.should_training_stop:
                say("A callback ended this run there; overwrite_output_dir begins anew.")
        if self.here.main:
            data = {name: e.describe() for name, e in {"train": self.train_examples, **self.eval_examples}.items() if e is not None}
            config = dump_yaml(self.model_config, *filter(None, [self.data_config]), args)
            directory.describe(config=config, environment=environment(), data=data)
            if found.path is not None:
                directory.adopt_metrics(found.path)
            name = args.run_name or directory.path.name
            trackers = Trackers(args.report_to, name, directory.path, to_dict(args), start_step=found.step, message=say)
            run.report = Reporter.open(self.console, directory.metrics, run.state.metrics_offset, found.step, trackers)
        return found

    def _preflight(self, found: Found) -> None:
        """Before step 1: what becomes of the rows, and one example as the loss sees it."""
        self.console.message(f"Memory: {self._memory_words}.")
        if self.train_examples is None:
            return
        for part in self.train_examples.parts:
            self.console.message(str(part.report))
        self.console.message(f"{len(self.train_examples):,} examples, {self.run.max_steps:,} steps of {self.args.batch_size}.")
        if not found.step and self.here.main:
            show_example(self.train_examples[0], self.processing_class, self.console.console, max_tokens=120)

    def _save(self) -> None:
        report = self.run.report
        offset = report.sync() if isinstance(report, Reporter) else 0
        limit, background = self.args.save_total_limit, self.args.save_async
        with self.events.saving():
            self.directory.save(self.run.state, self._identity, limit=limit, metrics_offset=offset, background=background)

    def _load_best(self, path: Path) -> None:
        self.directory.find(str(path), self._identity, overwrite=False)  # whole, and of this run
        load_weights(self.model, path)
        self.console.message(f"Loaded the best model, {path.name} ({self.args.metric_for_best_model} {self.state.best_metric:.4g}).")
