"""`burnish demo`: the embedded model learns from examples, then from preferences, then from rewards, and is scored after each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from burnish.config.dpo import DPOConfig
from burnish.config.grpo import GRPOConfig
from burnish.config.reward import RewardConfig
from burnish.config.rloo import RLOOConfig
from burnish.config.sft import SFTConfig
from burnish.demo import load_path, make_pairs, make_rows, score
from burnish.methods.dpo import DPOTrainer
from burnish.methods.grpo import GRPOTrainer
from burnish.methods.reward import RewardTrainer
from burnish.methods.rloo import RLOOTrainer
from burnish.methods.sft import SFTTrainer
from burnish.report.page import write_report
from burnish.rewards.samples import Sample

Rows = Sequence[Mapping[str, Any]]

FOLDER = Path("runs/demo")
FORMS = {"shown": "asked in the forms it was shown", "new": "asked in new forms"}
HELD_OUT = 200
INTRODUCTION = """\
A model of 1.3 million parameters comes with Burnish. It has read equations such as 47+38=77+8=85 and short sentences, and
never a question. It learns in four stages. None of the held-out sums and differences is in anything it learns from; half of the
held-out questions are asked in forms of which no example shows how they are answered.

Stage 1, sft: 9,000 examples show how questions are answered.
"""
JUDGE = """
Stage 2, reward: a copy learns to tell right answers from wrong ones, which add instead of subtracting, or the reverse, or are a ten off.
"""
JUDGED = "\nOf {n} held-out pairs the reward model prefers the right answer in {share:.1%} (standard error {error:.1%}).\n"
PREFER = """\
Stage 3, dpo: asked {n} training questions in new forms, the model gives {k} answers to each, drawn at random. Where some are right and
some are wrong, a right one is preferred to a wrong one: no answer is shown that it did not give itself. {kept} pairs like those of
stage 2 keep up the forms that it was shown.
"""
REINFORCE = """
Stage 4, grpo: the model of stage 1 is asked questions in new forms, and some in those it was shown, gives eight answers to each, and is
told of each whether it is right. No answer is shown at all, and none is preferred.
"""
NEXT = """
The models and what they were made of are in {folder}, {folder}/judge, {folder}/dpo and {folder}/grpo; it all took {seconds:.0f} seconds.

  The report, with every curve and every sampled answer: {report}

To try next:
  burnish inspect sft --model_name_or_path {folder} --dataset_name {folder}/new.jsonl --assistant_only_loss
  burnish inspect dpo --model_name_or_path {folder} --dataset_name {folder}/scored.jsonl
  burnish inspect samples --output_dir {folder}/grpo
  burnish compare {folder}/dpo {folder}/grpo
  burnish sft --model_name_or_path {folder} --dataset_name {folder}/train.jsonl --assistant_only_loss --output_dir runs/mine
  burnish sft --help"""
SMALL: dict[str, Any] = {"overwrite_output_dir": True, "save_strategy": "no", "compute_dtype": "float32", "logging_steps": 10}
"""What the stages share."""


def run() -> int:
    """Trains for about four minutes on two cores, into `runs/demo`; returns 0."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()  # that a reward model's head is new
    # threads that wait for each other gain a model this small little, and cost it much where other programs use the cores
    torch.set_num_threads(1)
    begun = time.monotonic()
    print(INTRODUCTION)
    train = make_rows(9000, seed=0, split="train")
    held_out = {forms: make_rows(HELD_OUT, seed=0, split="test", forms=forms) for forms in ("shown", "new")}
    for name, rows in {"train": train, **held_out}.items():
        write_jsonl(FOLDER / f"{name}.jsonl", rows)
    answers = {"before": answer_all(load_path(), held_out)}
    fine_tune(train, held_out["shown"][:100])
    answers["sft"] = answer_all(FOLDER, held_out)

    print(JUDGE)
    learn_to_judge(FOLDER, FOLDER / "judge")

    asked, known = make_rows(500, seed=1, split="train", forms="new"), make_pairs(120, seed=1, split="train")
    print(PREFER.format(n=len(asked), k=8, kept=len(known)))
    scored = own_answers(FOLDER, asked, n=8)
    scored += [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]], "scores": [1.0, 0.0]} for pair in known]
    write_jsonl(FOLDER / "scored.jsonl", scored)
    prefer(FOLDER, FOLDER / "dpo", scored)
    answers["dpo"] = answer_all(FOLDER / "dpo", held_out)

    print(REINFORCE)
    learner = reinforcement(FOLDER, FOLDER / "grpo")
    learner.train()
    learner.save_model()
    answers["grpo"] = answer_all(FOLDER / "grpo", held_out)

    report(held_out, answers)
    page = write_report([FOLDER, *(FOLDER / stage for stage in ("judge", "dpo", "grpo"))], FOLDER / "report.html")
    print(NEXT.format(folder=FOLDER, report=page.resolve(), seconds=time.monotonic() - begun))
    return 0


