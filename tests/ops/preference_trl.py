"""What TRL 1.16 makes of given log-probs: its own loss functions, with a model that only repeats them.

    PYTHON_WITH_TRL tests/ops/preference_trl.py IN.json OUT.json

IN is a list of cases, OUT a list of [loss, gradient]. A trainer is a bag of the attributes that its loss reads: no model is built.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch


class Accelerator:
    device = torch.device("cpu")

    def gather(self, value):
        return value

    gather_for_metrics = gather

    def unwrap_model(self, model):
        return model


def bag(**attributes):
    return SimpleNamespace(
        accelerator=Accelerator(),
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        aux_loss_enabled=False,
        **attributes,
    )


def repeats(logp, mask, log_sum_sq=None):
    """A model that answers any call with these log-probs; the rest of its answer only feeds metrics."""
    zeros = torch.zeros_like(logp)
    answer = SimpleNamespace(
        log_probs=logp * mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=log_sum_sq, aux_loss=None
    )

    class Model:
        training = True

        def __call__(self, **_):
            return answer

    return Model()


def rows(lengths):
    """A prompt of one token and completions of these lengths, padded on the right: `[rows, longest + 1]`."""
    longest = max(lengths)
    mask = torch.tensor([[0] + [1] * n + [0] * (longest - n) for n in lengths])
    return {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def dpo(case):
    from trl.trainer.dpo_trainer import DPOTrainer

    inputs = rows(case["chosen_tokens"] + case["rejected_tokens"])
    logp = torch.tensor(case["logp"], requires_grad=True)
    trainer = bag(
        precompute_ref_logps=True,
        beta=case["beta"],
        loss_types=case["loss_type"],
        loss_weights=case.get("loss_weights", [1.0] * len(case["loss_type"])),
        label_smoothing=case.get("label_smoothing", 0.0),
        ld_alpha=case.get("ld_alpha"),
        f_divergence_type=case.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=case.get("f_alpha_divergence_coef", 0.5),
        use_weighting=case.get("use_weighting", False),
        args=SimpleNamespace(discopop_tau=case.get("discopop_tau", 0.05)),
    )
    model = repeats(logp, inputs["completion_mask"][:, 1:], torch.tensor(case["log_sum_sq"]))
    refs = {f"ref_{name}_logps": torch.tensor(case[f"ref_{name}"]) for name in ("chosen", "rejected")}
    return DPOTrainer._compute_loss(trainer, model, {**inputs, **refs}, False), logp


def kto(case):
    from trl.trainer.kto_trainer import KTOTrainer

    logp = torch.tensor(case["logp"], requires_grad=True)
    batch = {**rows(case["tokens"]), "label": torch.tensor(case["label"]), "ref_logps": torch.tensor(case["ref"])}
    batch["ref_KL_logps"] = torch.zeros(len(case["kl_logratio"]))
    trainer = bag(
        precompute_ref_logps=True,
        calculate_KL=case["loss_type"] == "kto",
        loss_type=case["loss_type"],
        beta=case["beta"],
        desirable_weight=case["desirable_weight"],
        undesirable_weight=case["undesirable_weight"],
        _compute_kl_logps=lambda *_: torch.tensor(case["kl_logratio"]),
    )
    return KTOTrainer._compute_loss(trainer, repeats(logp, batch["completion_mask"][:, 1:]), batch, False), logp


def cpo(case):
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    logp = torch.tensor(case["logp"], requires_grad=True)
    options = {"alpha": 0.0, "simpo_gamma": 0.5, "label_smoothing": 0.0}
    trainer = bag(**{name: case.get(name, default) for name, default in options.items()}, loss_type=case["loss_type"], beta=case["beta"])
    return CPOTrainer.cpo_loss(trainer, logp[0], logp[1])[0].mean(), logp


def orpo(case):
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    logp = torch.tensor(case["logp"], requires_grad=True)
    return -ORPOTrainer.odds_ratio_loss(bag(beta=1.0), logp[0], logp[1])[0].mean(), logp


def reward(case):
    from trl.trainer.reward_trainer import RewardTrainer

    logp = torch.tensor(case["logp"], requires_grad=True)

    class Model:
        training = True

        def __call__(self, **_):
            return SimpleNamespace(logits=logp.reshape(-1, 1))

    trainer = bag(args=SimpleNamespace(center_rewards_coefficient=case["center_rewards_coefficient"]))
    inputs = {"attention_mask": torch.ones(2, 2)} | ({"margin": torch.tensor(case["margin"])} if "margin" in case else {})
    return RewardTrainer.compute_loss(trainer, Model(), inputs), logp


METHODS = {"dpo": dpo, "kto": kto, "cpo": cpo, "orpo": orpo, "reward": reward}


def run(case):
    loss, leaf = METHODS[case["method"]](case)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return [loss.item(), gradient.tolist()]


if __name__ == "__main__":
    with open(sys.argv[1]) as given, open(sys.argv[2], "w") as found:
        json.dump([run(case) for case in json.load(given)], found)
