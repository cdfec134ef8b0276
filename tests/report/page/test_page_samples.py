"""Samples in parts: columns, tables of names, texts and tokens, with the numbers that were written."""

import json

import pytest
from tests.pages import make_run, sample, write_samples

from burnish.report.page.samples import part_at, parts_since, said_of, torn
from burnish.report.page.tail import Place


def only(folder):
    (part,) = parts_since(folder, Place())
    return part


def test_columns(tmp_path):
    """Two samples of one prompt in one step; the second has no reward, since one failed."""
    failed = {"right": {"failure": "ValueError", "detail": "no"}, "other": 2.0}
    first = sample(3, "rows:7", 0, reward=0.5, tokens=(1, 2, 1))
    second = sample(3, "rows:7", 1, reward=None, finish_reason="length", rewards=failed, advantage=-1.25)
    write_samples(tmp_path, [[first, second]])
    index = only(tmp_path).index
    assert {name: index[name] for name in ("step", "sample", "reward", "advantage", "length")} == {
        "step": [3, 3],
        "sample": [0, 1],
        "reward": [0.5, None],
        "advantage": [0.5, -1.25],
        "length": [3, 2],
    }
    assert [index["finishes"][i] for i in index["finish"]] == ["stop", "length"]
    assert (index["reasons"], index["reason"]) == (["ValueError"], [-1, 0])
    assert (index["groups"], index["group"], index["sets"]) == (["rows:7"], [0, 0], ["train"])
    assert index["shown"] == ["step 3 rows:7 number 0", "step 3 rows:7 number 1"]


def test_tokens_and_text(tmp_path):
    """Log-probs are in ten-thousandths; of trained tokens only the lengths of runs are kept, that of context first."""
    line = sample(tokens=(1, 2, 3, 4), logp=[-0.1234, None, -2.0, float("nan")], trained=[1, 0, 0, 1], extras={"x": float("inf")})
    line |= {"sampled_logp": [-0.5, None, None, None], "ref_logp": [-1.0] * 4}
    write_samples(tmp_path, [[line, sample(number=1)]])
    part = only(tmp_path)
    first, second = part.tokens["samples"]
    assert (first["t"], first["l"], first["s"], first["f"]) == (
        [1, 2, 3, 4],
        [-1234, None, -20000, None],
        [-5000, None, None, None],
        [-10000] * 4,
    )
    assert first["m"] == [0, 1, 2, 1]
    assert first["extras"] == {"x": "inf"}
    assert "m" not in second
    assert "s" not in second
    assert part.tokens["asked"] == [(0, 1)]
    assert part.text["text"][1] == "step 0 rows:0 number 1"
    assert part.text["prompts"] == ["<|im_start|>user\nasked rows:0<|im_end|>\n"]
    assert part.ids == {0, 1, 2, 3, 4}
    json.dumps([part.index, part.text, part.tokens], allow_nan=False)


def test_context_first(tmp_path):
    write_samples(tmp_path, [[sample(tokens=(1, 2, 3), trained=[0, 0, 1])]])
    assert only(tmp_path).tokens["samples"][0]["m"] == [2, 1]


def test_parts_end_with_steps_and_begin_where_the_last_ended(tmp_path, monkeypatch):
    """Of steps of 6 samples, with 10 in a part: 12, 12."""
    monkeypatch.setattr("burnish.report.page.samples.SAMPLES", 10)
    run = make_run(tmp_path)
    parts = list(parts_since(run, Place()))
    assert [part.index["step"] for part in parts] == [[0] * 6 + [1] * 6, [2] * 6 + [3] * 6]
    again = part_at(run, parts[0].after)
    assert again is not None
    assert again.index == parts[1].index
    assert part_at(run, parts[1].after) is None


def test_further_files(tmp_path):
    files = write_samples(tmp_path, [[sample(0)]])
    (first,) = parts_since(tmp_path, Place())
    files.place = (1, 0)
    files.append([sample(1)])
    assert [part.index["step"] for part in parts_since(tmp_path, Place())] == [[0], [1]]
    (second,) = parts_since(tmp_path, first.after)
    assert (second.index["step"], second.after.file) == ([1], 1)


def test_a_file_that_was_cut_away(tmp_path):
    """Place 500 of file 1 is not there any more; nor is one of file 0, where all are gone."""
    write_samples(tmp_path, [[sample(0)]])
    with pytest.raises(ValueError, match="has no file 1 of samples any more"):
        list(parts_since(tmp_path, Place(file=1, offset=500, check=9)))
    with pytest.raises(ValueError, match="has no file 0"):
        list(parts_since(tmp_path / "none", Place(offset=500, check=9)))


def test_a_step_that_is_being_written_is_left_out_and_said(tmp_path):
    run = make_run(tmp_path)
    path = tmp_path / "samples" / "00000.jsonl.gz"
    assert list(torn(run, {0: only(run).after})) == []
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert only(run).index["step"] == [0] * 6 + [1] * 6 + [2] * 6
    said = f"00000.jsonl.gz is whole up to byte {only(run).after.offset:,} of {size - 1:,}; what is after it is left out."
    assert list(torn(run, {0: only(run).after})) == [said]


def test_a_file_that_ends_with_what_is_no_sample_is_whole(tmp_path, monkeypatch):
    """A step without a line, and a line that is none, are of no part; of the second file nothing is whole."""
    monkeypatch.setattr("burnish.report.page.samples.SAMPLES", 1)
    files = write_samples(tmp_path, [[sample()], [], [{"step": 1}]])
    files.place = (1, 0)
    files.append([sample(1)])
    path = tmp_path / "samples" / "00001.jsonl.gz"
    path.write_bytes(path.read_bytes()[:9])
    (part,) = parts_since(tmp_path, Place())
    (said,) = torn(tmp_path, {0: part.after})
    assert said.startswith("00001.jsonl.gz is whole up to byte 0 of 9;")


def test_lines_that_are_no_samples_are_left_out(tmp_path):
    write_samples(tmp_path, [[sample(), {"step": 1}, sample(number=1)]])
    assert only(tmp_path).index["sample"] == [0, 1]


def test_no_samples(tmp_path):
    assert list(parts_since(tmp_path, Place())) == []
    assert list(torn(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "one"}], "one"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], "user: a\nassistant: "),
        ([{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}], ' [{"name": "f"}]'),
    ],
)
def test_messages_as_text(text, said):
    assert said_of(text) == said
