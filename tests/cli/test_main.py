"""The command line as a user meets it: exit status, one sentence on stderr, and torch not imported before it is needed."""

import json
import subprocess
import sys
from types import ModuleType

import pytest

from burnish.cli.main import COMMANDS, METHODS, main
from burnish.config import (
    BCOConfig,
    CPOConfig,
    DataConfig,
    DPOConfig,
    GRPOConfig,
    KTOConfig,
    ModelConfig,
    ORPOConfig,
    PRMConfig,
    RewardConfig,
    RLOOConfig,
    SFTConfig,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a model (as far as early checks look), rows, and rows of no format."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 3)
    (tmp_path / "bad.jsonl").write_text('{"txt": "a"}\n' * 3)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3)
    (tmp_path / "steps.jsonl").write_text('{"prompt": "a", "completions": ["b", "c"], "labels": [true, false]}\n' * 3)
    return tmp_path


def train_with(monkeypatch, run, method="sft", trainer="SFTTrainer"):
    """`run(model, data, args)` in the place of a training."""
    stand_in(monkeypatch, f"burnish.methods.{method}", **{trainer: None})
    stand_in(monkeypatch, "burnish.cli.train", run_training=lambda trainer_class, model, data, args: run(model, data, args))


def stand_in(monkeypatch, module, **functions):
    """Puts a module in the place of one that imports torch."""
    fake = ModuleType(module)
    vars(fake).update(functions)
    monkeypatch.setitem(sys.modules, module, fake)


SFT = ["sft", "--model_name_or_path", "model", "--dataset_name", "rows.jsonl"]


def test_sft_is_given_its_three_configurations(folder, monkeypatch):
    seen = []
    train_with(monkeypatch, lambda model, data, args: seen.append((model, data, args)) or 0)
    assert main([*SFT, "--per_device_train_batch_size", "2", "--bf16"]) == 0
    assert seen == [
        (
            ModelConfig(model_name_or_path="model", compute_dtype="bfloat16"),
            DataConfig(dataset_name="rows.jsonl"),
            SFTConfig(batch_size=2, compute_dtype="bfloat16"),
        )
    ]


def test_inspect_takes_the_flags_of_sft_and_a_number_of_rows(folder, monkeypatch):
    seen = inspect_with(monkeypatch, "sft")
    assert main(["inspect", *SFT, "--max_length", "7"]) == 0
    assert main(["inspect", *SFT, "--rows", "5"]) == 0
    assert seen == [("sft's options", SFTConfig(max_length=7), 3), ("sft's options", SFTConfig(), 5)]


def inspect_with(monkeypatch, method):
    """What `inspect` is given, in the place of what it shows."""
    seen = []

    def inspect_rows(prepare_options, model, data, args, *, rows):
        seen.append((prepare_options, args, rows))
        return 0

    stand_in(monkeypatch, f"burnish.methods.{method}", prepare_options=f"{method}'s options")
    stand_in(monkeypatch, "burnish.cli.inspect", inspect_rows=inspect_rows)
    return seen


OTHERS = {
    "dpo": (DPOConfig, "DPOTrainer", "pairs"),
    "kto": (KTOConfig, "KTOTrainer", "pairs"),
    "orpo": (ORPOConfig, "ORPOTrainer", "pairs"),
    "cpo": (CPOConfig, "CPOTrainer", "pairs"),
    "bco": (BCOConfig, "BCOTrainer", "pairs"),
    "reward": (RewardConfig, "RewardTrainer", "pairs"),
    "prm": (PRMConfig, "PRMTrainer", "steps"),
}
ONLINE = {"grpo": (GRPOConfig, "GRPOTrainer"), "rloo": (RLOOConfig, "RLOOTrainer")}


def of_method(method, *more):
    rows = OTHERS[method][2] if method in OTHERS else "prompts"
    return [method, "--model_name_or_path", "model", "--dataset_name", f"{rows}.jsonl", "--learning_rate", "1e-3", *more]


