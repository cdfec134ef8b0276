"""Worker processes give what this process gives, and nothing waits for one that does not come."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest

from burnish.data import prepare as prepare_module
from burnish.data.formats import check_rows
from burnish.data.prepare import PrepareOptions, prepare, worker_count
from burnish.data.prepare_batch import BatchPreparer
from burnish.data.rows import DataError, ListRows
from burnish.data.workers import Workers
from tests.data.in_worker import Sleeper, Spy
from tests.data.small_templates import CHATML, QWEN3

ROWS = ListRows(
    [{"messages": [{"role": "user", "content": "the dog " * (i + 1)}, {"role": "assistant", "content": "fox"}]} for i in range(75)], "data"
)


def ask(workers, rows, first, *, submit=Workers.submit):
    """A worker's answer to come, once a worker is ready."""
    deadline = time.monotonic() + 60
    while (future := submit(workers, rows, first)) is None:
        assert time.monotonic() < deadline, "no worker became ready"
        time.sleep(0.005)
    return future


@pytest.fixture
def all_by_workers(monkeypatch):
    """Every batch but the first is prepared by a worker."""
    submit, counted = Workers.submit, []

    def patient(self, rows, first):
        if not self._workers:
            return None
        counted.append(len(rows))
        return ask(self, rows, first, submit=submit)

    monkeypatch.setattr(Workers, "submit", patient)
    monkeypatch.setattr(prepare_module, "BATCH_ROWS", 10)
    return counted


@pytest.mark.parametrize(
    ("num_proc", "options"),
    [
        (2, {"assistant_only_loss": True, "chat_template": CHATML}),
        (3, {"assistant_only_loss": True, "chat_template": QWEN3}),
        (2, {"chat_template": CHATML}),
    ],
)
def test_workers_give_what_one_process_gives(num_proc, options, tokenizer, tmp_path, all_by_workers):
    options = PrepareOptions(max_length=100, **options)
    alone = prepare(ROWS, tokenizer, options, cache_dir=tmp_path / "a", num_proc=1)
    spread = prepare(ROWS, tokenizer, options, cache_dir=tmp_path / "b", num_proc=num_proc)
    assert (spread.report, spread.fingerprint) == (alone.report, alone.fingerprint)
    assert 0 < alone.report.dropped_too_long < 75
    assert sum(all_by_workers) == 65


def test_the_first_bad_row_is_named_whoever_finds_it(tokenizer, all_by_workers):
    options = PrepareOptions(max_length=60, truncation_mode="error", chat_template=CHATML)
    said = []
    for num_proc in (1, 2):
        with pytest.raises(DataError, match=r"^data\[\d+\]: \d+ tokens are more than max_length=60; raise it") as error:
            prepare(ROWS, tokenizer, options, num_proc=num_proc)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_script_is_not_run_again_by_its_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.data.test_workers import ROWS, ask\n"
        "from tests.chat_tokenizers import byte_level\n"
        "from tests.data.small_templates import CHATML, SPECIAL\n"
        "from burnish.data.formats import check_rows\n"
        "from burnish.data.prepare import PrepareOptions\n"
        "from burnish.data.prepare_batch import BatchPreparer\n"
        "from burnish.data.workers import Workers\n"
        "print('once')\n"
        "tokenizer = byte_level(CHATML, SPECIAL, eos='<|im_end|>', bos='<s>')\n"
        "workers = Workers(1, BatchPreparer(tokenizer, PrepareOptions(), check_rows(ROWS)))\n"
        "print(ask(workers, ROWS.read(0, 3), 0).result()[1].counts['kept'])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.stdout, done.returncode) == ("once\n3\n", 0), done.stderr


@pytest.mark.parametrize("assistant_only_loss", [False, True])
def test_a_worker_that_knows_the_outlines_imports_neither_torch_nor_transformers(assistant_only_loss, tokenizer):
    options = PrepareOptions(assistant_only_loss=assistant_only_loss, chat_template=CHATML)
    preparer = BatchPreparer(tokenizer, options, check_rows(ROWS))
    preparer(ROWS.read(0, 5), 0)
    workers = Workers(1, Spy(preparer))
    kept, heavy = ask(workers, ROWS.read(5, 10), 5).result(60)
    workers.close()
    assert kept == 5
    assert heavy == []


def test_a_worker_that_cannot_start_is_done_without(monkeypatch, tokenizer, tmp_path, caplog):
    monkeypatch.setattr("burnish.data.workers.COMMAND", ["sh", "-c", "exit 7"])
    monkeypatch.setattr(prepare_module, "BATCH_ROWS", 10)
    read = ListRows.read
    monkeypatch.setattr(ListRows, "read", lambda *a: time.sleep(0.05) or read(*a))  # time for the worker to fail
    options = PrepareOptions(chat_template=CHATML)
    assert prepare(ROWS, tokenizer, options, cache_dir=tmp_path, num_proc=2).report.kept == 75
    assert [record.getMessage() for record in caplog.records] == [
        "A worker process ended with status 7 as it started (its message stands above); rows are prepared without it."
    ]


def test_a_worker_that_dies_at_work_is_said():
    workers = Workers(1, Sleeper())
    futures = [ask(workers, [{}, {}], first) for first in (20, 22)]
    assert workers.submit([{}], 24) is None  # it has enough
    workers._workers[0]._process.kill()
    for future, which in zip(futures, ("20 to 21", "22 to 23"), strict=True):
        with pytest.raises(DataError, match=rf"^A worker process ended with status -9 while it prepared rows {which} \(its message stands"):
            future.result(60)
    assert workers.submit([{}], 26) is None
    workers.close()


def test_a_worker_that_does_not_answer_has_a_deadline(monkeypatch):
    monkeypatch.setattr(prepare_module, "DEADLINE_S", 0.1)
    said = r"^A worker process has not prepared its 500 rows for 0 s; prepare with dataset_num_proc=1\.$"
    with pytest.raises(DataError, match=said):
        prepare_module._result(Future())


def test_a_tokenizer_that_cannot_be_sent():
    with pytest.raises(DataError, match=r"^The tokenizer cannot be sent to worker processes \(.*\); prepare with dataset_num_proc=1\.$"):
        Workers(1, {"tokenizer": lambda: None})


@pytest.mark.parametrize(("cores", "seconds", "count"), [(1, 1e9, 0), (2, 1e9, 1), (8, 0.9, 0), (8, 2.5, 2), (8, 1e9, 7), (64, 1e9, 15)])
def test_as_many_workers_as_pay(monkeypatch, cores, seconds, count):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert worker_count(seconds) == count