def report(held_out: Mapping[str, Rows], answers: Mapping[str, Mapping[str, list[str]]]) -> None:
    """The shares of right answers after each stage, and a few of the last."""
    print(f"\nRight of {HELD_OUT} held-out questions each " + "".join(f"{stage:>15}" for stage in answers))
    for forms, rows in held_out.items():
        shares = [share_right(said[forms], rows) for said in answers.values()]
        print(f"  {FORMS[forms]:35}" + "".join(f"{share:8.0%} ± {standard_error(share, len(rows)):4.1%}" for share in shares))
    print("  (± one standard error)\n")
    last = list(answers.values())[-1]
    for forms, n in (("shown", 3), ("new", 2)):
        for row, said in zip(held_out[forms][:n], last[forms], strict=False):
            verdict = "right" if score(said, row) else f"wrong, it is {row['answer']}"
            print(f"  {row['messages'][0]['content']}  →  {said}  ({verdict})")


def fine_tune(train: Rows, held_out: Rows) -> None:
    """From the embedded model to the one in `FOLDER`."""
    args = SFTConfig(
        output_dir=str(FOLDER),
        assistant_only_loss=True,
        batch_size=48,
        max_steps=180,
        learning_rate=2e-3,
        warmup_steps=10,
        eval_strategy="steps",
        eval_steps=30,
        **SMALL,
    )
    trainer = SFTTrainer(str(load_path()), args, train_dataset=train, eval_dataset=held_out)
    trainer.train()
    trainer.save_model()


def learn_to_judge(model_path: Path, folder: Path, *, steps: int = 180, held_out: int = 400) -> float:
    """Trains a reward model on pairs whose better answer is known; the share of held-out pairs in which it prefers the right one."""
    args = RewardConfig(output_dir=str(folder), batch_size=24, max_steps=steps, learning_rate=1e-3, warmup_steps=0.1, **SMALL)
    trainer = RewardTrainer(str(model_path), args, train_dataset=make_pairs(24 * steps, seed=0, split="train"))
    trainer.train()
    trainer.save_model()
    share = trainer.evaluate(make_pairs(held_out, seed=0, split="test"))["eval_accuracy"]
    print(JUDGED.format(n=held_out, share=share, error=standard_error(share, held_out)))
    return share


def prefer(model_path: Path, folder: Path, scored: Rows, *, steps: int = 60) -> None:
    """Learns from the best and the worst of each question's answers; `sft` beside DPO's own loss keeps the better ones likely."""
    args = DPOConfig(
        output_dir=str(folder),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 3.0],
        batch_size=16,
        max_steps=steps,
        learning_rate=2e-4,
        warmup_steps=0.1,
        **SMALL,
    )
    trainer = DPOTrainer(str(model_path), args=args, train_dataset=scored)
    trainer.train()
    trainer.save_model()


def right(sample: Sample) -> float:
    """The reward: 1 where the last number of the answer is the row's."""
    return float(score(sample.text, sample.columns))


def reinforcement(model_path: Path, folder: Path, *, steps: int = 60, seed: int = 0, rloo: bool = False, held_out: Any = None) -> Any:
    """A trainer that learns from verified answers to 24 questions a step, two thirds of them in new forms."""
    options: dict[str, Any] = {"output_dir": str(folder), "max_steps": steps, "batch_size": 24, "num_generations": 8, "seed": seed}
    options |= {"max_completion_length": 24, "learning_rate": 4e-4, "warmup_steps": 0.1, "reward_workers": 1}
    options |= {"beta": 0.0, "eval_sampling": {"temperature": 0}, **SMALL}
    drawn = make_rows(3000, seed=10 + seed, split="train", forms="new") + make_rows(1500, seed=20 + seed, split="train")
    kind: Any = RLOOTrainer if rloo else GRPOTrainer
    args = RLOOConfig(**options) if rloo else GRPOConfig(**options)
    return kind(str(model_path), right, args, train_dataset=as_prompts(drawn), eval_dataset=held_out)


def as_prompts(rows: Rows) -> list[dict[str, Any]]:
    """Questions without their worked answers; the result stays, for the reward alone."""
    return [{"prompt": row["messages"][:1], "answer": row["answer"]} for row in rows]


def own_answers(model_path: Path, rows: Rows, n: int) -> list[dict[str, Any]]:
    """`n` answers to each question, drawn from the model: rows with `prompt`, `completions` and `scores`, 1 for a right answer."""
    torch.manual_seed(0)
    said = answer(model_path, rows, do_sample=True, top_k=0, num_return_sequences=n)
    scored = []
    for i, row in enumerate(rows):
        mine = said[i * n : (i + 1) * n]
        completions = [[{"role": "assistant", "content": one}] for one in mine]
        scored.append({"prompt": row["messages"][:1], "completions": completions, "scores": [float(score(one, row)) for one in mine]})
    return scored


def answer_all(model_path: Path, held_out: Mapping[str, Rows]) -> dict[str, list[str]]:
    return {forms: answer(model_path, rows) for forms, rows in held_out.items()}


@torch.no_grad()
def answer(model_path: Path, rows: Rows, **sampling: Any) -> list[str]:
    """Answers to the rows' questions, greedy unless said otherwise, by transformers alone: what is scored is what was saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    questions = [tokenizer.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True) for row in rows]
    answers: list[str] = []
    for first in range(0, len(questions), 50):
        prompts = tokenizer(questions[first : first + 50], padding=True, return_tensors="pt", add_special_tokens=False)
        tokens = model.generate(**prompts, max_new_tokens=24, **{"do_sample": False} | sampling)
        answers += tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def share_right(answers: Iterable[str], rows: Rows) -> float:
    return sum(map(score, answers, rows)) / len(rows)


def standard_error(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
