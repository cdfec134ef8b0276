"""What a completion is worth: rewards, and the processes that run them. Names are imported when they are used."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "accuracy": ["accuracy_reward", "reasoning_accuracy_reward"],
        "length": ["get_cosine_scaled_reward", "get_soft_overlong_punishment"],
        "repetition": ["get_repetition_penalty_reward"],
        "samples": ["Failure", "RewardError", "Sample"],
        "think_format": ["think_format_reward"],
    },
)
