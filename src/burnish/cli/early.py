"""What can be refused before torch is imported: whatever the options, the file system and the first rows show."""

import json
import os
from pathlib import Path

from burnish.checkpoint.continued import check_continued
from burnish.checkpoint.files import CheckpointError
from burnish.cli.sets import open_sets
from burnish.config.data import DataConfig
from burnish.config.generate import GenerateConfig
from burnish.config.inspect import InspectSamplesConfig
from burnish.config.model import ModelConfig
from burnish.config.online import OnlineConfig
from burnish.config.reference import ReferenceConfig
from burnish.config.rows import RowsConfig
from burnish.config.sft import SFTConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError
from burnish.data.dataset import as_dataset, formats_for, formats_of, named_sets
from burnish.data.formats import check_loss_options
from burnish.data.rows import Rows
from burnish.data.sources import open_rows
from burnish.ops.schedules import schedule
from burnish.report.events import record_refusal
from burnish.report.trackers import check_trackers
from burnish.rollout.prompts import prompt_of


def early_checks(model: ModelConfig, data: DataConfig, args: TrainConfig) -> None:
    """Refuses what could not run.

    Raises:
        ConfigError: options that contradict each other across configurations, or a folder without what it should hold.
        DataError: no such data, or first rows that no format fits.
        TrackerError: a tracker whose library is missing.
        CheckpointError: `output_dir` holds a run with other options.
    """
    check_model(model)
    if isinstance(args, ReferenceConfig):
        _check_reference(args)
    _check_plan(data, args)
    _check_output(model, args)
    if args.resume_from_checkpoint not in ("auto", "never") and not Path(args.resume_from_checkpoint).is_dir():
        raise ConfigError(f"resume_from_checkpoint={args.resume_from_checkpoint!r} must be 'auto', 'never' or a checkpoint's folder.")
    try:
        schedule(args.lr_scheduler_type, warmup=1, total=2, **(args.lr_scheduler_kwargs or {}))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    template = str(args.chat_template_path) if isinstance(args, RowsConfig | OnlineConfig) else ""
    if template.endswith((".jinja", ".j2")) and not Path(template).is_file():
        raise ConfigError(f"chat_template_path={template!r} names a file that is not there.")
    check_trackers(args.report_to)
    try:
        check_continued(args)
    except CheckpointError as error:
        record_refusal(Path(args.output_dir), str(error))
        raise
    if isinstance(args, RowsConfig):
        _check_rows(data, args, args.seed)
    if isinstance(args, OnlineConfig):
        _check_prompts(data, args)


def _check_prompts(data: DataConfig, args: OnlineConfig) -> None:
    if not args.reward_funcs:
        raise ConfigError("No reward is named; give --reward_funcs, such as accuracy_reward, or my_rewards.py:my_function.")
    train, held_out = open_sets(data, args.seed)
    for given in (train, *named_sets(held_out).values()):
        formats_of(as_dataset(given), accepted=args.row_formats)


