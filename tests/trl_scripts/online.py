"""As `tests/trl_scripts/scripts.py`, for the methods that sample."""

QUICK = {
    "{page}, Quick start": """
from datasets import load_dataset
from trl import {method}Trainer
from trl.rewards import accuracy_reward

dataset = load_dataset("trl-lib/DeepMath-103K", split="train")

trainer = {method}Trainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=accuracy_reward,
    train_dataset=dataset,
)
trainer.train()
""",
    "{page}, Example 1: Reward longer completions": """
from datasets import load_dataset
from trl import {method}Trainer

def reward_func(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]

trainer = {method}Trainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=reward_func,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
)
trainer.train()
""",
    "{page}, Example 2: Reward completions with a specific format": """
import re
from datasets import load_dataset
from trl import {method}Trainer

def format_reward_func(completions, **kwargs):
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    completion_contents = [completion[0]["content"] for completion in completions]
    matches = [re.match(pattern, content) for content in completion_contents]
    return [1.0 if match else 0.0 for match in matches]

trainer = {method}Trainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=format_reward_func,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
)
trainer.train()
""",
    "{page}, Example 3: Reward completions based on a reference": """
import re
from datasets import Dataset
from trl import {method}Trainer

def reward_func(completions, ground_truth, **kwargs):
    matches = [re.search(r"\\\\boxed\\{(.*?)\\}", completion) for completion in completions]
    contents = [match.group(1) if match else "" for match in matches]
    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth)]

prompts = ["Problem: Solve the equation $2x + 3 = 7$. Solution:", "Problem: Solve the equation $3x - 5 = 10$."]
dataset = Dataset.from_dict({"prompt": prompts, "ground_truth": ["2", "5"]})
trainer = {method}Trainer(model="Qwen/Qwen2.5-0.5B-Instruct", reward_funcs=reward_func, train_dataset=dataset)
trainer.train()
""",
    "{page}, Example 4: Multi-task reward functions": """
from datasets import Dataset
from trl import {method}Trainer

dataset = Dataset.from_list(
    [
        {"prompt": "What is 2+2?", "task": "math"},
        {"prompt": "Write a function that returns the sum of two numbers.", "task": "code"},
        {"prompt": "What is 3*4?", "task": "math"},
        {"prompt": "Write a function that returns the product of two numbers.", "task": "code"},
    ]
)

def math_reward_func(prompts, completions, task, **kwargs):
    rewards = []
    for prompt, completion, t in zip(prompts, completions, task):
        if t == "math":
            correct = "4" in completion or "12" in completion
            reward = 1.0 if correct else -1.0
            rewards.append(reward)
        else:
            rewards.append(None)
    return rewards

def coding_reward_func(prompts, completions, task, **kwargs):
    rewards = []
    for prompt, completion, t in zip(prompts, completions, task):
        if t == "coding":
            works = "return" in completion
            reward = 1.0 if works else -1.0
            rewards.append(reward)
        else:
            rewards.append(None)
    return rewards

trainer = {method}Trainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=[math_reward_func, coding_reward_func],
    train_dataset=dataset,
)

trainer.train()
""",
    "{page}, Example 5: Asynchronous reward functions": """
import asyncio
from datasets import load_dataset
from trl import {method}Trainer

async def async_reward_func(prompts, completions, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0 if completion else 0.0 for completion in completions]

trainer = {method}Trainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=async_reward_func,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
)
trainer.train()
""",
    "{page}, Example 6: Logging extra columns and metrics": """
import re
from datasets import Dataset
from trl import {method}Trainer

def reward_func(completions, ground_truth, log_extra=None, log_metric=None, **kwargs):
    extracted = [re.search(r"\\\\boxed\\{(.*?)\\}", c) for c in completions]
    extracted = [m.group(1) if m else None for m in extracted]
    rewards = [1.0 if e == gt else 0.0 for e, gt in zip(extracted, ground_truth)]

    if log_extra:
        log_extra("golden_answer", list(ground_truth))
        log_extra("extracted_answer", [e or "[none]" for e in extracted])

    if log_metric:
        log_metric("accuracy", sum(rewards) / len(rewards))

    return rewards

dataset = Dataset.from_dict({"prompt": ["What is 2+2?", "What is 3*4?"], "ground_truth": ["4", "12"]})
trainer = {method}Trainer(model="Qwen/Qwen2.5-0.5B-Instruct", reward_funcs=reward_func, train_dataset=dataset)
trainer.train()
""",
}


def of(page: str, method: str) -> dict[str, str]:
    return {name.replace("{page}", page): text.replace("{method}", method) for name, text in QUICK.items()}


