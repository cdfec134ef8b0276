"""Flags, YAML and both together; and the way back to YAML."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from burnish.config import Config, ConfigError, DataConfig, DatasetSource, ModelConfig, SFTConfig, config, option
from burnish.config.compare import CompareConfig
from burnish.config.flags import with_words
from burnish.config.parse import dump_yaml, parse, to_dict


@dataclass(frozen=True, kw_only=True)
class Command:
    model: ModelConfig
    data: DataConfig
    args: SFTConfig


@config
class Merge(Config):
    adapter: str = option(help="A folder.")
    output_dir: str = option(help="A folder.")


def parsed(*args):
    return parse(args, Command, prog="burnish sft")


def refusal(*args):
    with pytest.raises(ConfigError) as refused:
        parsed(*args)
    return str(refused.value)


FLAGS = [
    (["--learning_rate", "1e-4"], {"learning_rate": 1e-4}),
    (["--learning-rate", "1e-4"], {"learning_rate": 1e-4}),
    (["--learning_rate=1e-4"], {"learning_rate": 1e-4}),
    (["--max_length", "None"], {"max_length": None}),
    (["--max_steps", "5"], {"max_steps": 5}),
    (["--max_steps", "-1"], {}),
    (["--warmup_steps", "0.1"], {"warmup_steps": 0.1}),
    (["--assistant_only_loss"], {"assistant_only_loss": True}),
    (["--assistant_only_loss", "true"], {"assistant_only_loss": True}),
    (["--assistant_only_loss", "False"], {}),
    (["--no_assistant_only_loss"], {}),
    (["--completion_only_loss", "None"], {}),
    (["--no-completion-only-loss"], {"completion_only_loss": False}),
    (["--report_to", "wandb", "trackio"], {"report_to": ["wandb", "trackio"]}),
    (["--report_to", "wandb"], {"report_to": ["wandb"]}),
    (["--report_to", "none"], {}),
    (["--run_name", "2024"], {"run_name": "2024"}),
    (["--eos_token=--"], {"eos_token": "--"}),
    (["--lr_scheduler_kwargs", '{"num_cycles": 1}'], {"lr_scheduler_kwargs": {"num_cycles": 1}}),
    (["--optim_args", "a=1,b=x"], {"optim_args": {"a": 1, "b": "x"}}),
    (["--per_device_train_batch_size", "4", "--gradient-accumulation-steps", "2"], {"batch_size": 8}),
    (["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "8"], {"batch_size": 32}),
    (["--bf16"], {"compute_dtype": "bfloat16"}),
    (["--bf16", "false"], {"compute_dtype": "float32"}),
    (["--no_bf16"], {"compute_dtype": "float32"}),
    (["--gradient_checkpointing", "--gradient_checkpointing_kwargs", '{"use_reentrant": false}'], {"gradient_checkpointing": True}),
    (["--resume_from_checkpoint", "True"], {}),
    (["--resume_from_checkpoint", "false"], {"resume_from_checkpoint": "never"}),
    (["--resume_from_checkpoint", "runs/a/checkpoint-7"], {"resume_from_checkpoint": "runs/a/checkpoint-7"}),
    (["--max_grad_norm", "None"], {"max_grad_norm": 0.0}),
    (["--output_dir", "None"], {}),
    (["--seed", "1", "--seed", "2"], {"seed": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "said"), FLAGS, ids=[" ".join(flags) for flags, _ in FLAGS])
def test_flags(flags, said):
    assert parsed(*flags).args == SFTConfig(**said)


def test_flags_reach_every_configuration_that_has_them():
    command = parsed(
        "--bf16", "--trust_remote_code", "--use_peft", "--lora_target_modules", "q_proj", "v_proj", "--dataset_name", "a.jsonl"
    )
    assert command.model == ModelConfig(
        compute_dtype="bfloat16", trust_remote_code=True, use_peft=True, lora_target_modules=["q_proj", "v_proj"]
    )
    assert command.data == DataConfig(dataset_name="a.jsonl")
    assert command.args == SFTConfig(compute_dtype="bfloat16", trust_remote_code=True)


def test_a_configuration_is_a_command_by_itself():
    assert parse(["--adapter", "a", "--output_dir", "b"], Merge) == Merge(adapter="a", output_dir="b")
    with pytest.raises(ConfigError) as refused:
        parse([], Merge, prog="burnish merge")
    assert str(refused.value) == "burnish merge needs --adapter and --output_dir."


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--learning_rat", "1"], "burnish sft has no option --learning_rat; the nearest is --learning_rate."),
        (["--learning-rat=1"], "burnish sft has no option --learning_rat; the nearest is --learning_rate."),
        (["--per_device_train_batchsize"], "burnish sft has no option --per_device_train_batchsize; "
         "the nearest is --per_device_train_batch_size."),
        (["--zzzzz"], "burnish sft has no option --zzzzz."),
        (["-x"], "burnish sft has no option -x; options start with two dashes."),
        (["--no_max_length"], "burnish sft has no option --no_max_length; the nearest is --max_length."),
        (["run.yaml"], "burnish sft was given 'run.yaml' without a flag; a file of options is given as --config run.yaml."),
        (["--max_length"], "--max_length needs a value: an integer of at least 2 or None."),
        (["--optim"], "--optim needs a value: 'adamw', 'adafactor', 'sgd' or 'muon'."),
        (["--max_length", "1", "2"], "max_length must be an integer of at least 2 or None, not [1, 2]."),
        (["--learning_rate", "fast"], "learning_rate must be a number above 0, not 'fast'."),
        (["--assistant_only_loss", "maybe"], "assistant_only_loss must be True or False, not 'maybe'."),
        (["--eval_datasets", "{a"], "eval_datasets must be a mapping or None, not '{a'."),
        (["--config"], "--config needs one YAML file, not 0."),
        (["--config", "a.yaml", "b.yaml"], "--config needs one YAML file, not 2."),
        (["--use_cpu"], "use_cpu=True is refused: the device is chosen by what is visible; set CUDA_VISIBLE_DEVICES='' to use the CPU."),
    ],
)  # fmt: skip
def test_refused_flags(flags, sentence):
    assert refusal(*flags) == sentence


@pytest.fixture
def yaml_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "run.yaml").write_text(text)
        return "--config", "run.yaml"

    return write


def test_yaml_is_read_as_people_write_it(yaml_file):
    command = parsed(
        *yaml_file(
            """\
