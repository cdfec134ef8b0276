"""The table of docs/migrate-from-trl.md that lists TRL's scripts and what they gave: python -m tests.trl_scripts.record

Run in the repository, as the tests run them: minutes. It prints the rows.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

from burnish import GRPOConfig, RLOOConfig
from burnish.demo import load_path
from tests.trl_scripts.conftest import TOKENS
from tests.trl_scripts.folders import make_folders, teach
from tests.trl_scripts.online import GRPO, RLOO
from tests.trl_scripts.running import run
from tests.trl_scripts.scripts import DPO, KTO, REWARD, SFT

SHOWN = ("loss", "reward", "frac_reward_zero_std", "rewards/margins", "accuracy", "turns")


def main() -> None:
    for cls in (GRPOConfig, RLOOConfig):
        cls.__init__.__wrapped__.__kwdefaults__["max_completion_length"] = TOKENS
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        taught = teach(Path(tempfile.mkdtemp()) / "taught")
    offline = {**SFT, **DPO, **KTO, **REWARD}
    for name, script in {**offline, **GRPO, **RLOO}.items():
        folder = Path(tempfile.mkdtemp())
        make_folders(folder, load_path() if name in offline else taught)
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            state = run(script).state
        last = state.log_history[-1]
        said = ", ".join(f"`{metric}` {last[metric]:.4g}" for metric in SHOWN if metric in last)
        page, _, heading = name.partition(", ")
        print(f"| {page} | {heading} | {state.global_step} | {said} |", flush=True)


if __name__ == "__main__":
    main()