@pytest.mark.parametrize("method", ONLINE)
def test_each_method_that_samples_is_given_its_own_configuration(folder, monkeypatch, capsys, method):
    (folder / "prompts.jsonl").write_text('{"prompt": "Add 1 and 2.", "answer": "3"}\n')
    cls, trainer = ONLINE[method]
    seen, shown = [], []
    train_with(monkeypatch, lambda *given: seen.append(given) or 0, method, trainer)
    assert main(of_method(method, "--reward_funcs", "exact")) == 0
    args = cls(learning_rate=1e-3, reward_funcs=["exact"])
    assert seen == [(ModelConfig(model_name_or_path="model"), DataConfig(dataset_name="prompts.jsonl"), args)]

    def inspect_prompts(model, data, args, *, rows):
        shown.append((args, rows))
        return 0

    stand_in(monkeypatch, "burnish.cli.inspect_prompts", inspect_prompts=inspect_prompts)
    assert main(["inspect", *of_method(method, "--reward_funcs", "exact")]) == 0
    assert shown == [(args, 3)]
    assert main(of_method(method)) == 2
    assert capsys.readouterr().err == (
        "error: No reward is named; give --reward_funcs, such as accuracy_reward, or my_rewards.py:my_function.\n"
    )


@pytest.mark.parametrize("method", OTHERS)
def test_each_method_is_given_its_own_configuration(folder, monkeypatch, method):
    cls, trainer, rows = OTHERS[method]
    seen = []
    train_with(monkeypatch, lambda *given: seen.append(given) or 0, method, trainer)
    assert main(of_method(method)) == 0
    wanted = (ModelConfig(model_name_or_path="model"), DataConfig(dataset_name=f"{rows}.jsonl"), cls(learning_rate=1e-3))
    assert seen == [wanted]
    shown = inspect_with(monkeypatch, method)
    assert main(["inspect", *of_method(method)]) == 0
    assert shown == [(f"{method}'s options", cls(learning_rate=1e-3), 3)]


def test_every_method_has_its_commands():
    assert set(METHODS) == {"sft", *OTHERS, *ONLINE}
    shown = {*METHODS, "samples"}
    assert {f"inspect {one}" for one in shown} == {name for name in COMMANDS if name.startswith("inspect ")}
    assert set(METHODS) < set(COMMANDS)


def test_merge(folder, monkeypatch, capsys):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    stand_in(monkeypatch, "burnish.models.export", merge_adapter=lambda adapter, output_dir: output_dir)
    assert main(["merge", "--adapter", "adapter", "--output_dir", "out"]) == 0
    assert capsys.readouterr().out == "The merged model is in out.\n"


def test_demo(monkeypatch):
    stand_in(monkeypatch, "burnish.cli.demo", run=lambda: 7)
    assert main(["demo"]) == 7


