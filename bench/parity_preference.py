"""Three optimizer steps of ours and of TRL's DPOTrainer, KTOTrainer and RewardTrainer: same model, rows and options, in float32.

    python -m bench.parity_preference --trl-python .venv-trl/bin/python

prints loss and gradient norm of both for every loss and step, and exits with status 1 unless every loss agrees to 1e-4 and every
gradient norm to 1e-3, both relative. How it is compared: `parity.py`. Rewards and log-probs are compared, too.

Ours runs under the name with TRL's meaning where a paper has another (`sigmoid_trl`, `bco_pair_trl`, `sft_trl`, `alpha_divergence_trl`).
Where TRL's loss is no plain mean over pairs (`sft`, `aot`, `aot_unpaired`) it is given the whole step as one micro-batch, since it takes
means and ranks over each micro-batch by itself.

Not compared: log-probs with `ld_alpha`, of which TRL logs the desensitised ones and ours those of the whole completions; means over
tokens (entropy, accuracy) where TRL has several micro-batches, since it gives each of them the same weight.

KTO: TRL puts after prompt i the completion of row i - 1 of its micro-batch, ours that of the next row with another prompt. So TRL gets
the rows in reverse, and the data are one batch, seen three times.

Reward models have another token for padding than the end of a turn: with SmolLM2's own, where they are one, transformers' classifiers, and
TRL with them, read the score at the token before it.

Chats have ChatML without the line break after `<|im_end|>`: TRL trains on it, ours ends a completion at the end of its turn.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.parity import BATCH, FACTS, Case, arguments, main, make_random_llama

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The answer to another question is the rejected one, and every third row is the other way round.
ANSWERS = [answer for _, answer in FACTS]
PAIRS = [
    {"prompt": question, "chosen": " " + pair[i % 3 == 2], "rejected": " " + pair[i % 3 != 2]}
    for i, ((question, answer), other) in enumerate(zip(FACTS, ANSWERS[5:] + ANSWERS[:5], strict=True))
    for pair in [(answer, other)]
]
LABELLED = [{"prompt": row["prompt"], "completion": row["chosen"], "label": i % 3 != 2} for i, row in enumerate(PAIRS)]


def as_chat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant"}
    return [
        {name: [{"role": roles[name], "content": value.strip()}] if name in roles else value for name, value in row.items()} for row in rows
    ]


REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected")
PAIR_METRICS, TOKEN_METRICS = dict.fromkeys(REWARDS, 1e-4), dict.fromkeys(("entropy", "mean_token_accuracy"), 1e-4)
LABEL_METRICS = dict.fromkeys(("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "kl", "entropy"), 1e-4)
AT_ONCE = {"per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1}
AS_TRL = {"sigmoid": "sigmoid_trl", "bco_pair": "bco_pair_trl", "sft": "sft_trl"}


def dpo(*losses: str, models: tuple[str, ...] = ("random",), at_once: bool = False, **more: Any) -> Case:
    ours = {"loss_type": [AS_TRL.get(loss, loss) for loss in losses]}
    compared = PAIR_METRICS | (TOKEN_METRICS if at_once else {})
    left_out = "rewards" if losses == ("sft",) else "logps" if "ld_alpha" in more.get("options", {}) else "nothing"
    metrics = {name: far for name, far in compared.items() if left_out not in name}
    return Case(
        method="dpo", rows=more.pop("rows", PAIRS), models=models, metrics=metrics, options=more.pop("options", {}),
        ours=ours | more.pop("ours", {}), theirs={"loss_type": list(losses)} | (AT_ONCE if at_once else {}), more=more,
    )  # fmt: skip


def kto(loss: str, models: tuple[str, ...] = ("random",), rows: list[dict[str, Any]] = LABELLED, **more: Any) -> Case:
    return Case(
        method="kto", rows=rows, their_rows=rows[::-1], models=models,
        metrics={name: far for name, far in LABEL_METRICS.items() if name != "kl" or loss == "kto"},
        options={"loss_type": loss} | more.pop("options", {}), ours={"batch_size": len(rows)},
        theirs={"per_device_train_batch_size": len(rows), "gradient_accumulation_steps": 1}, more=more,
    )  # fmt: skip


BOTH = ("random", "SmolLM2")
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def dpo_cases() -> dict[str, Case]:
    whole = ("sft", "aot", "aot_unpaired")
    plain = ("hinge", "ipo", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "sigmoid_norm")
    cases = {"sigmoid": dpo("sigmoid", models=BOTH)}
    cases |= {loss: dpo(loss, models=BOTH if loss == "ipo" else ("random",)) for loss in plain}
    cases |= {loss: dpo(loss, at_once=True) for loss in whole}
    cases["exo_pair"] = dpo("exo_pair", options={"label_smoothing": 1e-3})
    smooth = {"label_smoothing": 0.1}
    cases |= {f"{loss}, smoothed": dpo(loss, options=smooth) for loss in ("robust", "exo_pair")}
    cases |= {f"{loss}, smoothed": dpo(loss, options=smooth, at_once=True) for loss in ("aot", "aot_unpaired")}
    cases["sigmoid, smoothed (TRL ignores it)"] = dpo("sigmoid", "robust", options=smooth)
    for kind in ("forward_kl", "js_divergence"):
        cases[f"sigmoid, {kind}"] = dpo("sigmoid", options={"f_divergence_type": kind})
    cases["ipo, forward_kl"] = dpo("ipo", options={"f_divergence_type": "forward_kl"})
    for alpha in (0.5, 0.2):
        own = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": alpha}
        cases[f"sigmoid, alpha_divergence {alpha}"] = dpo("sigmoid", options=own, ours={"f_divergence_type": "alpha_divergence_trl"})
    cases["sigmoid, ld_alpha"] = dpo("sigmoid", options={"ld_alpha": 0.3})
    cases["ipo, ld_alpha"] = dpo("ipo", options={"ld_alpha": 0.3})
    cases["sigmoid, use_weighting"] = dpo("sigmoid", options={"use_weighting": True})
    cases["mixture"] = dpo("sigmoid", "bco_pair", "sft", at_once=True, options={"loss_weights": [0.8, 0.2, 1.0]}, models=BOTH)
    cases["sigmoid, chat"] = dpo("sigmoid", rows=as_chat(PAIRS), chat_template=CHATML)
    cases["sigmoid, implicit prompt"] = dpo("sigmoid", rows=implicit(PAIRS))
    cases["sigmoid, precomputed"] = dpo("sigmoid", options={"precompute_ref_log_probs": True})
    moving = {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.6}
    cases["sigmoid, sync_ref_model"] = dpo("sigmoid", options=moving)
    cases["sigmoid, new adapter"] = dpo("sigmoid", adapter=LORA, models=BOTH)
    return cases


def implicit(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in rows]


def kto_cases() -> dict[str, Case]:
    weights = {"desirable_weight": 1.0, "undesirable_weight": 2.0}
    return {
        "kto": kto("kto", models=BOTH),
        "apo_zero_unpaired": kto("apo_zero_unpaired"),
        "kto, weights": kto("kto", options=weights),
        "kto, chat": kto("kto", rows=as_chat(LABELLED), chat_template=CHATML),
        "kto, precomputed": kto("kto", options={"precompute_ref_log_probs": True}),
        "kto, new adapter": kto("kto", adapter=LORA),
    }


def reward(rows: list[dict[str, Any]] = PAIRS, models: tuple[str, ...] = ("random",), **more: Any) -> Case:
    return Case(
        method="reward", rows=rows, models=models, options=more.pop("options", {}),
        metrics=dict.fromkeys(("accuracy", "margin", "mean_reward"), 1e-4), more={"pad_token": "<|endoftext|>", **more},
    )  # fmt: skip


def reward_cases() -> dict[str, Case]:
    margins = [row | {"margin": 0.25 * (i % 4)} for i, row in enumerate(PAIRS)]
    return {
        "reward": reward(models=BOTH),
        "reward, margin": reward(margins),
        "reward, centred": reward(options={"center_rewards_coefficient": 0.01}),
        "reward, margin, centred": reward(margins, options={"center_rewards_coefficient": 0.01}, models=BOTH),
        "reward, chat": reward(as_chat(PAIRS), chat_template=CHATML),
    }


def other_cases(model: Path, scratch: Path) -> dict[str, Case]:
    """Those that need a folder of their own: another model as the reference, an adapter that is trained further."""
    other = make_random_llama(model, scratch, name="other", seed=1)
    adapter = make_adapter(make_random_llama(model, scratch), scratch / "adapter")
    return {
        "sigmoid, ref_model": dpo("sigmoid", ref_model=str(other)),
        "ipo, ref_model": dpo("ipo", ref_model=str(other)),
        "aot, ref_model": dpo("aot", ref_model=str(other), at_once=True),
        "sigmoid, adapter trained further": dpo("sigmoid", adapter_from=str(adapter)),
        "kto, ref_model": kto("kto", ref_model=str(other)),
        "kto, adapter trained further": kto("kto", adapter_from=str(adapter)),
    }


def make_adapter(model: Path, folder: Path) -> Path:
    """An adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(**LORA, init_lora_weights=False))
    wrapped.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        main(dpo_cases() | kto_cases() | reward_cases() | other_cases(options.model, Path(scratch)), options)
