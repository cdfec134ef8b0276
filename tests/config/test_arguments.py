"""What scripts say that has no counterpart: arguments, methods and names, each in one sentence that says what to use instead."""

import subprocess
import sys

import pytest

from burnish.config.arguments import DOORS, INSTEAD, METHODS_INSTEAD, refuse_arguments, with_doors
from burnish.config.model import ModelConfig
from burnish.config.parse import agree
from burnish.config.sft import SFTConfig
from burnish.config.values import ConfigError


@pytest.mark.parametrize("table", [DOORS, INSTEAD, METHODS_INSTEAD], ids=["names", "arguments", "methods"])
def test_a_sentence_is_ended_by_who_says_it(table):
    assert all(said and not said.endswith(".") for said in table.values())


def test_an_argument_without_counterpart():
    refuse_arguments({"data_collator": None})
    with pytest.raises(ConfigError) as refused:
        refuse_arguments({"data_collator": 3})
    assert str(refused.value) == (
        "The trainer has no argument 'data_collator': examples are laid out as token trees, which need no collator; leave it out."
    )


def test_a_name_that_cannot_be_imported_says_what_to_use():
    done = subprocess.run([sys.executable, "-c", "from burnish import PPOTrainer"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said == "ImportError: Burnish has no PPOTrainer: there is no PPO with a value model; use GRPOTrainer or RLOOTrainer."


def test_other_names_are_looked_up_as_before():
    get = with_doors({"a": 1}.__getitem__)
    assert get("a") == 1
    with pytest.raises(KeyError):
        get("b")


def test_what_model_init_kwargs_says_of_the_model_is_the_model_s():
    """As TRL's scripts say it, with a dtype of torch's, which is written "torch.bfloat16"."""
    said = {
        "dtype": type("dtype", (), {"__str__": lambda self: "torch.bfloat16"})(),
        "revision": None,
        "attn_implementation": "sdpa",
        "x": 1,
    }
    model, args = agree(ModelConfig(), SFTConfig(model_init_kwargs=said))
    assert (model.dtype, model.model_revision, model.attn_implementation) == ("bfloat16", "main", None)
    assert model.model_init_kwargs == args.model_init_kwargs == {"x": 1}


def test_what_both_say_must_be_the_same():
    with pytest.raises(ConfigError) as refused:
        agree(ModelConfig(dtype="float32"), SFTConfig(model_init_kwargs={"dtype": "bfloat16"}))
    assert str(refused.value) == "dtype is 'float32' in model_config and 'bfloat16' in model_init_kwargs; say it in one of them."
