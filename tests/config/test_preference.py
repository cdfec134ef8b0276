"""Options of the preference methods and of reward models: defaults, and the exact sentence of every refusal."""

import inspect
from typing import get_args

import pytest

from burnish.config import (
    BCOConfig,
    ConfigError,
    CPOConfig,
    DPOConfig,
    KTOConfig,
    ORPOConfig,
    PRMConfig,
    ReferenceConfig,
    RewardConfig,
    RowsConfig,
    SFTConfig,
)
from burnish.config.base import options
from burnish.config.dpo import USES, Loss
from burnish.config.parse import dump_yaml, parse, to_dict
from burnish.data.formats import PAIR_FORMATS, SFT_FORMATS, STEPWISE_FORMATS, UNPAIRED_FORMATS
from burnish.ops import preference, reference_free, unpaired

METHODS = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "kto": KTOConfig,
    "orpo": ORPOConfig,
    "cpo": CPOConfig,
    "bco": BCOConfig,
    "reward": RewardConfig,
    "prm": PRMConfig,
}
DPO_LOSSES = preference.LOSSES | {f"{name}_trl": loss for name, loss in preference.LOSSES_AS_IN_TRL.items()}


def choices(cls, name):
    return set(get_args(options(cls)[name].kind))


@pytest.mark.parametrize(("method", "cls"), METHODS.items())
def test_what_all_methods_have(method, cls):
    args = cls()
    assert issubclass(cls, RowsConfig)
    assert (args.output_dir, args.max_length, args.truncation_mode) == (f"runs/{method}", 1024, "drop")
    assert args.disable_dropout is (method != "sft")
    for name, one in options(cls).items():
        assert one.help.endswith("."), name
        assert len(one.help) <= 100, name


@pytest.mark.parametrize("cls", METHODS.values())
def test_row_formats_are_no_option(cls):
    assert cls.row_formats
    assert "row_formats" not in {*options(cls), *to_dict(cls())}
    with pytest.raises(ConfigError, match=f"^{cls.__name__} has no option 'row_formats'"):
        cls(row_formats=("text",))


def test_which_rows_each_method_reads():
    assert SFTConfig.row_formats == SFT_FORMATS
    assert all(cls.row_formats == PAIR_FORMATS for cls in (DPOConfig, ORPOConfig, CPOConfig, RewardConfig))
    assert all(cls.row_formats == UNPAIRED_FORMATS for cls in (KTOConfig, BCOConfig))
    assert PRMConfig.row_formats == STEPWISE_FORMATS


def test_the_documented_defaults():
    rates = {"sft": 2e-5, "dpo": 1e-6, "kto": 1e-6, "orpo": 1e-6, "cpo": 1e-6, "bco": 5e-7, "reward": 1e-4, "prm": 1e-5}
    assert {method: cls().learning_rate for method, cls in METHODS.items()} == rates
    dpo = DPOConfig()
    assert (dpo.loss_type, dpo.loss_weights, dpo.beta, dpo.label_smoothing, dpo.ld_alpha) == (["sigmoid"], None, 0.1, 0.0, None)
    assert (dpo.f_divergence_type, dpo.f_alpha_divergence_coef, dpo.use_weighting, dpo.discopop_tau) == ("reverse_kl", 0.5, False, 0.05)
    assert (dpo.ref_model_name_or_path, dpo.precompute_ref_log_probs, dpo.sync_ref_model) == (None, False, False)
    assert (dpo.ref_model_mixup_alpha, dpo.ref_model_sync_steps, dpo.ref_model_update) == (0.6, 512, "mixup")
    assert (dpo.bema_ema_power, dpo.bema_bias_power, dpo.bema_lag) == (0.5, 0.2, 10)
    kto = KTOConfig()
    assert (kto.loss_type, kto.beta, kto.desirable_weight, kto.undesirable_weight) == ("kto", 0.1, 1.0, 1.0)
    cpo = CPOConfig()
    assert (cpo.loss_type, cpo.beta, cpo.cpo_alpha, cpo.simpo_gamma, cpo.alpha) == ("sigmoid", 0.1, 1.0, 0.5, 0.0)
    assert (ORPOConfig().beta, BCOConfig().beta, BCOConfig().loss_type) == (0.1, 0.1, "bco")
    assert RewardConfig().center_rewards_coefficient is None
    assert (PRMConfig().step_separator, PRMConfig().train_on_last_step_only) == ("\n", False)


