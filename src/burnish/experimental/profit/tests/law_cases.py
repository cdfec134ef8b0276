"""ProFit's part of the table of laws. A tiny model gives each token a probability of about 1/97; both thresholds divide its tokens."""

from typing import Any

from tests.laws.methods import COMPLETIONS, OFFLINE, Case, turns

from burnish.experimental.profit.config import ProFitConfig
from burnish.experimental.profit.method import ProFit, ProFitTrainer


def case(direction: str, threshold: float) -> Case:
    chosen: dict[str, Any] = {"threshold_direction": direction, "prob_threshold": threshold}
    return Case(
        name=f"profit-{direction}",
        room="experimental",
        module="profit",
        loss=direction,
        config=lambda **options: ProFitConfig(**{**chosen, **options}),
        method=lambda args, parts: ProFit(args=args),
        trainer=ProFitTrainer,
        rows=COMPLETIONS,
        # a step of one row needs one so long that some of its tokens are kept
        examples=lambda count: turns(count) if count > 1 else turns(6)[5:],
        exempt=OFFLINE,
    )


CASES = (case("higher", 0.005), case("lower", 0.02))
