"""What TRL 1.16 makes of given rollouts: its own losses, with a model that only repeats log-probs, and its own advantages and weights,
with a sampler and rewards that only repeat what they are given.

    PYTHON_WITH_TRL tests/ops/rollouts_trl.py IN.json OUT.json

IN is a list of cases. OUT has for each of them ``[loss, gradient, metrics]``, or a list of numbers.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch


class Accelerator:
    device = torch.device("cpu")
    num_processes = 1
    process_index = 0
    sync_gradients = True

    def gather(self, value):
        return value

    gather_for_metrics = gather

    def reduce(self, value, reduction="sum"):
        return value

    def pad_across_processes(self, value, dim=0, pad_index=0):
        return value


OPTIONS = {
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilon_high": None,
    "delta": None,
    "use_bias_correction_kl": True,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "entropy_coef": 0.0,
    "max_completion_length": 16,
    "corrected": False,
}


def masked(case):
    longest = max(case["tokens"])
    return torch.tensor([[1] * n + [0] * (longest - n) for n in case["tokens"]])


def stand_in(case, trainer_class):
    """A trainer that has what its loss reads, and its own helpers."""
    options = OPTIONS | case.get("options", {})
    logp = torch.tensor(case["logp"], requires_grad=True)
    entropy = torch.tensor(case["entropy"], requires_grad=True)
    trainer = SimpleNamespace(
        accelerator=Accelerator(),
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(**options, steps_per_generation=1),
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, entropy, None),
        aux_loss_enabled=False,
        use_vllm=options["corrected"],
        vllm_importance_sampling_correction=options["corrected"],
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=options["entropy_coef"] != 0.0,
        use_adaptive_entropy=False,
        epsilon_low=options["epsilon"],
        **{name: value for name, value in options.items() if name not in ("epsilon", "delta", "epsilon_high")},
        epsilon_high=options["epsilon"] if options["epsilon_high"] is None else options["epsilon_high"],
    )
    for name in ("get_off_policy_mask", "get_gamma_weights"):
        setattr(trainer, name, getattr(trainer_class, name, None))
    trainer.get_high_entropy_mask = lambda *given: trainer_class.get_high_entropy_mask(trainer, *given)
    return trainer, logp, entropy


def inputs_of(case):
    mask = masked(case)
    return {
        "prompt_ids": torch.ones(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": torch.tensor(case["advantage"]),
        "num_items_in_batch": mask.sum(),
        "old_per_token_logps": torch.tensor(case["old_logp"]),
        "ref_per_token_logps": torch.tensor(case["ref_logp"]),
        **({"sampling_per_token_logps": torch.tensor(case["sampled_logp"])} if "sampled_logp" in case else {}),
        **({"importance_sampling_ratio": torch.tensor(case["importance"])} if "importance" in case else {}),
    }


def answer(loss, trainer, logp, entropy):
    gradient, of_entropy = torch.autograd.grad(loss, (logp, entropy), allow_unused=True)
    metrics = {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()}
    return [loss.item(), gradient.tolist(), of_entropy.tolist() if of_entropy is not None else None, metrics]


def grpo(case):
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer, logp, entropy = stand_in(case, GRPOTrainer)
    return answer(GRPOTrainer._compute_loss(trainer, None, inputs_of(case)), trainer, logp, entropy)


def gmpo(case):
    from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer

    trainer, logp, entropy = stand_in(case, GMPOTrainer)
    return answer(GMPOTrainer._compute_loss(trainer, None, inputs_of(case)), trainer, logp, entropy)


def rloo(case):
    from trl.trainer.rloo_trainer import RLOOTrainer

    trainer, logp, entropy = stand_in(case, RLOOTrainer)
    inputs = inputs_of(case)
    inputs["old_logps"] = (inputs["old_per_token_logps"] * inputs["completion_mask"]).sum(1)
    return answer(RLOOTrainer._compute_loss(trainer, None, inputs), trainer, logp, entropy)


def scored(case, trainer_class, generated):
    """A trainer between sampling and learning: what was sampled and what rewards say are given, and so is the policy's view."""
    options = {
        "multi_objective_aggregation": "sum_then_normalize",
        "scale_rewards": "group",
        "normalize_advantages": False,
        "reward_clip_range": None,
        "beta": 0.0,
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": 3.0,
        "vllm_importance_sampling_clip_min": None,
        "num_generations": len(case["reward"]),
        **case.get("options", {}),
    }
    weights = case.get("weights", [1.0] * len(case["reward"][0]))
    seen = [torch.tensor(case[name]) for name in ("old_logp", "ref_logp") if name in case]
    answers = iter([*seen, *([torch.zeros(len(case["reward"]), 1)] * 2)])
    trainer = SimpleNamespace(
        accelerator=Accelerator(),
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        ref_model=object(),
        args=SimpleNamespace(
            per_device_train_batch_size=8, steps_per_generation=1, gradient_accumulation_steps=1, gradient_checkpointing_kwargs=None
        ),
        environment_factories=None,
        tools=None,
        environments=None,
        num_iterations=1,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _is_vlm=False,
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        _generate=lambda _: generated,
        _get_per_token_logps_and_entropies=lambda *_, **__: (next(answers), None, None),
        _calculate_rewards=lambda *_: torch.tensor(case["reward"]),
        reward_weights=torch.tensor(weights),
        reward_funcs=weights,
        reward_func_names=[str(k) for k in range(len(weights))],
        use_vllm="sampled_logp" in case,
        vllm_importance_sampling_correction=True,
        _metrics={"train": defaultdict(list)},
        _logs={name: defaultdict(list) if name in ("rewards", "extra") else [] for name in LOGS},
        _pending_extra_logs={},
        _pending_metrics={},
        log_multimodal=False,
        **options,
    )
    return trainer_class._generate_and_score_completions(trainer, [{"prompt": "p"} for _ in case["reward"]])


LOGS = ("prompt", "completion", "rewards", "advantages", "extra", "images")


def given(case):
    tokens = case.get("tokens", [1] * len(case["reward"]))
    return [[5]] * len(tokens), [[7] * n for n in tokens], [""] * len(tokens)


def grpo_advantages(case):
    from trl.trainer.grpo_trainer import GRPOTrainer

    prompts, completions, texts = given(case)
    sampled = case.get("sampled_logp")
    logps = None if sampled is None else [row[:n] for row, n in zip(sampled, case["tokens"], strict=True)]
    output = scored(case, GRPOTrainer, (prompts, completions, None, texts, logps, None, None, None))
    return output["importance_sampling_ratio" if sampled else "advantages"].tolist()


def rloo_advantages(case):
    from trl.trainer.rloo_trainer import RLOOTrainer

    return scored(case, RLOOTrainer, given(case))["advantages"].tolist()


METHODS = {"grpo": grpo, "gmpo": gmpo, "rloo": rloo, "grpo_advantages": grpo_advantages, "rloo_advantages": rloo_advantages}


if __name__ == "__main__":
    from accelerate import PartialState

    PartialState(cpu=True)
    with open(sys.argv[1]) as source, open(sys.argv[2], "w") as found:
        json.dump([METHODS[case["method"]](case) for case in json.load(source)], found)