def test_the_losses_are_those_that_exist():
    assert set(get_args(Loss)) == set(USES) == set(DPO_LOSSES)
    assert choices(KTOConfig, "loss_type") == set(unpaired.LOSSES)
    assert choices(CPOConfig, "loss_type") == {*reference_free.LOSSES, "alphapo"}


@pytest.mark.parametrize(("name", "loss"), DPO_LOSSES.items())
def test_the_table_of_options_is_what_the_losses_take(name, loss):
    keywords = {one.name for one in inspect.signature(loss).parameters.values() if one.kind is one.KEYWORD_ONLY}
    assert set(USES[name]) == keywords & {"beta", "label_smoothing", "divergence", "discopop_tau"}


def test_cpo_smooths_where_the_losses_do():
    smoothed = {name for name, loss in reference_free.LOSSES.items() if "label_smoothing" in inspect.signature(loss).parameters}
    for name in reference_free.LOSSES:
        if name in smoothed:
            assert CPOConfig(loss_type=name, label_smoothing=0.1).label_smoothing == 0.1
        else:
            with pytest.raises(ConfigError, match="^label_smoothing=0.1 has no effect on"):
                CPOConfig(loss_type=name, label_smoothing=0.1)


@pytest.mark.parametrize(
    "said",
    [
        *({"loss_type": name} for name in DPO_LOSSES if name != "exo_pair"),
        {"loss_type": "exo_pair", "label_smoothing": 0.001},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1]},
        {"loss_type": ["robust", "sft"], "label_smoothing": 0.1, "f_divergence_type": "js_divergence"},
        {"f_divergence_type": "alpha_divergence_trl", "f_alpha_divergence_coef": 0.3},
        {"loss_type": "sft", "use_weighting": True},
        {"loss_type": "discopop", "discopop_tau": 0.1},
        {"ref_model_name_or_path": "a", "precompute_ref_log_probs": True},
        {"sync_ref_model": True, "ref_model_mixup_alpha": 1, "ref_model_sync_steps": 1},
        {"sync_ref_model": True, "ref_model_update": "bema", "bema_ema_power": 0, "bema_bias_power": 0, "bema_lag": 1},
        {"ld_alpha": 0.5, "use_weighting": True},
    ],
)
def test_what_dpo_takes(said):
    made = DPOConfig(**said)
    assert isinstance(made.loss_type, list)
    assert made.notes == ()


def test_alphapo_is_simpo_without_the_likelihood():
    made = CPOConfig(loss_type="alphapo", alpha=0.25, simpo_gamma=0.1)
    assert made == CPOConfig(loss_type="simpo", cpo_alpha=0, alpha=0.25, simpo_gamma=0.1)
    assert CPOConfig(loss_type="alphapo", cpo_alpha=0).cpo_alpha == 0