REFUSED = [
    (["stf"], "burnish has no command 'stf'; the nearest is 'sft'."),
    (["xyzzy"], "burnish has no command 'xyzzy'; burnish --help lists those it has."),
    (["inspect"], "burnish has no command 'inspect'; the nearest is 'inspect sft'."),
    (["inspect", "--help"], "burnish has no command 'inspect'; the nearest is 'inspect sft'."),
    (["inspect", "dpoo"], "burnish has no command 'inspect dpoo'; the nearest is 'inspect dpo'."),
    (["plan", "dpo"], "burnish has no command 'plan dpo'; the nearest is 'plan sft'."),
    (["dpoo", "x"], "burnish has no command 'dpoo'; the nearest is 'dpo'."),
    (["dpo", "--betta", "1"], "burnish dpo has no option --betta; the nearest is --beta."),
    (["orpo", "--sync_ref_model"], "burnish orpo has no option --sync_ref_model."),
    (
        ["dpo", "--loss_type", "ipo", "--discopop_tau", "0.1"],
        "discopop_tau=0.1 has no effect on loss_type=['ipo']; leave it out, or use discopop.",
    ),
    (["sft", "--learning_rat", "1"], "burnish sft has no option --learning_rat; the nearest is --learning_rate."),
    (["inspect", "sft", "--row", "1"], "burnish inspect sft has no option --row; the nearest is --rows."),
    (["demo", "--fast"], "burnish demo has no option --fast."),
    (["sft", "--learning_rate", "-1"], "learning_rate must be a number above 0, not -1.0."),
    (["merge", "--adapter", "a"], "burnish merge needs --output_dir."),
    (
        ["merge", "--adapter", "model", "--output_dir", "out"],
        "adapter='model' must be a folder that holds adapter_config.json, and this one does not.",
    ),
    (
        ["merge", "--adapter", "rows.jsonl", "--output_dir", "out"],
        "adapter='rows.jsonl' must be a folder that holds adapter_config.json, and this is a file.",
    ),
    (
        ["sft", "--model_name_or_path", "model", "--dataset_name", "bad.jsonl"],
        "bad.jsonl line 1 has the columns ['txt'], but a row needs 'text', 'conversations', 'messages', 'prompt'+'completion', 'input_ids' "
        "or a formatting_func: column 'txt' looks like 'text'.",
    ),
]


@pytest.mark.parametrize(("argv", "sentence"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_refusals_are_one_sentence_and_exit_status_2(folder, capsys, argv, sentence):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {sentence}\n"
    assert captured.out == ""


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and command.help in shown for name, command in COMMANDS.items())
    assert main([]) == 2
    assert capsys.readouterr().err == shown
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("burnish ")
    for name in COMMANDS:
        assert main([*name.split(), "--help"]) == 0
        assert f"usage: burnish {name} " in capsys.readouterr().out


def test_ctrl_c_is_130(folder, monkeypatch, capsys):
    def interrupted(model, data, args):
        raise KeyboardInterrupt

    train_with(monkeypatch, interrupted)
    assert main(SFT) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_fault_keeps_its_traceback(folder, monkeypatch):
    def faulty(model, data, args):
        raise ValueError("a fault")

    train_with(monkeypatch, faulty)
    with pytest.raises(ValueError, match="a fault"):
        main(SFT)


QUICK = [
    (["--help"], 0),
    (["sft", "--help"], 0),
    (["dpo", "--help"], 0),
    (["inspect", "reward", "--help"], 0),
    (["sft", "--learning_rat", "1"], 2),
    (["sft", "--model_name_or_path", "model", "--dataset_name", "bad.jsonl"], 2),
]


@pytest.mark.parametrize(("argv", "status"), QUICK, ids=[" ".join(argv) for argv, _ in QUICK])
def test_torch_is_not_imported_to_answer(folder, argv, status):
    code = (
        "import json, sys\nfrom burnish.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "heavy = [name for name in ('torch', 'transformers', 'datasets', 'peft') if name in sys.modules]\n"
        "print('\\n' + json.dumps([status, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [status, []]


@pytest.mark.parametrize("words", [["dpo"], ["inspect", "kto"], ["sft"], ["plan", "sft"]], ids=" ".join)
def test_help_imports_no_other_method_s_options(words):
    code = (
        "import json, sys\nfrom burnish.cli.main import METHODS, main\nmain([*sys.argv[1:], '--help'])\n"
        "print('\\n' + json.dumps([name for name in METHODS if f'burnish.config.{name}' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == words[-1:]


def test_python_m_burnish(folder):
    done = subprocess.run([sys.executable, "-m", "burnish", "sft"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: No model is named; give --model_name_or_path, a local folder or a hub id.\n"


def test_a_reader_that_leaves_early_is_no_fault(folder):
    command = f"{sys.executable} -m burnish sft --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "usage: burnish sft [-h] [OPTIONS]\n"
    assert done.stderr == ""
