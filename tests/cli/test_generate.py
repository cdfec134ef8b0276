"""`burnish generate`: what it writes, what it refuses, and that it refuses before torch is imported."""

import json
import math
import subprocess
import sys

import pytest
import torch
from tests.tiny import save_tiny_model, tiny_tokenizer, write_rows
from transformers import AutoModelForCausalLM

from burnish.cli.main import main

ROWS = [
    {"prompt": "w1 w2", "answer": 3},
    {"prompt": [{"role": "user", "content": "w3 w4"}]},
    {"messages": [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("generate")
    save_tiny_model(made / "model")
    write_rows(made / "prompts.jsonl", ROWS)
    return made


def run(folder, output, *more, rows="prompts.jsonl"):
    needed = ["--model_name_or_path", str(folder / "model"), "--dataset_name", str(folder / rows), "--output_file", str(output)]
    status = main(["generate", *needed, "--max_completion_length", "9", "--compute_dtype", "float32", *more])
    return status, [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def test_what_is_written(folder, tmp_path, capsys):
    """A line for each row, in their order; the log-prob is the sum of the tokens' under the model at the temperature."""
    status, lines = run(folder, tmp_path / "out.jsonl", "--num_generations", "3", "--temperature", "0.7")
    assert status == 0
    assert [line["prompt"] for line in lines] == [ROWS[0]["prompt"], ROWS[1]["prompt"], ROWS[2]["messages"][:1]]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder / "model").eval(), tiny_tokenizer()
    for line in lines:
        assert len({tuple(one["token_ids"]) for one in line["completions"]}) == len(line["completions"]) == 3
        prompt = line["prompt"]
        written = prompt if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        context = tokenizer(written).input_ids
        for one in line["completions"]:
            with torch.no_grad():
                logits = model(torch.tensor([context + one["token_ids"]])).logits[0, len(context) - 1 : -1]
            logp = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(one["token_ids"])[:, None]).double().sum()
            assert math.isclose(one["logp"], float(logp), abs_tol=1e-3)
            assert one["text"] == tokenizer.decode(one["token_ids"], skip_special_tokens=True)
            ended = one["token_ids"][-1] == tokenizer.eos_token_id
            assert (one["finish_reason"], ended or len(one["token_ids"]) == 9) == ("stop" if ended else "length", True)
    said = capsys.readouterr()
    assert "9 completions of 3 prompts" in said.out
    assert "LlamaForCausalLM: compute float32 (as asked), on cpu." in said.err


def test_the_same_seed_writes_the_same(folder, tmp_path):
    found = [run(folder, tmp_path / f"{i}.jsonl", "--seed", seed)[1] for i, seed in enumerate(("1", "1", "2"))]
    ids = [[line["completions"][0]["token_ids"] for line in lines] for lines in found]
    assert ids[0] == ids[1] != ids[2]


def test_options_reach_the_sampler(folder, tmp_path):
    """The most likely token each time, until a text is complete; half of all tokens end the turn where they are named in a stop."""
    _, greedy = run(folder, tmp_path / "greedy.jsonl", "--temperature", "0", "--num_generations", "2")
    assert all(line["completions"][0] == line["completions"][1] for line in greedy)
    text = greedy[0]["completions"][0]["text"]
    _, stopped = run(folder, tmp_path / "stopped.jsonl", "--temperature", "0", "--stop", text[:2])
    assert stopped[0]["completions"][0]["finish_reason"] == "stop"
    assert len(stopped[0]["completions"][0]["token_ids"]) < 9


def test_a_file_that_is_there_is_kept(folder, tmp_path, capsys):
    path = tmp_path / "out.jsonl"
    path.write_text('"mine"\n')
    assert run(folder, path) == (2, ["mine"])
    assert "is there already; name another, or set overwrite_output_file=True." in capsys.readouterr().err
    assert run(folder, path, "--overwrite_output_file")[0] == 0
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--use_peft"], "use_peft=True makes a new adapter"),
        (["--temperature", "-1"], "temperature must be"),
        (["--top_q", "1"], "top_q"),
        (["--dataset_name", "bad.jsonl"], "bad.jsonl line 2 has the columns ['answer'], but a row to sample from needs 'prompt'"),
        (["--output_file", "nowhere/out.jsonl"], "there is no folder"),
        (["--model_name_or_path", "./nowhere"], "there is no such folder"),
    ],
)
def test_what_is_refused_before_torch_is_imported(folder, tmp_path, more, sentence):
    write_rows(tmp_path / "bad.jsonl", [{"prompt": "w1"}, {"answer": 1}])
    needed = {"--model_name_or_path": f"{folder}/model", "--dataset_name": f"{folder}/prompts.jsonl", "--output_file": "out.jsonl"}
    needed |= dict([more]) if len(more) == 2 else {}
    given = [word for pair in needed.items() for word in pair] + more * (len(more) == 1)
    code = (
        f"import sys\nfrom burnish.cli.main import main\nstatus = main(['generate', *{given!r}])\n"
        "print('torch' in sys.modules)\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (2, ["False"]), done.stderr
    assert sentence in done.stderr
