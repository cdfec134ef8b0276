"""What a user may say. Nothing here imports torch."""

from burnish.config.base import Config, config, option
from burnish.config.data import DataConfig, DatasetSource
from burnish.config.model import AdapterConfig, LoadConfig, ModelConfig
from burnish.config.sft import SFTConfig
from burnish.config.train import CheckpointConfig, EvalConfig, LoopConfig, OptimizerConfig, ReportConfig, TrainConfig
from burnish.config.values import ConfigError

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DatasetSource",
    "EvalConfig",
    "LoadConfig",
    "LoopConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ReportConfig",
    "SFTConfig",
    "TrainConfig",
    "config",
    "option",
]