GRPO = of("grpo_trainer", "GRPO") | {
    "grpo_trainer, Speed up training with transformers continuous batching": """
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward

training_args = GRPOConfig(
    use_transformers_continuous_batching=True,
    transformers_continuous_batching_config={
        "use_cuda_graph": False,
        "max_memory_percent": 0.4,
    },
)
trainer = GRPOTrainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    args=training_args,
    reward_funcs=accuracy_reward,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
)
trainer.train()
""",
    "grpo_trainer, Entropy regularization": """
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward

training_args = GRPOConfig(
    entropy_coef=0.01,
    use_adaptive_entropy=True,
    entropy_target=5.0,
    entropy_coef_delta=0.005,
    entropy_coef_min=0.0,
    entropy_coef_max=1.0,
)
trainer = GRPOTrainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    args=training_args,
    reward_funcs=accuracy_reward,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
)
trainer.train()
""",
    "grpo_trainer, Tools": """
from datasets import load_dataset
from trl import GRPOTrainer
from trl.rewards import accuracy_reward

def multiply(a: int, b: int) -> int:
    \"\"\"
    Multiplies two integers.

    Args:
        a: The first integer.
        b: The second integer.

    Returns:
        The product of the two integers.
    \"\"\"
    return a * b

async def async_add(a: int, b: int) -> int:
    \"\"\"
    Asynchronously adds two integers.

    Args:
        a: The first integer.
        b: The second integer.

    Returns:
        The sum of the two integers.
    \"\"\"
    return a + b

trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B",
    reward_funcs=accuracy_reward,
    train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
    tools=[multiply, async_add],
)
trainer.train()
""",
    "grpo_trainer, Environments": """
import random

from trl import GRPOConfig, GRPOTrainer

class IncrementEnv:
    def reset(self, **kwargs) -> str | None:
        self.counter = 0
        self.target = random.randint(1, 6)
        return f"Increment the counter by {self.target}."

    def get_reward(self) -> float:
        return float(self.counter == self.target)

    def increment(self, step: int) -> int:
        \"\"\"
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        \"\"\"
        self.counter += step
        return self.counter

trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B",
    args=GRPOConfig(max_steps=1000, chat_template_kwargs={"enable_thinking": False}),
    environment_factory=IncrementEnv,
)
trainer.train()
""",
    "grpo_trainer, Providing an external dataset (optional)": """
from datasets import Dataset
from trl import GRPOTrainer

dataset = Dataset.from_dict(
    {
        "prompt": [[{"role": "user", "content": f"Increment the counter to {i}."}] for i in range(1, 7)],
        "target": list(range(1, 7)),
    }
)

class IncrementEnv:
    def reset(self, target, **kwargs) -> None:
        self.counter = 0
        self.target = target

    def get_reward(self) -> float:
        return float(self.counter == self.target)

    def increment(self, step: int) -> int:
        \"\"\"
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        \"\"\"
        self.counter += step
        return self.counter

trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B",
    train_dataset=dataset,
    environment_factory=IncrementEnv,
)
trainer.train()
""",
    "grpo_trainer, Rewards": """
from trl import GRPOConfig, GRPOTrainer

def format_reward(completions, **kwargs):
    return [float("=" in completion[-1]["content"]) for completion in completions]

class IncrementEnv:
    def reset(self, **kwargs) -> str | None:
        self.counter = 0
        return "Increment the counter by 3."

    def get_reward(self) -> float:
        return float(self.counter == 3)

    def increment(self, step: int) -> int:
        \"\"\"
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        \"\"\"
        self.counter += step
        return self.counter

trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B",
    args=GRPOConfig(max_steps=1000),
    reward_funcs=format_reward,
    environment_factory=IncrementEnv,
)
trainer.train()
""",
    "grpo_trainer, Multiple environments": """
import random

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


class CodingEnv:
    def reset(self, **kwargs) -> str:
        n = random.randint(1, 20)
        return f"Compute the {n}th Fibonacci number."

    def run_code(self, code: str) -> str:
        \"\"\"Run the given Python code and return its stdout.

        Args:
            code: The Python source to execute.

        Returns:
            The captured standard output.
        \"\"\"
        ...

class GameEnv:
    def reset(self, **kwargs) -> str:
        return "Reach the goal tile."

    def move(self, action: str) -> str:
        \"\"\"Apply an action to the game and return the new observation.

        Args:
            action: One of "up", "down", "left", "right".

        Returns:
            The observation after the move.
        \"\"\"
        ...

def reward_func(completions, **kwargs):
    return [float(len(completion)) for completion in completions]

dataset = Dataset.from_dict({"environment": ["coding", "game"] * 500})

trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B",
    args=GRPOConfig(chat_template_kwargs={"enable_thinking": False}),
    train_dataset=dataset,
    reward_funcs=reward_func,
    environment_factory={"coding": CodingEnv, "game": GameEnv},
)
trainer.train()
""",
}
RLOO = of("rloo_trainer", "RLOO")
