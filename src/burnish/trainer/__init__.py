"""From what a user gives to a `Run`: the assembly that all methods share."""

from burnish.trainer.trainer import Trainer, TrainOutput

__all__ = ["TrainOutput", "Trainer"]