NO_SFT = "has no effect on loss_type=['sft'], which compares nothing; leave it out."
DIVERGENT = "sigmoid, sigmoid_trl, hinge, ipo, exo_pair, robust, discopop or sigmoid_norm"
REFUSALS = [
    (DPOConfig, {"loss_type": []}, "loss_type is an empty list; name at least one loss."),
    (DPOConfig, {"loss_type": ["ipo", "ipo"]}, "loss_type names 'ipo' twice; name it once, with its weight in loss_weights."),
    (
        DPOConfig,
        {"loss_type": ["ipo", "sft"], "loss_weights": [1]},
        "loss_weights=[1.0] must have one weight for each loss of loss_type=['ipo', 'sft'].",
    ),
    (DPOConfig, {"loss_weights": [-1]}, "loss_weights must be numbers of at least 0, one of them above 0, not [-1.0]."),
    (
        DPOConfig,
        {"loss_type": ["ipo", "sft"], "loss_weights": [0, 0]},
        "loss_weights must be numbers of at least 0, one of them above 0, not [0.0, 0.0].",
    ),
    (DPOConfig, {"loss_weights": ["a"]}, "loss_weights must be a list of numbers or None, not ['a']."),
    (DPOConfig, {"beta": 0}, "beta must be a number above 0, not 0."),
    (DPOConfig, {"label_smoothing": 0.5}, "label_smoothing must be a number of at least 0 and below 0.5, not 0.5."),
    (DPOConfig, {"ld_alpha": 2}, "ld_alpha must be a number of at least 0 and of at most 1 or None, not 2."),
    (
        DPOConfig,
        {"loss_type": ["hinge", "sigmoid_trl"], "label_smoothing": 0.1},
        "label_smoothing=0.1 has no effect on loss_type=['hinge', 'sigmoid_trl']; leave it out, or use sigmoid, exo_pair, robust, aot or "
        "aot_unpaired.",
    ),
    (
        DPOConfig,
        {"loss_type": "exo_pair"},
        "loss_type 'exo_pair' is infinite with label_smoothing=0; choose a small number, such as 0.001.",
    ),
    (DPOConfig, {"discopop_tau": 0.1}, "discopop_tau=0.1 has no effect on loss_type=['sigmoid']; leave it out, or use discopop."),
    (
        DPOConfig,
        {"loss_type": ["sigmoid", "apo_zero"], "f_divergence_type": "forward_kl"},
        f"f_divergence_type='forward_kl' does not go with loss_type 'apo_zero'; leave it out, or use {DIVERGENT}.",
    ),
    (
        DPOConfig,
        {"f_divergence_type": "forward_kl", "f_alpha_divergence_coef": 0.1},
        "f_alpha_divergence_coef=0.1 has no effect on f_divergence_type='forward_kl'; use 'alpha_divergence', or leave it out.",
    ),
    (
        DPOConfig,
        {"loss_type": ["sigmoid", "aot_unpaired"], "use_weighting": True},
        "use_weighting=True weighs pairs, and loss_type 'aot_unpaired' takes pairs apart; leave one of them out.",
    ),
    (DPOConfig, {"loss_type": "sft", "precompute_ref_log_probs": True}, f"precompute_ref_log_probs=True {NO_SFT}"),
    (DPOConfig, {"loss_type": "sft", "sync_ref_model": True}, f"sync_ref_model=True {NO_SFT}"),
    (DPOConfig, {"loss_type": "sft", "ref_model_name_or_path": "a"}, f"ref_model_name_or_path='a' {NO_SFT}"),
    (DPOConfig, {"loss_type": "sft", "beta": 0.2}, f"beta=0.2 {NO_SFT}"),
    (DPOConfig, {"loss_type": "sft", "ld_alpha": 0.2}, f"ld_alpha=0.2 {NO_SFT}"),
    (DPOConfig, {"loss_type": "sft", "f_divergence_type": "forward_kl"}, f"f_divergence_type='forward_kl' {NO_SFT}"),
    (
        KTOConfig,
        {"loss_type": "bco"},
        "loss_type must be 'kto' or 'apo_zero_unpaired', not 'bco'.",
    ),
    (KTOConfig, {"desirable_weight": -1}, "desirable_weight must be a number of at least 0, not -1."),
    (
        KTOConfig,
        {"desirable_weight": 0, "undesirable_weight": 0},
        "desirable_weight and undesirable_weight are both 0, and nothing would be learnt; give one of them a weight.",
    ),
    (ORPOConfig, {"beta": 0}, "beta must be a number above 0, not 0."),
    (ORPOConfig, {"precompute_ref_log_probs": True}, "ORPOConfig has no option 'precompute_ref_log_probs'."),
    (
        CPOConfig,
        {"loss_type": "ipo", "label_smoothing": 0.1},
        "label_smoothing=0.1 has no effect on loss_type='ipo'; leave it out, or use sigmoid or simpo.",
    ),
    (CPOConfig, {"simpo_gamma": 1}, "simpo_gamma=1.0 has no effect on loss_type='sigmoid'; leave it out, or use simpo."),
    (
        CPOConfig,
        {"loss_type": "alphapo", "cpo_alpha": 0.5},
        "loss_type='alphapo' is simpo with cpo_alpha=0, not cpo_alpha=0.5; use loss_type='simpo'.",
    ),
    (BCOConfig, {"loss_type": "bco_pair"}, "loss_type must be 'bco' or 'bco_trl', not 'bco_pair'."),
    (RewardConfig, {"center_rewards_coefficient": 0}, "center_rewards_coefficient must be a number above 0 or None, not 0."),
    (PRMConfig, {"step_separator": 3}, "step_separator must be a string, not 3."),
    (
        KTOConfig,
        {"max_length": None, "truncation_mode": "error"},
        "truncation_mode='error' has no effect with max_length=None; give a length.",
    ),
]


