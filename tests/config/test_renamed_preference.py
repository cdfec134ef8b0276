"""Old spellings of the preference methods and reward models; and that every default of TRL 1.16 is taken."""

import ast
import os
from pathlib import Path

import pytest

from burnish.config import BCOConfig, ConfigError, CPOConfig, DPOConfig, KTOConfig, ORPOConfig, PRMConfig, RewardConfig, SFTConfig

TEMPLATES = os.environ.get("BURNISH_CHAT_TEMPLATES")
"""The chat templates of TRL's package, beside which its configurations are."""
IN_TRL = {
    SFTConfig: "trainer/sft_config.py",
    DPOConfig: "trainer/dpo_config.py",
    KTOConfig: "trainer/kto_config.py",
    RewardConfig: "trainer/reward_config.py",
    CPOConfig: "experimental/cpo/cpo_config.py",
    ORPOConfig: "experimental/orpo/orpo_config.py",
}
BASE = "trainer/base_config.py"


def fields_of(file: Path) -> dict[str, object]:
    """The fields of the class in a source file, with their defaults."""
    (cls,) = (node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    fields = [node for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)]
    found = {}
    for node in fields:
        said = {keyword.arg: keyword.value for keyword in node.value.keywords}
        value = said["default"] if "default" in said else said["default_factory"].body
        found[node.target.id] = ast.literal_eval(value)
    return found


@pytest.mark.parametrize(("cls", "name"), IN_TRL.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_every_option_of_trl_at_its_default_is_taken(cls, name):
    package = Path(TEMPLATES or "nowhere").parent
    if not (package / name).is_file():
        pytest.skip("BURNISH_CHAT_TEMPLATES names no folder in TRL's package")
    own = fields_of(package / name)
    for said in ({option: value} for option, value in (fields_of(package / BASE) | own).items()):
        cls(**said)
    ours = cls(**own)
    same = {option: value for option, value in own.items() if option in vars(ours) and option != "truncation_mode"}
    assert len(same) >= 6
    assert {option: vars(ours)[option] for option in same} == same
    differ = {option for option in same if vars(cls())[option] != same[option]}
    assert differ == ({"train_sampling_strategy"} if cls is KTOConfig else set())


PAIRED = (DPOConfig, KTOConfig, BCOConfig)
ALL = (*PAIRED, ORPOConfig, CPOConfig, RewardConfig, PRMConfig, SFTConfig)
ALONE = "nothing is ever padded, and every micro-batch is packed so that examples never see each other."
NOT_STORED = "the logits are never stored."
NOTED = [
    (ALL, {"padding_free": True}, ALONE),
    (ALL, {"padding_value": 0}, ALONE),
    (ALL, {"label_pad_token_id": -1}, ALONE),
    (ALL, {"pad_to_multiple_of": 8}, ALONE),
    (ALL, {"pad_token": "<pad>"}, ALONE),
    (ALL, {"use_liger_loss": True}, NOT_STORED),
    (ALL, {"use_logits_to_keep": True}, NOT_STORED),
    (ALL, {"base_model_attribute_name": "transformer"}, "the parts of a model are found without it."),
    (PAIRED, {"precompute_ref_batch_size": 4}, "the reference fills micro-batches by max_tokens_per_microbatch."),
    (PAIRED, {"force_use_ref_model": True}, "a reference that is given is always used, with an adapter, too."),
]


@pytest.mark.parametrize(("classes", "said", "why"), NOTED, ids=[next(iter(said)) for _, said, _ in NOTED])
def test_taken_with_a_note(classes, said, why):
    ((name, value),) = said.items()
    for cls in classes:
        args = cls(**said)
        assert args == cls()
        assert args.notes == (f"{name}={value!r} changes nothing: {why}",)


WHOLE = "prompts and completions are not cut apart from each other; use max_length, which bounds both together, and truncation_mode."
ADAPTER = "the reference is the adapter as it is at the start, or ref_model_name_or_path; leave it out."
NO_UDM = "answers are not weighed by the density of their prompts; weigh or select rows beforehand."
REFUSED = [
    (ALL, {"max_prompt_length": 512}, WHOLE),
    (ALL, {"max_completion_length": 512}, WHOLE),
    (ALL, {"is_encoder_decoder": True}, "models are decoders; leave it out."),
    (ALL, {"generate_during_eval": True}, "evaluation generates nothing; generate from the saved model."),
    (ALL, {"tools": [1]}, "give each row its tools, in a column of that name."),
    (ALL, {"activation_offloading": True}, "use gradient_checkpointing, or a smaller max_tokens_per_microbatch."),
    (PAIRED, {"ref_model_init_kwargs": {"a": 1}}, "the reference is loaded as the model is; use model_init_kwargs."),
    (PAIRED, {"reference_free": True}, "CPO is DPO without a reference; use CPOConfig(cpo_alpha=0)."),
    (PAIRED, {"model_adapter_name": "a"}, ADAPTER),
    (PAIRED, {"ref_adapter_name": "a"}, ADAPTER),
    ((DPOConfig,), {"rpo_alpha": 1.0}, "use loss_type=['sigmoid', 'sft'] with loss_weights=[1.0, rpo_alpha]."),
    ((BCOConfig,), {"prompt_sample_size": 10}, NO_UDM),
    ((BCOConfig,), {"min_density_ratio": 0.1}, NO_UDM),
    ((BCOConfig,), {"max_density_ratio": 2}, NO_UDM),
]


@pytest.mark.parametrize(("classes", "said", "instead"), REFUSED, ids=[next(iter(said)) for _, said, _ in REFUSED])
def test_refused_with_what_to_use(classes, said, instead):
    ((name, value),) = said.items()
    for cls in classes:
        with pytest.raises(ConfigError) as refused:
            cls(**said)
        assert str(refused.value) == f"{name}={value!r} is refused: {instead}"


SILENT = {
    "max_prompt_length": None,
    "max_completion_length": None,
    "padding_value": None,
    "label_pad_token_id": -100,
    "is_encoder_decoder": None,
    "generate_during_eval": False,
    "tools": None,
    "use_liger_loss": False,
    "base_model_attribute_name": "model",
    "pad_token": None,
    "dataset_num_proc": None,
    "max_seq_length": 1024,
}
SILENT_REFERENCE = {
    "precompute_ref_batch_size": None,
    "force_use_ref_model": False,
    "ref_model_init_kwargs": None,
    "reference_free": False,
    "model_adapter_name": None,
    "ref_adapter_name": None,
}


@pytest.mark.parametrize("cls", ALL)
def test_the_old_defaults_ask_for_nothing(cls):
    said = SILENT | (SILENT_REFERENCE if cls in PAIRED else {})
    assert cls(**said) == cls()
    assert cls(**said).notes == ()
    assert BCOConfig(prompt_sample_size=1024, min_density_ratio=0.5, max_density_ratio=10.0) == BCOConfig()


def test_losses_under_another_name():
    assert DPOConfig(loss_type="aot_pair") == DPOConfig(loss_type="aot")
    assert DPOConfig(loss_type=["aot_pair", "sft"]) == DPOConfig(loss_type=["aot", "sft"])
    with pytest.raises(ConfigError, match="^loss_type must be a list of 'sigmoid', .*, not 'kto_pair'.$"):
        DPOConfig(loss_type="kto_pair")
