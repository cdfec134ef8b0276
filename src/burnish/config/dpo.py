"""Direct preference optimisation and its family."""

from typing import ClassVar, Literal

from burnish.config.base import config, option
from burnish.config.reference import KnownReferenceConfig
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError

USES: dict[str, tuple[str, ...]] = {
    "sigmoid": ("beta", "label_smoothing", "divergence"),
    "sigmoid_trl": ("beta", "divergence"),
    "hinge": ("beta", "divergence"),
    "ipo": ("beta", "divergence"),
    "exo_pair": ("beta", "label_smoothing", "divergence"),
    "nca_pair": ("beta",),
    "robust": ("beta", "label_smoothing", "divergence"),
    "bco_pair": ("beta",),
    "bco_pair_trl": ("beta",),
    "sppo_hard": ("beta",),
    "aot": ("beta", "label_smoothing"),
    "aot_unpaired": ("beta", "label_smoothing"),
    "apo_zero": ("beta",),
    "apo_down": ("beta",),
    "discopop": ("beta", "discopop_tau", "divergence"),
    "sft": (),
    "sft_trl": (),
    "sigmoid_norm": ("beta", "divergence"),
}
"""Loss → the options that it takes: the keywords of its function in `ops/preference.py`, which is not imported here."""

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
    "sigmoid_trl",
    "bco_pair_trl",
    "sft_trl",
]
LIKELIHOODS = ("sft", "sft_trl")
"""Losses of the chosen answer alone, which need no reference."""
REFERENCE = ("ref_model_name_or_path", "precompute_ref_log_probs", "sync_ref_model")


@config
class DPOConfig(KnownReferenceConfig, RowsConfig, TrainConfig):
    """Direct preference optimisation: with which losses pairs are learnt from."""

    row_formats: ClassVar[tuple[str, ...]] = PAIRS

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/dpo", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    loss_type: list[Loss] = option(["sigmoid"], "Losses, as their papers have them; _trl: as TRL 1.16 has them. Several are added up.")
    loss_weights: list[float] | None = option(None, "Weight of each loss of loss_type; None: 1 each.")
    beta: float = option(0.1, "How much the reference holds the policy back; IPO's τ.", above=0)
    label_smoothing: float = option(0.0, "Share of pairs that are taken to be the wrong way round.", at_least=0, below=0.5)
    ld_alpha: float | None = option(None, "LD-DPO: weight of tokens past the shorter answer's length.", at_least=0, at_most=1)
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence", "alpha_divergence_trl"] = option(
        "reverse_kl", "Divergence from the reference (f-DPO)."
    )
    f_alpha_divergence_coef: float = option(0.5, "With alpha_divergence: its α.")
    use_weighting: bool = option(False, "WPO: weigh each pair by how likely the policy is to say it.")
    discopop_tau: float = option(0.05, "With discopop: its temperature.", above=0, at_most=1)

    def __post_init__(self) -> None:
        self._check_mixture()
        self._check_unheard()
        self._check_divergence()
        if "exo_pair" in self.loss_type and not self.label_smoothing:
            raise ConfigError("loss_type 'exo_pair' is infinite with label_smoothing=0; choose a small number, such as 0.001.")
        ranked = [loss for loss in self.loss_type if loss in ("aot", "aot_unpaired")]
        if ranked and self.use_weighting:
            raise ConfigError(f"use_weighting=True weighs pairs, and loss_type {ranked[0]!r} takes pairs apart; leave one of them out.")
        super().__post_init__()

    def _check_mixture(self) -> None:
        if not self.loss_type:
            raise ConfigError("loss_type is an empty list; name at least one loss.")
        twice = [loss for i, loss in enumerate(self.loss_type) if loss in self.loss_type[:i]]
        if twice:
            raise ConfigError(f"loss_type names {twice[0]!r} twice; name it once, with its weight in loss_weights.")
        if self.loss_weights is None:
            return
        if len(self.loss_weights) != len(self.loss_type):
            raise ConfigError(f"loss_weights={self.loss_weights!r} must have one weight for each loss of loss_type={self.loss_type!r}.")
        if min(self.loss_weights) < 0 or not any(self.loss_weights):
            raise ConfigError(f"loss_weights must be numbers of at least 0, one of them above 0, not {self.loss_weights!r}.")

    def _check_unheard(self) -> None:
        """Options that none of the losses takes."""
        if all(loss in LIKELIHOODS for loss in self.loss_type):
            unheard = self.changed("beta", "ld_alpha", "f_divergence_type", *REFERENCE)
            if unheard:
                raise ConfigError(f"{unheard[0]} has no effect on loss_type={self.loss_type!r}, which compares nothing; leave it out.")
        for name in ("label_smoothing", "discopop_tau"):
            taken_by = [loss for loss, uses in USES.items() if name in uses]
            if (said := self.changed(name)) and not set(taken_by) & set(self.loss_type):
                raise ConfigError(f"{said[0]} has no effect on loss_type={self.loss_type!r}; leave it out, or use {_either(taken_by)}.")

    def _check_divergence(self) -> None:
        kind = self.f_divergence_type
        if (said := self.changed("f_alpha_divergence_coef")) and not kind.startswith("alpha"):
            raise ConfigError(f"{said[0]} has no effect on f_divergence_type={kind!r}; use 'alpha_divergence', or leave it out.")
        without = [loss for loss in self.loss_type if "divergence" not in USES[loss] and loss not in LIKELIHOODS]
        if without and kind != "reverse_kl":
            taken_by = _either([loss for loss, uses in USES.items() if "divergence" in uses])
            raise ConfigError(f"f_divergence_type={kind!r} does not go with loss_type {without[0]!r}; leave it out, or use {taken_by}.")


def _either(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
