"""Everything that a training imports, so that a process forked after this one's import starts at once."""

import peft  # noqa: F401
import rich.progress  # noqa: F401
import safetensors.torch  # noqa: F401
import torch
import torch.distributed.checkpoint
import torch.distributed.fsdp  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
import tyro  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

import burnish.cli.early
import burnish.cli.main
import burnish.cli.train
import burnish.methods.dpo  # noqa: F401
import burnish.methods.grpo  # noqa: F401
import burnish.methods.sft  # noqa: F401

torch.set_num_threads(1)
