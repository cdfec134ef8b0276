"""What is measured: a module for each suite, whose `cases(options)` says what takes turns. The order is that of the page."""

from importlib import import_module
from types import ModuleType

NAMES = ("sft", "preference", "reward", "grpo", "sampler", "prepare", "start", "growth")


def suite(name: str) -> ModuleType:
    return import_module(f"bench.suites.{name}")
