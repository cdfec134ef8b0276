"""The machinery: checked options, exact sentences, frozen records."""

import copy
import dataclasses
import inspect
import pickle
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from burnish.config import Config, ConfigError, ModelConfig, SFTConfig, config, option
from burnish.config.values import Accepted, conform, describe, from_json, from_text, metavar


@config
class Inner(Config):
    name: str = option(help="A name.")
    share: float = option(1.0, "A share.", above=0)


@config
class Sample(Config):
    """One option of each kind."""

    count: int = option(3, "A count.", at_least=1, at_most=9)
    ratio: float | None = option(None, "A ratio.", at_least=0, below=1)
    either: int | float = option(0, "Steps or a share.")
    switch: bool | None = option(None, "A switch.")
    word: str = option("a", "A word.")
    kind: Literal["x", "y"] | None = option(None, "A choice.")
    words: list[str] | None = option(None, "Words.")
    kinds: list[Literal["x", "y"]] = option([], "Choices.")
    table: dict[str, float] | None = option(None, "A table.")
    inner: list[Inner] | None = option(None, "Records.")


class Letter(Enum):
    X = "x"


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("count", 4.0, 4),
        ("count", np.int64(5), 5),
        ("ratio", 0, 0.0),
        ("either", 7.0, 7),
        ("either", 0.5, 0.5),
        ("switch", True, True),
        ("word", Path("runs/sft"), "runs/sft"),
        ("kind", Letter.X, "x"),
        ("words", "one", ["one"]),
        ("words", ("one", "two"), ["one", "two"]),
        ("kinds", ["y"], ["y"]),
        ("table", '{"a": 1}', {"a": 1.0}),
        ("inner", [{"name": "n", "share": 2}], [Inner(name="n", share=2.0)]),
        ("inner", '[{"name": "n"}]', [Inner(name="n")]),
    ],
)
def test_accepted_values_are_stored_as_their_type(name, value, stored):
    got = vars(Sample(**{name: value}))[name]
    assert got == stored
    assert type(got) is type(stored)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"count": 0}, "count must be an integer of at least 1 and of at most 9, not 0."),
        ({"count": 1.5}, "count must be an integer of at least 1 and of at most 9, not 1.5."),
        ({"count": True}, "count must be an integer of at least 1 and of at most 9, not True."),
        ({"count": "4"}, "count must be an integer of at least 1 and of at most 9, not '4'."),
        ({"ratio": 1}, "ratio must be a number of at least 0 and below 1 or None, not 1."),
        ({"ratio": float("nan")}, "ratio must be a number of at least 0 and below 1 or None, not nan."),
        ({"either": float("inf")}, "either must be a number, not inf."),
        ({"switch": 1}, "switch must be True or False or None, not 1."),
        ({"word": 5}, "word must be a string, not 5."),
        ({"word": None}, "word must be a string, not None."),
        ({"kind": "z"}, "kind must be 'x' or 'y' or None, not 'z'."),
        ({"words": [1]}, "words must be a list of strings or None, not [1]."),
        ({"kinds": ["z"]}, "kinds must be a list of 'x' or 'y', not ['z']."),
        ({"table": "{"}, "table must be a mapping or None, not '{'."),
        ({"inner": [3]}, "inner must be a list of mappings with name, share or None, not [3]."),
        ({"inner": [{"share": 1}]}, "Inner needs name."),
        ({"inner": [{"nme": "n"}]}, "Inner has no option 'nme'; the nearest is 'name'."),
        ({"inner": [{"name": "n", "share": 0}]}, "share must be a number above 0, not 0."),
        ({"cuont": 3}, "Sample has no option 'cuont'; the nearest is 'count'."),
        ({"zzz": 3}, "Sample has no option 'zzz'."),
    ],
)
def test_refusals_name_the_option_the_value_and_what_is_accepted(said, sentence):
    with pytest.raises(ConfigError) as refusal:
        Sample(**said)
    assert str(refusal.value) == sentence


