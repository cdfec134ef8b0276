"""What the trainers of all methods share that learn from completions of their own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from burnish.checkpoint.identity import model_identity
from burnish.config.online import OnlineConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError
from burnish.data.batches import Batches
from burnish.data.spread import spread
from burnish.distributed.launch import Launch
from burnish.models.export import publish_weights
from burnish.models.load import stop_token_ids
from burnish.models.policy import Policy
from burnish.models.reference import Reference, WantedReference
from burnish.models.start import Started
from burnish.ops.reduce import Totals
from burnish.report.console import counted
from burnish.report.samples import SampleFiles, show_samples
from burnish.report.tokens import show_example
from burnish.rewards.dry_run import dry_run
from burnish.rewards.names import reward_sources
from burnish.rewards.scoring import Rewards
from burnish.rewards.total import FailureCount
from burnish.rollout.collect import Collector, OneTurn
from burnish.rollout.drawing import Render
from burnish.rollout.examples import lines_of
from burnish.rollout.groups import Conversation, Group, Judged, Prompt
from burnish.rollout.judging import behaviour_logps, divergences, reference_logps
from burnish.rollout.local import LocalSampler, sampling_of
from burnish.rollout.prompts import PromptRenderer
from burnish.rollout.sampler import Sampler, Sampling
from burnish.rollout.source import RolloutBatches, Wiring
from burnish.rollout.tasks import Tasks
from burnish.rollout.turns import Turns
from burnish.rollout.vllm import PROBE, VLLMSampler
from burnish.run import Method
from burnish.trainer.prompt_sets import PromptSets
from burnish.trainer.trainer import Trainer
from burnish.types import Branch, Example, Segment, TokenOutputs, TokenTree

C = TypeVar("C", bound=OnlineConfig)


class OnlineMethod(Method):
    """What these methods remember: the version of the policy, a reference that follows it, and rollouts yet to be learnt from."""

    def __init__(
        self, *, reference: Reference | None = None, rollouts: RolloutBatches | None = None, here: Launch | None = None,
        aux_loss_coef: float = 0.0,
    ) -> None:  # fmt: skip
        self.reference, self.rollouts, self.here = reference, rollouts, here or Launch()
        self.aux_loss_coef, self.version = aux_loss_coef, 0

    def after_step(self, step: int, totals: Totals) -> None:
        self.version = step
        if self.reference is not None:
            self.reference.after_step(step)

    def state(self) -> dict[str, Any]:
        return {"version": self.version, "rollouts": self.rollouts.state() if self.rollouts else None}

    def tensors(self) -> dict[str, Tensor]:
        reference = {} if self.reference is None else self.reference.state()
        return reference | (self.rollouts.tensors() if self.rollouts else {})

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.version = state["version"]
        if self.reference is not None:
            self.reference.restore(tensors)
        if self.rollouts is not None:
            self.rollouts.restore(state["rollouts"], tensors)


class OnlineTrainer(Trainer[C]):
    """A trainer that samples. `reward_funcs`: a function, a name or a model, or several (`rewards/names.py`); None: those of `args`.
    `train_dataset` has rows with a prompt, and columns for the rewards. `reward_processing_classes`: tokenizers of reward models.
    `tools`: functions that the model may call; `environment_factory`: what answers it between its turns (`rollout/environments.py`),
    whose rewards stand beside `reward_funcs`. The others as in `Trainer`.

    Raises RewardError, before the model is loaded, for a reward that fails on the first rows.
    """

    policy_evaluates: ClassVar[bool] = False

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: C | None = None, *, reward_processing_classes: Any = None,
        tools: Sequence[Callable[..., Any]] | None = None, environment_factory: Any = None, **more: Any,
    ) -> None:  # fmt: skip
        if isinstance(reward_funcs, TrainConfig):
            raise ConfigError(
                f"The second argument of {type(self).__name__} is reward_funcs, as in TRL; write args={type(reward_funcs).__name__}(...)."
            )
        self._reward_funcs, self._reward_tokenizers = reward_funcs, reward_processing_classes
        self._tools, self._environments = tuple(tools or ()), environment_factory
        super().__init__(model, args, **more)

    # What a method's trainer says

    def learner(self, started: Started, rollouts: RolloutBatches) -> Method:
        raise NotImplementedError

    def judge(self, groups: Sequence[Group], weights: Sequence[float]) -> Judged:
        """From rewards to advantages. Called on every rank."""
        raise NotImplementedError

    @property
    def keeps_all(self) -> bool:
        """Whether something is learnt from completions without advantage, too."""
        return False

    # How it is put together

    def read_sets(self, train: Any, evaluation: Any, tokenizer: Callable[[], Any]) -> PromptSets:
        if self.compute_metrics is not None:
            raise ConfigError("compute_metrics sees the tokens of a data set, and here there is none; write a reward function.")
        self.rewards = rewards_of(self._reward_funcs, self.args, required=self._environments is None)
        weakref.finalize(self, self.rewards.close)
        sets = PromptSets(train, evaluation, self.args, tokenizer, self._renderer, any_columns=self._environments is not None)
        if not (self.conversation_rewards or self.rewards.names):
            raise ConfigError("The environment says no reward, and reward_funcs is not given; give it a get_reward, or give reward_funcs.")
        rows = [prompt.row for prompts in filter(None, (sets.prompts, *sets.eval.values())) for prompt in prompts.first(2)]
        dry_run(self.rewards.pool, [row for row in rows if "prompt" in row])
        return sets

    def _renderer(self, tokenizer: Any) -> Render:
        """From rows to the token ids of their prompts; with tools, these are in them."""
        args, stops, exact = self.args, stop_token_ids(self.model_config), not self.args.use_vllm
        if not (self._tools or self._environments):
            if args.max_tool_calling_iterations is not None:
                raise ConfigError(
                    "max_tool_calling_iterations has no effect without tools or environment_factory; give one, or leave it out."
                )
            self._conversation: Conversation = OneTurn(tokenizer, args.max_completion_length, exact=exact)
            self.conversation_rewards: tuple[str, ...] = ()
            return PromptRenderer(tokenizer, stops)
        turns = Turns(
            tokenizer, args.max_completion_length, exact=exact, tools=self._tools, environment_factory=self._environments,
            max_tool_calling_iterations=args.max_tool_calling_iterations, tool_timeout=args.reward_timeout, stop_token_ids=tuple(stops),
        )  # fmt: skip
        self._conversation, self.conversation_rewards = turns, turns.reward_names
        return turns.render

    def reference(self) -> WantedReference | None:
        if not self.args.beta:
            return None
        return WantedReference(model=self.args.ref_model_name_or_path, args=self.args, identify=model_identity)

    def method(self, started: Started) -> Method:
        args, names = self.args, self.reward_names
        self.console.message(*self.rewards.load_models(self.here.device, self._reward_tokenizers, args.compute_dtype))
        self._failures = FailureCount(names, args.max_reward_failures)
        self.files = SampleFiles(self.directory.path)
        started.policy.temperature = args.temperature
        sampler = self._sampler(started)
        self._collect = Collector(sampler, self._conversation, self.rewards, self.here, phase=self.console.phase)
        self.tasks = Tasks(args, self._collect, self._judged, self._sampling(), names)
        self.rollouts: RolloutBatches | None = None
        if self.sets.prompts is not None:
            self.rollouts = RolloutBatches(self._wiring(started, sampler, names), args, self.max_tokens, self.here)
        return self.learner(started, self.rollouts)  # type: ignore[arg-type]

    def _wiring(self, started: Started, sampler: Sampler, names: Sequence[str]) -> Wiring:
        stale = self.args.steps_per_generation * self.args.num_iterations > 1
        return Wiring(
            prompts=self.sets.prompts,
            sampling=self._sampling(),
            collect=self._collect,
            judge=self._judged,
            rewards=tuple(names),
            files=self.files,
            text=self.processing_class.decode,
            steps_done=lambda: self.state.global_step,
            say=self.console.warn,
            phase=self.console.phase,
            beside=lambda: self.console.beside,
            show=self._show if self.args.log_completions else None,
            failures=self._failures,
            score=self._policy_logps if stale and not sampler.exact else None,
            keep_all=self.keeps_all,
        )

    def _show(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The first group of every step that is logged."""
        if (self.state.global_step + 1) % self.args.logging_steps == 0:
            show_samples(lines, self.console.console, self.args.num_completions_to_print or self.args.num_generations)

    def _sampler(self, started: Started) -> Sampler:
        if self.args.use_vllm:
            return self._server(started)
        sampler = LocalSampler(started.policy, text=self.processing_class.decode, memory=self.args.sampler_memory)
        self.console.message(*sampler.messages)
        return sampler

    def _server(self, started: Started) -> Sampler:
        args, policy = self.args, started.policy
        if args.fsdp != "no" and self.here.world_size > 1:
            raise ConfigError("use_vllm=True publishes weights that one process holds whole, and fsdp shards them; use fsdp='no'.")

        @torch.no_grad()
        def rescore(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
            examples = [_scored(context, completion) for context, completion in pairs]
            policy.temperature, temperature = 1.0, policy.temperature
            try:
                return spread(examples, _still(policy), self.max_tokens, Launch(device=self.here.device))
            finally:
                policy.temperature = temperature

        return VLLMSampler(
            args.vllm_url,
            publish=lambda folder: publish_weights(policy.model, folder),
            rescore=rescore,
            probe=self.processing_class.encode(PROBE),
            weights_dir=Path(args.vllm_weights_dir or self.directory.path / "vllm"),
            model=args.vllm_model,
            timeout=args.vllm_server_timeout,
            tolerance=args.vllm_tolerance,
            concurrency=args.vllm_concurrency,
            untied_head=args.vllm_untied_head,
        )

    @property
    def reward_names(self) -> list[str]:
        """Of environments, then of `reward_funcs`."""
        return [*self.conversation_rewards, *self.rewards.names]

    def _sampling(self) -> Sampling:
        stops = {self.processing_class.eos_token_id, *stop_token_ids(self.model_config)}
        return sampling_of(self.args, sorted(stops), self.args.seed)

    def _judged(self, groups: Sequence[Group]) -> Judged:
        self._ref_logps: list[list[np.ndarray]] = []
        judged = self.judge(groups, [1.0] * len(self.conversation_rewards) + self.rewards.weights)
        return replace(judged, ref_logps=tuple(self._ref_logps))

    def divergences(self, groups: Sequence[Group]) -> Tensor:
        """``log π - log π_ref`` of every rollout `[B]`: 0 before the first step, where the policy is its own reference."""
        reference = self.started.reference
        assert reference is not None
        if not self.state.global_step and self.args.ref_model_name_or_path is None:
            self._ref_logps = [[behaviour_logps(rollout) for rollout in group.rollouts] for group in groups]
        else:
            self._ref_logps = reference_logps(groups, lambda examples: spread(examples, reference, self.max_tokens, self.here))
        return divergences(groups, self._ref_logps)

    @torch.no_grad()
    def _policy_logps(self, examples: Sequence[Example]) -> Any:
        return spread(examples, _still(self.policy), self.max_tokens, self.here)

    def batches(self) -> Batches:
        return self.rollouts if self.rollouts is not None else _NoBatches()

    def identity(self) -> dict[str, str]:
        return super().identity() | {"rewards": ", ".join(self.reward_names)}

    def eval_metrics(self, prefix: str, seen: Iterable[tuple[TokenTree, TokenOutputs]]) -> Mapping[str, float]:
        step = self.state.global_step
        found, groups, judged = self.tasks(prefix, self.sets.open[prefix], step)
        if self.here.main:
            names, text = tuple(self.reward_names), self.processing_class.decode
            self.files.append(lines_of(groups, judged, step=step, name=prefix, names=names, text=text))
        return found

    def _begin(self, wanted: str) -> Any:
        found = super()._begin(wanted)
        if found.path is None and self.rollouts is not None:
            self.rollouts.begin_anew()
        return found

    def _preflight(self, found: Any) -> None:
        super()._preflight(found)
        prompts, args = self.sets.prompts, self.args
        steps, size = counted(self.run.max_steps, "step"), counted(args.batch_size, "prompt")
        completions = counted(args.num_generations, "completion")
        self.console.message(
            f"{counted(len(prompts), 'prompt')}, {steps} of {size} with {completions} each; rewards: {', '.join(self.reward_names)}."
        )
        if not found.step and self.here.main:
            (first,) = prompts.first(1)
            show_example(as_example(first), self.processing_class, self.console.console, max_tokens=120)


def rewards_of(reward_funcs: Any, args: OnlineConfig, *, required: bool = True) -> Rewards:
    """Those that the trainer is given, or else those that `args` names. Forks: before the model is loaded.

    Raises ConfigError, RewardError.
    """
    if reward_funcs is not None and args.reward_funcs is not None:
        raise ConfigError("reward_funcs of the trainer and reward_funcs of its configuration both name rewards; give one of them.")
    given = args.reward_funcs if reward_funcs is None else reward_funcs
    return Rewards([] if given is None and not required else reward_sources(given, args.reward_kwargs), args)


def as_example(prompt: Prompt) -> Example:
    """To be shown."""
    segment = Segment(token_ids=prompt.token_ids, source="prompt", trained=False)
    return Example(group_id=prompt.place, prompt=(), branches=(Branch(segments=(segment,)),))


def _still(policy: Policy) -> Callable[[TokenTree], Tensor]:
    """Its log-probs without dropout."""

    def logps(tree: TokenTree) -> Tensor:
        training = policy.training
        policy.eval()
        try:
            return policy(tree).logp_N
        finally:
            policy.train(training)

    return logps


def _scored(context: np.ndarray, completion: np.ndarray) -> Example:
    prompt = Segment(token_ids=context, source="prompt", trained=False)
    branch = Branch(segments=(Segment(token_ids=completion, source="model", trained=True),))
    return Example(group_id="probe", prompt=(prompt,), branches=(branch,))


class _NoBatches:
    """Of a trainer that evaluates only."""

    steps_per_epoch: int | None = 0

    def steps(self, cursor: tuple[int, int]) -> Any:
        return iter(())