@pytest.mark.parametrize(("cls", "said", "sentence"), REFUSALS)
def test_refusals(cls, said, sentence):
    with pytest.raises(ConfigError) as refused:
        cls(**said)
    assert str(refused.value) == sentence


UNSYNCED = "has no effect without sync_ref_model=True; set it, or leave this out."
REFERENCE_REFUSALS = [
    *(
        ({name: value}, f"{name}={value!r} {UNSYNCED}")
        for name, value in {
            "ref_model_update": "bema",
            "ref_model_sync_steps": 5,
            "ref_model_mixup_alpha": 0.5,
            "bema_ema_power": 0.1,
            "bema_bias_power": 0.1,
            "bema_lag": 3,
        }.items()
    ),
    (
        {"sync_ref_model": True, "precompute_ref_log_probs": True},
        "sync_ref_model=True and precompute_ref_log_probs=True contradict each other: the log-probs of a reference that moves cannot be "
        "computed ahead; give one of them.",
    ),
    ({"sync_ref_model": True, "bema_lag": 3}, "bema_lag=3 has no effect with ref_model_update='mixup'; leave it out."),
    (
        {"sync_ref_model": True, "ref_model_update": "bema", "ref_model_mixup_alpha": 0.5},
        "ref_model_mixup_alpha=0.5 has no effect with ref_model_update='bema'; leave it out.",
    ),
    (
        {"sync_ref_model": True, "ref_model_mixup_alpha": 0},
        "ref_model_mixup_alpha must be a number above 0 and of at most 1, not 0.",
    ),
    ({"ref_model_sync_steps": 0}, "ref_model_sync_steps must be an integer of at least 1, not 0."),
]


@pytest.mark.parametrize("cls", [cls for cls in METHODS.values() if issubclass(cls, ReferenceConfig)])
@pytest.mark.parametrize(("said", "sentence"), REFERENCE_REFUSALS)
def test_refusals_about_the_reference(cls, said, sentence):
    with pytest.raises(ConfigError) as refused:
        cls(**said)
    assert str(refused.value) == sentence


def test_methods_with_a_reference():
    assert {method for method, cls in METHODS.items() if issubclass(cls, ReferenceConfig)} == {"dpo", "kto", "bco"}


@pytest.mark.parametrize("words", [["sigmoid", "sft"], ["ipo"]])
def test_lists_as_flags(words):
    made = parse(["--loss_type", *words, "--loss_weights", *["0.5"] * len(words)], DPOConfig)
    assert made == DPOConfig(loss_type=words, loss_weights=[0.5] * len(words))
    assert parse(["--loss_weights", "None"], DPOConfig) == DPOConfig()


def test_yaml_both_ways(tmp_path):
    file = tmp_path / "dpo.yaml"
    file.write_text("loss_type: robust\nlabel_smoothing: 1e-1\nmax_prompt_length: null\nrpo_alpha: null\n")
    made = parse(["--config", str(file), "--beta", "0.3"], DPOConfig)
    assert made == DPOConfig(loss_type=["robust"], label_smoothing=0.1, beta=0.3)
    for one in (made, CPOConfig(loss_type="alphapo", alpha=0.1), PRMConfig(step_separator="\n\n"), KTOConfig(desirable_weight=2)):
        file.write_text(dump_yaml(one))
        assert parse(["--config", str(file)], type(one)) == one
    file.write_text("beta: 0.1\nrpo_alpha: 0.5\n")
    with pytest.raises(ConfigError) as refused:
        parse(["--config", str(file)], DPOConfig)
    instead = "use loss_type=['sigmoid', 'sft'] with loss_weights=[1.0, rpo_alpha]"
    assert str(refused.value) == f"{file}, line 2: rpo_alpha=0.5 is refused: {instead}."
