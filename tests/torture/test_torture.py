"""kill -9 at any moment: the same command, given again, ends with the same bits and the same lines. bench/torture.py is the long form."""

from collections import Counter

from tests.tiny import chats, save_tiny_model, write_rows
from tests.torture.runs import KINDS, server, torture

KILLS = 20


def test_a_run_that_is_killed_twenty_times_ends_like_one_that_was_left_alone(tmp_path):
    model = save_tiny_model(tmp_path / "model", attention_dropout=0.1)
    rows = write_rows(tmp_path / "train.jsonl", chats(40))
    options = {
        "model_name_or_path": model,
        "dataset_name": rows,
        "test_split_size": 8,
        "batch_size": 4,
        "max_steps": 12,
        "learning_rate": 0.1,  # the best model is not the last one
        "compute_dtype": "float32",
        "logging_steps": 3,  # meters are carried over checkpoints
        "save_steps": 2,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": 5,
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def arguments(run):
        return ["sft", *flags, "--assistant_only_loss", "--load_best_model_at_end", "--output_dir", str(run)]

    deaths = list(torture(server(), arguments, tmp_path, kills=KILLS, seed=3))

    assert len(deaths) == KILLS
    kinds = Counter(death.moment.kind for death in deaths)
    assert set(kinds) == {*KINDS, "clock"}
    assert kinds["save"] + kinds["publish"] >= 4
    assert sum(death.after == 0 for death in deaths) >= 3  # before the first checkpoint
    assert sum(death.before > 0 for death in deaths) >= 5  # a run that had been resumed