def check_generate(model: ModelConfig, args: GenerateConfig) -> Rows:
    """Refuses what `burnish generate` could not do, and returns the rows. Raises ConfigError or DataError, as `early_checks` does."""
    check_model(model)
    if model.use_peft:
        raise ConfigError("use_peft=True makes a new adapter, which changes nothing that is sampled; give adapter_name_or_path, or none.")
    path = Path(args.output_file)
    if path.exists() and not args.overwrite_output_file:
        raise ConfigError(f"output_file={args.output_file!r} is there already; name another, or set overwrite_output_file=True.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"output_file={args.output_file!r} cannot be made, because there is no folder {path.absolute().parent}.")
    rows = open_rows(args.dataset_name, config_name=args.dataset_config, split=args.dataset_split)
    for i in range(min(100, len(rows))):
        prompt_of(rows[i], rows.where(i))
    return rows


def _check_rows(data: DataConfig, args: RowsConfig, seed: int) -> None:
    train, held_out = open_sets(data, seed)
    for given in (train, *named_sets(held_out).values()):
        for one in formats_for(args, as_dataset(given)):
            if isinstance(args, SFTConfig):
                check_loss_options(one, completion_only_loss=args.completion_only_loss, assistant_only_loss=args.assistant_only_loss)


def check_folder(name: str, folder: str, *files: str) -> None:
    """Refuses a path that is local without doubt, and is no folder that holds one of `files`."""
    path = Path(folder).expanduser()
    local = path.exists() or path.is_absolute() or folder.startswith((".", "~"))
    if local and not any((path / file).is_file() for file in files):
        raise ConfigError(f"{name}={folder!r} must be a folder that holds {' or '.join(files)}, and {_fault(path)}.")


def check_samples(args: InspectSamplesConfig) -> None:
    """Refuses a folder in which nothing was sampled, and one that holds no tokenizer where none is named."""
    if not list((Path(args.output_dir) / "samples").glob("*.jsonl.gz")):
        raise ConfigError(f"output_dir={args.output_dir!r} has no samples; give the output_dir of a run of grpo or rloo.")
    check_folder("model_name_or_path", args.model_name_or_path or args.output_dir, "tokenizer_config.json")


def _fault(path: Path) -> str:
    if not path.exists():
        return "there is no such folder"
    return "this one does not" if path.is_dir() else "this is a file"


def check_model(model: ModelConfig) -> None:
    """Refuses a model that is not named, or a folder that holds none."""
    if model.model_name_or_path is None:
        raise ConfigError("No model is named; give --model_name_or_path, a local folder or a hub id.")
    check_folder("model_name_or_path", model.model_name_or_path, "config.json", "adapter_config.json")
    _check_architecture(Path(model.model_name_or_path) / "config.json")
    if model.adapter_name_or_path is not None:
        check_folder("adapter_name_or_path", model.adapter_name_or_path, "adapter_config.json")


def _check_architecture(path: Path) -> None:
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}); give the folder of a model that transformers can load.") from None
    if not isinstance(content, dict) or "model_type" not in content:
        raise ConfigError(f"{path} names no model_type; give the folder of a model that transformers can load.")


def _check_reference(args: ReferenceConfig) -> None:
    if args.ref_model_name_or_path is not None:
        check_folder("ref_model_name_or_path", args.ref_model_name_or_path, "config.json", "adapter_config.json")
        _check_architecture(Path(args.ref_model_name_or_path) / "config.json")


def _check_output(model: ModelConfig, args: TrainConfig) -> None:
    path = Path(args.output_dir)
    here = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not here.is_dir() or not os.access(here, os.W_OK):
        fault = "may not be written to" if here.is_dir() else "is a file"
        raise ConfigError(f"output_dir={args.output_dir!r} cannot be made, because {here} {fault}; name another folder.")
    reference = args.ref_model_name_or_path if isinstance(args, ReferenceConfig) else None
    for whose, name in (("model", model.model_name_or_path), ("reference", reference)):
        if path.resolve() == Path(str(name)).resolve():
            raise ConfigError(f"output_dir={args.output_dir!r} is the {whose}'s own folder, which the result would replace; name another.")


def _check_plan(data: DataConfig, args: TrainConfig) -> None:
    if data.dataset_name is None and data.datasets is None:
        raise ConfigError("No data is named; give --dataset_name, a local file, a folder or a hub id.")
    if data.dataset_streaming and args.max_steps < 1:
        raise ConfigError("dataset_streaming=True needs max_steps, because the length of a stream is not known.")
    held_out = data.changed("dataset_test_split", "eval_datasets", "test_split_size")
    if held_out and args.eval_strategy == "no" and not args.eval_on_start:
        raise ConfigError(f"{held_out[0]} has no effect with eval_strategy='no'; set eval_strategy='steps' or 'epoch'.")
    if not held_out and (args.eval_strategy != "no" or args.eval_on_start):
        asked = f"eval_strategy={args.eval_strategy!r}" if args.eval_strategy != "no" else "eval_on_start=True"
        raise ConfigError(f"{asked} needs data to evaluate on; give dataset_test_split, eval_datasets or test_split_size.")
