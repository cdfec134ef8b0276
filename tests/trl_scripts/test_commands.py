"""The commands of TRL's README, quick start and pages, with `burnish` in the place of `trl`."""

import json
import shlex

import pytest

from burnish.cli.main import main

COMMANDS = {
    "README, SFT": "trl sft --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name trl-lib/Capybara --output_dir Qwen2.5-0.5B-SFT",
    "quickstart, Command Line Interface (DPO)": (
        "trl dpo --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized"
    ),
    "quickstart, Command Line Interface (Reward)": (
        "trl reward --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset_name trl-lib/ultrafeedback_binarized"
    ),
    "kto_trainer, Example script": (
        "accelerate launch trl/scripts/kto.py --model_name_or_path Qwen/Qwen2-0.5B-Instruct --dataset_name trl-lib/kto-mix-14k "
        "--num_train_epochs 1 --output_dir Qwen2-0.5B-KTO"
    ),
}
FOLDERS = {"dpo": "runs/dpo", "reward": "runs/reward"}
"""Where no output_dir is given."""


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name, here):
    words = shlex.split(COMMANDS[name].replace("accelerate launch trl/scripts/kto.py", "trl kto"))[1:]
    assert main(words) == 0
    folder = here / (words[words.index("--output_dir") + 1] if "--output_dir" in words else FOLDERS[words[0]])
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] == (1 if "--num_train_epochs" in words else 3)
    assert (folder / "model.safetensors").is_file()
