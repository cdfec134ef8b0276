"""The table of old spellings, line by line."""

import pytest

from burnish.config import BCOConfig, DataConfig, DatasetSource, DPOConfig, GRPOConfig, ModelConfig, RLOOConfig, SFTConfig
from burnish.config.base import options
from burnish.config.renamed import Rule
from burnish.config.renamed_online import SPELLINGS

CLASSES = {
    **dict.fromkeys(("LoadConfig", "TrainConfig", "RowsConfig", "SFTConfig"), SFTConfig),
    "ModelConfig": ModelConfig,
    "DataConfig": DataConfig,
    "DatasetSource": DatasetSource,
    **dict.fromkeys(("ReferenceConfig", "KnownReferenceConfig", "DPOConfig"), DPOConfig),
    "BCOConfig": BCOConfig,
    **dict.fromkeys(("OnlineConfig", "VLLMConfig", "GRPOConfig"), GRPOConfig),
    "RLOOConfig": RLOOConfig,
}
RULES = [(owner, name, rule) for owner, table in SPELLINGS.items() for name, rule in table.items()]


@pytest.mark.parametrize(("owner", "name", "rule"), RULES, ids=[f"{owner}-{name}" for owner, name, _ in RULES])
def test_every_line_of_the_table_is_whole(owner: str, name: str, rule: Rule):
    """A line leads to an option that exists, or says why not; and a name that is an option leads to itself."""
    known = options(CLASSES[owner])
    assert rule.new in known if rule.new else (rule.instead or rule.note)
    assert name not in known or rule.new == name
    for sentence in filter(None, (rule.instead, rule.note)):
        assert not sentence.endswith(".")
