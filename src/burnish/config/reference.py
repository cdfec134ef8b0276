"""The reference that a preference method compares the policy with."""

from typing import Literal

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError

BEMA = ("bema_ema_power", "bema_bias_power", "bema_lag")


@config
class ReferenceConfig(Config):
    """Which model is the reference, and whether it moves."""

    ref_model_name_or_path: str | None = option(None, "Folder or hub id of the reference; None: the policy as it is at the start.")
    sync_ref_model: bool = option(False, "Move the reference towards the policy, every ref_model_sync_steps steps.")
    ref_model_update: Literal["mixup", "bema"] = option(
        "mixup", "With sync_ref_model: TR-DPO's mixture, or the bias-corrected average BEMA."
    )
    ref_model_sync_steps: int = option(512, "With sync_ref_model: steps between two updates of the reference.", at_least=1)
    ref_model_mixup_alpha: float = option(0.6, "With mixup: the policy's share of the mixture.", above=0, at_most=1)
    bema_ema_power: float = option(0.5, "With bema: how fast the average's memory grows (κ); 0: no average.", at_least=0)
    bema_bias_power: float = option(0.2, "With bema: how fast the correction fades (η); 0: never.", at_least=0)
    bema_lag: int = option(10, "With bema: steps that the average counts as taken at the start (ρ).", at_least=0)

    @property
    def held(self) -> bool:
        """Whether a reference is kept while training."""
        return True

    def __post_init__(self) -> None:
        moves = self.changed("ref_model_update", "ref_model_sync_steps", "ref_model_mixup_alpha", *BEMA)
        if moves and not self.sync_ref_model:
            raise ConfigError(f"{moves[0]} has no effect without sync_ref_model=True; set it, or leave this out.")
        foreign = self.changed(*(BEMA if self.ref_model_update == "mixup" else ("ref_model_mixup_alpha",)))
        if foreign:
            raise ConfigError(f"{foreign[0]} has no effect with ref_model_update={self.ref_model_update!r}; leave it out.")
        super().__post_init__()


@config
class KnownReferenceConfig(ReferenceConfig):
    """A reference whose log-probs can be computed ahead, as the completions are known."""

    precompute_ref_log_probs: bool = option(False, "Compute the reference's log-probs ahead, keep them on disk, and free the reference.")

    @property
    def held(self) -> bool:
        return not self.precompute_ref_log_probs

    def __post_init__(self) -> None:
        if self.sync_ref_model and self.precompute_ref_log_probs:
            raise ConfigError(
                "sync_ref_model=True and precompute_ref_log_probs=True contradict each other: the log-probs of a reference that moves "
                "cannot be computed ahead; give one of them."
            )
        super().__post_init__()
