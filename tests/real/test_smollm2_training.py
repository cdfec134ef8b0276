"""Two optimizer steps on SmolLM2 against plain `transformers`: the loss of the first, and the model that is saved after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish import SFTConfig, SFTTrainer

DIALOGUES = [
    [("What is AI?", "The science of machines that think.")],
    [("Hello", "Hi"), ("How are you doing?", "I am doing well, and\n\n2 of my friends are, too.")],
    [("Tell me a joke", "No.")],
]
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
ROWS = [
    {"messages": [{"role": role, "content": text} for turn in dialogue for role, text in zip(("user", "assistant"), turn, strict=True)]}
    for dialogue in DIALOGUES
]


def trained(smollm2: Path, output: Path, **more: Any) -> SFTTrainer:
    args = SFTConfig(
        output_dir=str(output),
        assistant_only_loss=True,
        batch_size=len(ROWS),
        max_steps=2,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        compute_dtype="float32",
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        dataset_num_proc=1,
        dataset_cache_dir=str(output / "cache"),
    )
    trainer = SFTTrainer(str(smollm2), args, train_dataset=ROWS, **more)
    trainer.train()
    trainer.save_model(output / "model")
    return trainer


def mean_loss_by_hand(smollm2: Path) -> float:
    """Each row alone through plain transformers; targets are the assistant's words and its end-of-turn token."""
    tokenizer, model = AutoTokenizer.from_pretrained(smollm2), AutoModelForCausalLM.from_pretrained(smollm2)
    losses = []
    for dialogue in DIALOGUES:
        ids, targets = tokenizer(SYSTEM).input_ids, []
        for question, answer in dialogue:
            ids += tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").input_ids
            said = tokenizer(f"{answer}<|im_end|>").input_ids
            targets += range(len(ids), len(ids) + len(said))
            ids += said + tokenizer("\n").input_ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        losses.append(cross_entropy(logits[[t - 1 for t in targets]], torch.tensor(ids)[targets], reduction="none"))
    return torch.cat(losses).mean().item()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(1000, 1064)[None]).logits


def test_first_loss_is_the_one_plain_transformers_gives_and_the_saved_model_is_the_trained_one(smollm2: Path, tmp_path: Path) -> None:
    trainer = trained(smollm2, tmp_path)
    first, second = (line["loss"] for line in trainer.state.log_history if "loss" in line)
    assert first == pytest.approx(mean_loss_by_hand(smollm2), rel=1e-5)
    assert second < first
    start, saved = (AutoModelForCausalLM.from_pretrained(folder) for folder in (smollm2, tmp_path / "model"))
    assert saved.get_output_embeddings().weight is saved.get_input_embeddings().weight
    assert (logits(saved) - logits(trainer.model)).abs().max() <= 1e-4
    assert (logits(saved) - logits(start)).abs().max() > 0.1


def test_saved_adapter_is_the_trained_one(smollm2: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    trainer = trained(smollm2, tmp_path, peft_config=LoraConfig(r=8, target_modules="all-linear"))
    base, saved = (AutoModelForCausalLM.from_pretrained(folder) for folder in (smollm2, tmp_path / "model"))
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert (logits(saved) - logits(trainer.model)).abs().max() <= 1e-4
    assert (logits(saved) - logits(base)).abs().max() > 1e-3
