"""Options of sampling by a vLLM server: names and defaults as in TRL, and the sentence of every refusal."""

import pytest

from burnish.config.base import options
from burnish.config.grpo import GRPOConfig
from burnish.config.values import ConfigError
from burnish.config.vllm import VLLMConfig


def test_defaults_are_trls():
    """Of TRL 1.16's GRPOConfig; its host 0.0.0.0 is this machine, as 127.0.0.1 is."""
    args = VLLMConfig()
    assert (args.use_vllm, args.vllm_server_base_url, args.vllm_server_port, args.vllm_server_timeout) == (False, None, 8000, 240.0)
    assert args.vllm_importance_sampling_correction is True
    assert args.vllm_importance_sampling_mode == "sequence_mask"
    assert (args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min) == (3.0, None)


def test_every_help_is_a_short_sentence():
    for name, one in options(VLLMConfig).items():
        assert one.help.endswith("."), name
        assert len(one.help) <= 100, name


def test_the_address():
    assert VLLMConfig().vllm_url == "http://127.0.0.1:8000"
    assert VLLMConfig(use_vllm=True, vllm_server_host="node7", vllm_server_port=81).vllm_url == "http://node7:81"
    assert VLLMConfig(use_vllm=True, vllm_server_base_url="https://a/b").vllm_url == "https://a/b"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"vllm_server_port": 81}, "vllm_server_port=81 has no effect without use_vllm=True; add that, or leave it out."),
        (
            {"use_vllm": True, "vllm_server_base_url": "http://a", "vllm_server_host": "b"},
            "vllm_server_host='b' has no effect beside vllm_server_base_url='http://a'; give one of them.",
        ),
        (
            {"use_vllm": True, "vllm_importance_sampling_correction": False, "vllm_importance_sampling_clip_max": 2},
            "vllm_importance_sampling_clip_max=2.0 has no effect with vllm_importance_sampling_correction=False; leave one of them out.",
        ),
        (
            {"use_vllm": True, "vllm_importance_sampling_clip_min": 4},
            "vllm_importance_sampling_clip_min=4.0 is above vllm_importance_sampling_clip_max=3.0.",
        ),
        ({"use_vllm": True, "vllm_server_port": 0}, "vllm_server_port must be an integer of at least 1 and of at most 65535, not 0."),
    ],
)
def test_refusals(said, words):
    with pytest.raises(ConfigError) as error:
        VLLMConfig(**said)
    assert str(error.value) == words


def test_what_trl_says_of_a_server():
    """Its options of an engine in the trainer are the server's own."""
    config = GRPOConfig(
        use_vllm=True, vllm_mode="server", vllm_gpu_memory_utilization=0.3, vllm_group_port=5, vllm_importance_sampling_cap=2.0
    )
    assert config.vllm_importance_sampling_clip_max == 2.0
    assert config.notes == ("vllm_group_port=5 changes nothing: weights reach the server by path.",)
    with pytest.raises(ConfigError, match=r"vllm_mode='colocate' is refused: the server is a process of its own; start it"):
        GRPOConfig(use_vllm=True, vllm_mode="colocate")
    with pytest.raises(ConfigError, match=r"vllm_tensor_parallel_size=2 is refused: say it to the server: --tensor-parallel-size"):
        GRPOConfig(use_vllm=True, vllm_tensor_parallel_size=2)


def test_where_vllm_is_not_used_trl_s_defaults_say_nothing():
    """`0.0.0.0` is where TRL's server listens."""
    assert GRPOConfig(vllm_mode="colocate", vllm_server_host="0.0.0.0") == GRPOConfig()
    assert GRPOConfig(use_vllm=True, vllm_mode="server", vllm_server_host="0.0.0.0").vllm_url == "http://127.0.0.1:8000"
