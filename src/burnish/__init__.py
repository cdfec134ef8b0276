"""Burnish post-trains language models. Names are imported when they are used, so that `import burnish` costs nothing."""

import lazy_loader as lazy

from burnish.config.arguments import with_doors
from burnish.deprecated import with_old_names

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["experimental"],
    submod_attrs={
        "config.bco": ["BCOConfig"],
        "config.cpo": ["CPOConfig"],
        "config.data": ["DataConfig"],
        "config.dpo": ["DPOConfig"],
        "config.grpo": ["GRPOConfig"],
        "config.kto": ["KTOConfig"],
        "config.model": ["ModelConfig"],
        "config.orpo": ["ORPOConfig"],
        "config.prm": ["PRMConfig"],
        "config.reward": ["RewardConfig"],
        "config.rloo": ["RLOOConfig"],
        "config.sft": ["SFTConfig"],
        "config.values": ["ConfigError"],
        "methods.bco": ["BCOTrainer"],
        "methods.cpo": ["CPOTrainer"],
        "methods.dpo": ["DPOTrainer"],
        "methods.grpo": ["GRPOTrainer"],
        "methods.kto": ["KTOTrainer"],
        "methods.orpo": ["ORPOTrainer"],
        "methods.prm": ["PRMTrainer"],
        "methods.reward": ["RewardTrainer"],
        "methods.rloo": ["RLOOTrainer"],
        "methods.sft": ["SFTTrainer"],
        "report.evaluation": ["EvalTokens"],
        "trainer": ["Trainer", "TrainOutput"],
        "types": ["Branch", "Example", "LossOut", "Segment", "Sum", "TokenOutputs", "TokenTree"],
    },
)
__getattr__ = with_doors(with_old_names(__getattr__))