def test_options_have_names():
    with pytest.raises(ConfigError) as refusal:
        SFTConfig("runs/mine")
    assert str(refusal.value) == "SFTConfig takes options by name, and 'runs/mine' has none; write option='runs/mine'."


def test_a_configuration_is_frozen_and_survives_copying():
    made = SFTConfig(learning_rate=1e-3, packing=True)
    with pytest.raises(ConfigError) as refusal:
        made.learning_rate = 1.0
    assert str(refusal.value) == "SFTConfig is checked as a whole and then stays as it is; say learning_rate=1.0 where it is made."
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), dataclasses.replace(made)):
        assert other == made
        assert other.notes == made.notes
        assert len(other.notes) == 1
    assert dataclasses.replace(made, learning_rate=2).learning_rate == 2.0
    with pytest.raises(ConfigError, match="learning_rate must be a number above 0, not 0"):
        dataclasses.replace(made, learning_rate=0)


def test_defaults_that_are_lists_are_not_shared():
    first = SFTConfig()
    first.report_to.append("wandb")
    assert SFTConfig().report_to == []


def test_the_signature_shows_the_options_by_their_names_and_defaults():
    parameters = inspect.signature(SFTConfig).parameters
    assert parameters["learning_rate"].default == 2e-5
    assert parameters["max_length"].annotation == int | None
    assert "per_device_train_batch_size" not in parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


def test_a_subclass_takes_the_old_spellings_of_its_bases():
    @config
    class Mine(SFTConfig):
        """One option more."""

        margin: float = option(0.5, "A margin.", at_least=0)

    mine = Mine(margin=1, max_seq_length=7, output_dir=None)
    assert (mine.margin, mine.max_length, mine.output_dir, mine.learning_rate) == (1.0, 7, "runs/sft", 2e-5)


def test_changed_lists_what_is_not_at_its_default():
    assert ModelConfig(use_peft=True, lora_r=8).changed("lora_r", "lora_alpha", "use_peft") == ["lora_r=8", "use_peft=True"]


@pytest.mark.parametrize(
    ("kind", "said", "shown"),
    [
        (int | None, "an integer of at least 1 or None", "INT|None"),
        (int | float | None, "a number of at least 1 or None", "INT|FLOAT|None"),
        (bool, "True or False", "{true,false}"),
        (str | list[str] | None, "a string or a list of strings or None", "STR|STR [STR ...]|None"),
        (Literal["a", "b", "c"], "'a', 'b' or 'c'", "{a,b,c}"),
        (list[Literal["a", "b"]], "a list of 'a' or 'b'", "{a,b} [{a,b} ...]"),
        (dict[str, str], "a mapping", "JSON"),
        (list[Inner], "a list of mappings with name, share", "JSON"),
    ],
)
def test_kinds_in_words_and_in_the_help(kind, said, shown):
    assert describe(kind, Accepted(at_least=1)) == said
    assert metavar(kind) == shown


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("-1", int, -1),
        ("1e-4", float, 1e-4),
        ("3", int | float, 3),
        ("0.1", int | float, 0.1),
        ("3", str, "3"),
        ("None", int | None, None),
        ("null", str | None, None),
        ("None", str, "None"),
        ("TRUE", bool, True),
        ("false", bool | None, False),
        ("maybe", bool, "maybe"),
        ("abc", float, "abc"),
    ],
)
def test_words_of_the_command_line(text, kind, value):
    got = from_text(text, kind)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), ("1e-2", 0.01), ("true", True), ("False", False), ("None", None), ("null", None), ('{"a": 1}', {"a": 1}), ("full", "full")],
)
def test_words_without_a_kind(text, value):
    assert from_json(text) == value


def test_conform_refuses_with_a_type_error():
    with pytest.raises(TypeError):
        conform("x", int | None)