# a run
model_name_or_path: org/model
learning-rate: 1e-4
eval_strategy: no
save_strategy: no
max_length: None
run_name: "2024"
per_device_train_batch_size: 4
bf16: true
report_to: [wandb, trackio]
datasets:
  - {path: a.jsonl, weight: 2}
  - path: b.jsonl
    split: train[:90%]
    columns: [text]
"""
        )
    )
    assert command.model == ModelConfig(model_name_or_path="org/model", compute_dtype="bfloat16")
    assert command.args == SFTConfig(
        learning_rate=1e-4,
        save_strategy="no",
        max_length=None,
        run_name="2024",
        batch_size=4,
        compute_dtype="bfloat16",
        report_to=["wandb", "trackio"],
    )
    assert command.data.datasets == [
        DatasetSource(path="a.jsonl", weight=2.0),
        DatasetSource(path="b.jsonl", split="train[:90%]", columns=["text"]),
    ]


@pytest.mark.parametrize(
    ("yaml", "flags", "said"),
    [
        ("learning_rate: 1.0\nseed: 3", ["--learning_rate", "0.5"], {"learning_rate": 0.5, "seed": 3}),
        ("per_device_train_batch_size: 4", ["--gradient_accumulation_steps", "3"], {"batch_size": 12}),
        ("per_device_train_batch_size: 4\ngradient_accumulation_steps: 2", ["--batch_size", "5"], {"batch_size": 5}),
        ("batch_size: 32", ["--per_device_train_batch_size", "2"], {"batch_size": 2}),
        ("bf16: true", ["--compute_dtype", "float32"], {"compute_dtype": "float32"}),
        ("max_seq_length: 100", ["--max_length", "200"], {"max_length": 200}),
        ("eval_strategy: steps\neval_steps: 5", ["--eval_steps", "None"], {"eval_strategy": "steps", "eval_steps": 10}),
        ("load_best_model_at_end: true", ["--eval_strategy", "epoch"], {"load_best_model_at_end": True, "eval_strategy": "epoch"}),
        ("", [], {}),
    ],
)
def test_flags_win_over_yaml_under_any_spelling(yaml_file, yaml, flags, said):
    assert parsed(*yaml_file(yaml), *flags).args == SFTConfig(**said)


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("seed: 1\nlearning_rat: 2", "run.yaml, line 2: burnish sft has no option 'learning_rat'; the nearest is 'learning_rate'."),
        ("seed: 1\n\nlearning_rate: -2", "run.yaml, line 3: learning_rate must be a number above 0, not -2."),
        ("seed: 1\ndata_seed: 2", "run.yaml, line 2: data_seed=2 is refused: the order of the data follows seed."),
        ("datasets:\n- path: a\n- pth: b", "run.yaml, line 1: DatasetSource has no option 'pth'; the nearest is 'path'."),
        ("seed: 1\nseed: 2", "run.yaml, line 2: seed was given on line 1 already; keep one of them."),
        ("max_length: 1\nmax-length: 2", "run.yaml, line 2: max_length was given on line 1 already; keep one of them."),
        ("seed: [1\nx: 2", "run.yaml, line 2: not YAML (expected ',' or ']', but got ':')."),
        ("seed: 1\n\tx: 2", "run.yaml, line 2: not YAML (found character '\\t' that cannot start any token)."),
        ("- seed", "run.yaml must hold options, one `name: value` on each line, not a list."),
        ("[a]: 1", "run.yaml, line 1: the name of an option must be a word, not a sequence."),
        ("assistant_only_loss: yes", "run.yaml, line 1: assistant_only_loss must be True or False, not 'yes'."),
        ("run_name: 2024", "run.yaml, line 1: run_name must be a string or None, not 2024."),
    ],
)  # fmt: skip
def test_refused_yaml(yaml_file, yaml, sentence):
    assert refusal(*yaml_file(yaml)) == sentence


def test_yaml_files_that_cannot_be_read(yaml_file, tmp_path):
    assert refusal("--config", "nope.yaml") == "The file of --config could not be read: nope.yaml (No such file or directory)."
    (tmp_path / "bytes.yaml").write_bytes(b"seed: \xff")
    assert refusal("--config", "bytes.yaml") == "bytes.yaml is not UTF-8 text (invalid start byte at byte 6); save it as UTF-8."


def test_a_configuration_comes_back_from_its_yaml(yaml_file):
    command = Command(
        model=ModelConfig(model_name_or_path="m", use_peft=True, lora_target_modules=["q_proj"], model_init_kwargs={"use_cache": False}),
        data=DataConfig(
            datasets=[DatasetSource(path="a", weight=1 / 3), DatasetSource(path="b", columns=["text"])],
            eval_datasets={"no": "1e-4", "b": "~"},
        ),
        args=SFTConfig(
            learning_rate=1e-7,
            warmup_steps=0.03,
            eval_strategy="steps",
            load_best_model_at_end=True,
            max_length=None,
            run_name="no",
            eos_token="None",
            report_to=["wandb"],
            optim_args={"betas": [0.9, 0.95], "word": "1e-4"},
            model_init_kwargs={"use_cache": False},
        ),
    )
    text = dump_yaml(command.model, command.data, command.args)
    assert parsed(*yaml_file(text)) == command
    assert parsed(*yaml_file(dump_yaml(ModelConfig(), DataConfig(), SFTConfig()))).args == SFTConfig()


def test_to_dict_is_plain_and_flat():
    plain = to_dict(DataConfig(datasets=[{"path": "a"}]), ModelConfig())
    assert plain["datasets"] == [{"path": "a", "name": None, "split": "train", "columns": None, "weight": 1.0}]
    assert plain["lora_r"] == 16
    assert "notes" not in plain


def test_configurations_that_disagree_have_no_yaml():
    with pytest.raises(ConfigError) as refused:
        to_dict(ModelConfig(compute_dtype="float32"), SFTConfig(compute_dtype="bfloat16"))
    assert str(refused.value) == "compute_dtype is 'float32' in one configuration and 'bfloat16' in another; they must be the same."


def test_help_shows_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for line in ("--learning_rate FLOAT", "--loss_type {nll,dft}", "--config FILE", "sft options", "optimizer options", "adapter options"):
        assert line in shown
    assert "(default: 2e-05)" in shown
    assert "per_device_train_batch_size" not in shown


def test_nothing_heavy_is_imported():
    code = (
        "import sys\n"
        "from burnish.config import DataConfig, ModelConfig, SFTConfig\n"
        "from burnish.config.parse import parse, dump_yaml\n"
        "dump_yaml(parse(['--bf16'], SFTConfig))\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'datasets', 'peft', 'typeguard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("a b", {"runs": ["a", "b"]}),
        ("a b --at 3 --json", {"runs": ["a", "b"], "at": 3, "json": True}),
        ("--json a b", {"runs": ["a", "b"], "json": True}),
        ("a --json false b --metrics loss eval_*", {"runs": ["a", "b"], "json": False, "metrics": ["loss", "eval_*"]}),
        ("--at 3 --runs a b", {"runs": ["a", "b"], "at": 3}),
    ],
)
def test_words_without_a_flag_are_runs(line, wanted):
    assert parse(with_words(line.split(), CompareConfig, "runs"), CompareConfig) == CompareConfig(**wanted)
