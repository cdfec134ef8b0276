"""What a user may say. Nothing here imports torch. Names are imported when they are used: a command pays for its own method's options."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "base": ["Config", "config", "option"],
        "bco": ["BCOConfig"],
        "cpo": ["CPOConfig"],
        "data": ["DataConfig", "DatasetSource"],
        "dpo": ["DPOConfig"],
        "generate": ["GenerateConfig"],
        "grpo": ["GRPOConfig"],
        "kto": ["KTOConfig"],
        "model": ["AdapterConfig", "LoadConfig", "ModelConfig"],
        "online": ["OnlineConfig"],
        "orpo": ["ORPOConfig"],
        "prm": ["PRMConfig"],
        "prompts": ["PromptsConfig"],
        "reference": ["KnownReferenceConfig", "ReferenceConfig"],
        "report": ["PageConfig"],
        "reward": ["RewardConfig"],
        "rewards": ["RewardsConfig"],
        "rloo": ["RLOOConfig"],
        "rollouts": ["RolloutConfig"],
        "rows": ["RowsConfig"],
        "sampling": ["SamplingConfig"],
        "sft": ["SFTConfig"],
        "train": ["CheckpointConfig", "EvalConfig", "LoopConfig", "OptimizerConfig", "ReportConfig", "TrainConfig"],
        "values": ["ConfigError"],
        "vllm": ["VLLMConfig"],
    },
)
