"""Worker processes start an interpreter with transformers each: seconds, so there is one test of what they do."""

import pytest

from burnish.data import prepare as prepare_module
from burnish.data.prepare import PrepareOptions, prepare, worker_count
from burnish.data.rows import DataError, ListRows
from burnish.data.workers import Workers


def test_workers_give_what_one_process_gives_and_name_a_bad_row(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "BATCH_ROWS", 10)
    rows = ListRows(
        [{"messages": [{"role": "user", "content": "the dog " * i}, {"role": "assistant", "content": "fox"}]} for i in range(75)], "data"
    )
    options = PrepareOptions(max_length=100, assistant_only_loss=True)
    alone = prepare(rows, tokenizer, options, cache_dir=tmp_path / "a", num_proc=1)
    spread = prepare(rows, tokenizer, options, cache_dir=tmp_path / "b", num_proc=2)
    assert (spread.report, spread.fingerprint) == (alone.report, alone.fingerprint)
    assert 0 < alone.report.dropped_too_long < 75

    with pytest.raises(DataError, match=r"^data\[\d+\]: \d+ tokens are more than max_length=100; raise it"):
        prepare(rows, tokenizer, PrepareOptions(max_length=100, truncation_mode="error"), num_proc=2)


def test_a_worker_that_dies_is_said(monkeypatch):
    monkeypatch.setattr("burnish.data.workers.COMMAND", ["sh", "-c", "exit 7"])
    workers = Workers(1, {})
    with pytest.raises(
        DataError, match=r"^A worker process ended with status 7 while it prepared rows 20 to 21 \(its message stands above\)"
    ):
        workers([{}, {}], 20)
    with pytest.raises(DataError, match="ended with status 7"):
        workers([{}], 22)
    workers.close()


def test_a_tokenizer_that_cannot_be_sent():
    with pytest.raises(DataError, match=r"^The tokenizer cannot be sent to worker processes \(.*\); prepare with dataset_num_proc=1\.$"):
        Workers(1, {"tokenizer": lambda: None})


@pytest.mark.parametrize(("cores", "rows", "count"), [(2, 10**9, 1), (8, 20_000, 1), (8, 100_000, 2), (8, 10**9, 8), (64, 10**9, 16)])
def test_as_many_workers_as_pay(monkeypatch, cores, rows, count):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert worker_count(rows) == count
