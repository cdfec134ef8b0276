"""Scripts as the README and the documentation of TRL have them: the same calls with the same arguments, for its 1.x releases.

Each stands under the page and the heading where TRL has it. `tests/trl_scripts/test_*.py` change their import lines and run them; the
models and data that they name are folders of these names there. Where a page shows a part of a script only (a configuration, a reward
function), the rest is that page's quick start.
"""

CHATS, PAIRS, LABELLED = "trl-lib/Capybara", "trl-lib/ultrafeedback_binarized", "trl-lib/kto-mix-14k"


def plain(method: str, model: str, rows: str) -> str:
    return f"""
from datasets import load_dataset
from trl import {method}Trainer

dataset = load_dataset("{rows}", split="train")

trainer = {method}Trainer(
    model="{model}",
    train_dataset=dataset,
)
trainer.train()
"""


def sft(options: str, model: str = "Qwen/Qwen3-0.6B") -> str:
    return f"""
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

training_args = SFTConfig({options})
trainer = SFTTrainer(model="{model}", args=training_args, train_dataset=load_dataset("{CHATS}", split="train"))
trainer.train()
"""


def new_adapter(method: str, model: str, rows: str, options: str = "") -> str:
    return f"""
from datasets import load_dataset
from trl import {method}Trainer
from peft import LoraConfig

dataset = load_dataset("{rows}", split="train")

trainer = {method}Trainer(
    "{model}",
    train_dataset=dataset,
    peft_config=LoraConfig({options})
)

trainer.train()
"""


def old_adapter(method: str, rows: str) -> str:
    return f"""
from datasets import load_dataset
from trl import {method}Trainer
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("trl-lib/Qwen3-4B-LoRA", is_trainable=True)
dataset = load_dataset("{rows}", split="train")

trainer = {method}Trainer(
    model=model,
    train_dataset=dataset,
)

trainer.train()
"""


SFT = {
    "README, SFTTrainer": plain("SFT", "Qwen/Qwen2.5-0.5B", CHATS),
    "sft_trainer, Expected dataset type and format": """
from datasets import load_dataset
from trl import SFTTrainer

dataset = load_dataset("FreedomIntelligence/medical-o1-reasoning-SFT", "en")

def preprocess_function(example):
    return {
        "prompt": [{"role": "user", "content": example["Question"]}],
        "completion": [
            {"role": "assistant", "content": f"<think>{example['Complex_CoT']}</think>{example['Response']}"}
        ],
    }

dataset = dataset.map(preprocess_function, remove_columns=["Question", "Response", "Complex_CoT"])

trainer = SFTTrainer(model="Qwen/Qwen3-0.6B", train_dataset=dataset["train"])
trainer.train()
""",
    "sft_trainer, Model initialization": "import torch" + sft('model_init_kwargs={"dtype": torch.bfloat16}'),
    "sft_trainer, Model initialization (a model)": """
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM
from trl import SFTTrainer

model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-0.6B", dtype=torch.bfloat16)
trainer = SFTTrainer(model=model, train_dataset=load_dataset("trl-lib/Capybara", split="train"))
trainer.train()
""",
    "sft_trainer, Packing": sft("packing=True"),
    "sft_trainer, Train on assistant messages only": sft("assistant_only_loss=True"),
    "sft_trainer, Train on completion only": """
from trl import SFTConfig, SFTTrainer
from datasets import load_dataset

dataset = load_dataset("trl-lib/kto-mix-14k", split="train")

trainer = SFTTrainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    args=SFTConfig(completion_only_loss=True),
    train_dataset=dataset,
)
trainer.train()
""",
    "sft_trainer, Train adapters with PEFT": new_adapter("SFT", "Qwen/Qwen3-0.6B", CHATS),
    "sft_trainer, Train adapters with PEFT (one that is there)": old_adapter("SFT", CHATS),
    "sft_trainer, Instruction tuning example": """
from trl import SFTConfig, SFTTrainer
from datasets import load_dataset

trainer = SFTTrainer(
    model="Qwen/Qwen3-0.6B-Base",
    args=SFTConfig(
        output_dir="Qwen3-0.6B-Instruct",
        chat_template_path="HuggingFaceTB/SmolLM3-3B",
    ),
    train_dataset=load_dataset("trl-lib/Capybara", split="train"),
)
trainer.train()
""",
    "quickstart, Out of Memory?": sft("per_device_train_batch_size=1, gradient_accumulation_steps=8", "Qwen/Qwen2.5-0.5B"),
}
DPO = {
    "README, DPOTrainer": plain("DPO", "Qwen/Qwen3-0.6B", PAIRS),
    "dpo_trainer, Multi-loss combinations": """
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

training_args = DPOConfig(
    loss_type=["sigmoid", "bco_pair", "sft"],
    loss_weights=[0.8, 0.2, 1.0]
)
trainer = DPOTrainer(
    model="Qwen/Qwen3-0.6B",
    args=training_args,
    train_dataset=load_dataset("trl-lib/ultrafeedback_binarized", split="train"),
)
trainer.train()
""",
    "dpo_trainer, Train adapters with PEFT": new_adapter("DPO", "Qwen/Qwen3-0.6B", PAIRS),
    "dpo_trainer, Train adapters with PEFT (one that is there)": old_adapter("DPO", PAIRS),
}
KTO = {
    "README, KTOTrainer": plain("KTO", "Qwen/Qwen3-0.6B", LABELLED),
    "kto_trainer, Quick start": """
from datasets import load_dataset
from trl import KTOConfig, KTOTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2-0.5B-Instruct")
tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2-0.5B-Instruct")
train_dataset = load_dataset("trl-lib/kto-mix-14k", split="train")

training_args = KTOConfig(output_dir="Qwen2-0.5B-KTO")
trainer = KTOTrainer(model=model, args=training_args, processing_class=tokenizer, train_dataset=train_dataset)
trainer.train()
""",
    "kto_trainer, Train adapters with PEFT": new_adapter("KTO", "Qwen/Qwen2-0.5B-Instruct", LABELLED),
}
REWARD = {
    "README, RewardTrainer": plain("Reward", "Qwen/Qwen2.5-0.5B-Instruct", PAIRS),
    "reward_trainer, Model initialization": """
import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardTrainer

model = AutoModelForSequenceClassification.from_pretrained("Qwen/Qwen3-0.6B", num_labels=1, dtype=torch.bfloat16)
trainer = RewardTrainer(model=model, train_dataset=load_dataset("trl-lib/ultrafeedback_binarized", split="train"))
trainer.train()
""",
    "reward_trainer, Train adapters with PEFT": new_adapter("Reward", "Qwen/Qwen3-4B", PAIRS, 'modules_to_save=["score"]'),
}
