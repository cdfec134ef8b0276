import json
import math

import numpy as np
import pytest
import torch

from burnish.report.metrics import MetricsError, MetricsFile, read_metrics


@pytest.fixture
def file(tmp_path):
    return MetricsFile(tmp_path / "run" / "metrics.jsonl")


def test_lines_are_json_whatever_the_values(file):
    file.append({"step": 1, "loss": 0.1, "grad_norm": math.nan, "perplexity": math.inf, "low": -math.inf, "done": True, "note": None})
    file.append({"a": np.float32(0.5), "b": torch.tensor(2), "c": np.float64("nan"), "d": [1, np.int64(3)], "e": "⏎"})
    assert file.path.read_bytes().decode() == (
        '{"step": 1, "loss": 0.1, "grad_norm": "nan", "perplexity": "inf", "low": "-inf", "done": true, "note": null}\n'
        '{"a": 0.5, "b": 2, "c": "nan", "d": [1, 3], "e": "⏎"}\n'
    )
    first, second = read_metrics(file.path)
    assert math.isnan(first["grad_norm"])
    assert (first["perplexity"], first["low"], first["done"]) == (math.inf, -math.inf, True)
    assert second["e"] == "⏎"


def test_a_name_that_is_no_unicode_text(file):
    file.append({"rewards/\ud83d": 1.0})
    assert read_metrics(file.path) == [{"rewards/\ud83d": 1.0}]


def test_floats_come_back_to_the_bit(file):
    values = [0.1 + 0.2, 1e-310, 123456789.123456789, -0.0]
    file.append({str(index): value for index, value in enumerate(values)})
    assert [value.hex() for value in read_metrics(file.path)[0].values()] == [value.hex() for value in values]


def test_a_line_that_is_refused_leaves_nothing_behind(file):
    file.append({"step": 1})
    with pytest.raises(AttributeError):
        file.append({"step": 2, "loss": object()})
    assert read_metrics(file.path) == [{"step": 1}]


def test_truncate_takes_back_what_is_newer_than_the_checkpoint(file):
    file.append({"step": 1})
    offset = file.sync()
    assert offset == len('{"step": 1}\n')
    file.append({"step": 2})
    file.append({"step": 3})
    file.close()
    with file.path.open("a") as torn:
        torn.write('{"step": 4, "lo')
    resumed = MetricsFile(file.path)
    assert resumed.truncate(offset) == 3
    resumed.append({"step": 2})
    assert read_metrics(file.path) == [{"step": 1}, {"step": 2}]
    assert resumed.truncate(resumed.sync()) == 0
    assert resumed.truncate(0) == 2
    assert resumed.sync() == 0


def test_truncate_refuses_a_file_that_lost_lines(file):
    file.append({"step": 1})
    with pytest.raises(ValueError) as error:
        file.truncate(40)
    assert str(error.value) == (
        f"{file.path} has 12 bytes, but the checkpoint was written when it had 40; "
        "put the missing lines back, or start over in another output_dir."
    )
    with pytest.raises(ValueError, match="was changed: no line ends at byte 5, where"):
        file.truncate(5)
    assert read_metrics(file.path) == [{"step": 1}]


def test_reading_leaves_out_a_torn_last_line_and_nothing_else(file):
    file.path.write_bytes(b'{"step": 1}\n{"step": 2')
    assert read_metrics(file.path) == [{"step": 1}]
    file.path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError) as error:
        read_metrics(file.path)
    assert str(error.value) == f"Line 2 of {file.path} is no JSON object; delete it to read the others."
    file.path.write_bytes(json.dumps([1]).encode() + b"\n")
    with pytest.raises(ValueError, match="^Line 1 of"):
        read_metrics(file.path)


def test_a_file_that_may_not_be_written_to(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(MetricsError) as error:
        MetricsFile(tmp_path / "metrics.jsonl")
    assert str(error.value) == (
        f"{tmp_path}/metrics.jsonl cannot be written (Is a directory); see who may write there and start the same command again, "
        "which continues from the last checkpoint."
    )
