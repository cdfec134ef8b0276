"""Rows → examples: checked, tokenised once per machine, kept on disk by content, every dropped or cut token accounted for.

store = prepare(open_rows("train.jsonl"), tokenizer, PrepareOptions(max_length=1024))
print(store.report)
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from burnish.data.cache import default_cache_dir, load_or_build
from burnish.data.formats import GROUP_FORMATS, Format, check_row, check_rows
from burnish.data.prepare_groups import Preparer, preparer_for
from burnish.data.prepare_report import PrepareReport, Tally
from burnish.data.readers import PrepareOptions, RowError
from burnish.data.rows import DataError, PlacedRows, Row, Rows, digest
from burnish.data.store import STORE_VERSION, Columns, ExampleStore, StoreWriter
from burnish.data.tokenise import tokenizer_identity
from burnish.data.workers import Workers

__all__ = ["PrepareOptions", "PrepareReport", "prepare"]

BATCH_ROWS = 500
PREPARE_VERSION = 2
"""Raise it when the same rows and options come to give other examples."""
DEADLINE_S = 600.0
"""For one batch of a worker."""


def prepare(
    rows: Rows,
    tokenizer: Any,
    options: PrepareOptions | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> ExampleStore:
    """Examples of all `rows`, from the cache where they were prepared before.

    The key is the content: rows, tokenizer, template and options. `cache_dir` defaults to ``$BURNISH_CACHE`` or
    ``~/.cache/burnish``. `num_proc` is the number of processes, this one included; by default, as many as pay. A tokenizer
    without a fast backend cannot be told from another by content: its rows are prepared in memory, every time.

    Errors: DataError for a row that cannot be used (named), for options that the format would ignore, where nothing is
    left to train on, and where the cache cannot be written.
    """
    options = options or PrepareOptions()
    if options.formatting_func is not None:
        rows = formatted(rows, options.formatting_func)
        options = replace(options, formatting_func=None, format=None, text_field="text")
    fmt = options.format or check_rows(rows, text_field=options.text_field, accepted=options.accepted)
    options = replace(options, format=fmt)

    def batches() -> Iterator[tuple[Columns, Tally]]:
        return prepare_batches(rows, tokenizer, options, fmt, num_proc)

    identity = tokenizer_identity(tokenizer)
    if identity is None:
        return _in_memory(rows, batches(), options, fmt)
    key = digest(PREPARE_VERSION, STORE_VERSION, rows.name, rows.fingerprint(), identity, asdict(options))
    folder = Path(cache_dir or default_cache_dir()).expanduser() / "examples" / key[:32]
    return load_or_build(folder, lambda path: _write(path, rows, batches(), options, fmt), what=rows.name)


def formatted(rows: Rows, formatting_func: Callable[[Row], Any]) -> Rows:
    """What `formatting_func` makes of each row: text, a list of messages, or a row. It is run anew each time; the key is its results."""
    return PlacedRows([format_row(formatting_func, rows[i], rows.where(i)) for i in range(len(rows))], rows)


def format_row(formatting_func: Callable[[Row], Any], row: Row, where: str) -> Row:
    """The row that `formatting_func` makes of `row`."""
    result = formatting_func(row)
    if isinstance(result, str):
        return {"text": result}
    if isinstance(result, dict):
        return result
    if isinstance(result, list) and all(isinstance(message, dict) for message in result):
        return {"messages": result}
    raise DataError(
        f"formatting_func made an object of type {type(result).__name__} of {where}; return text, a list of messages, or a row (a dict)."
    )


def prepare_batches(
    rows: Rows, tokenizer: Any, options: PrepareOptions, fmt: Format, num_proc: int | None
) -> Iterator[tuple[Columns, Tally]]:
    """Columns of the kept rows and the count of all, batch by batch, in order.

    This process prepares the batches for which no worker is ready.
    """
    preparer = preparer_for(tokenizer, options, fmt)
    began = time.perf_counter()
    yield named(rows, preparer, checked(rows, 0, min(BATCH_ROWS, len(rows)), fmt), 0)
    rest = range(BATCH_ROWS, len(rows), BATCH_ROWS)
    if num_proc is not None:
        count = min(num_proc - 1, len(rest))
    else:  # a tokenizer without a backend may be a class that no other process finds
        count = worker_count((time.perf_counter() - began) * len(rest)) if tokenizer.is_fast else 0
    with closing(Workers(count, preparer)) as workers:
        waiting: deque[Future[tuple[Columns, Tally]]] = deque()
        for start in rest:
            waiting.append(_submit(rows, workers, preparer, start, fmt))
            while waiting and (waiting[0].done() or len(waiting) > 4 * (count + 1)):
                yield named(rows, _result, waiting.popleft())
        while waiting:
            yield named(rows, _result, waiting.popleft())


def _submit(rows: Rows, workers: Workers, preparer: Preparer, start: int, fmt: Format) -> Future[tuple[Columns, Tally]]:
    """The batch at `start`, prepared by a worker or here. An error is kept until its turn, so that the first one is said."""
    here: Future[tuple[Columns, Tally]] = Future()
    try:
        batch = checked(rows, start, min(start + BATCH_ROWS, len(rows)), fmt)
        future = workers.submit(batch, start)
        if future is not None:
            return future
        here.set_result(preparer(batch, start))
    except DataError as error:
        here.set_exception(error)
    return here


def _result(batch: Future[tuple[Columns, Tally]]) -> tuple[Columns, Tally]:
    try:
        return batch.result(DEADLINE_S)
    except TimeoutError as error:
        raise DataError(
            f"A worker process has not prepared its {BATCH_ROWS:,} rows for {DEADLINE_S:.0f} s; prepare with dataset_num_proc=1."
        ) from error


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Keeps the collector from searching everything that was imported again and again while many small objects are made."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def worker_count(seconds: float) -> int:
    """As many workers as pay for work that would take this process `seconds`: a core each, and a second of work."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores - 1, 15, int(seconds))


def checked(rows: Rows, start: int, stop: int, fmt: Format) -> list[Row]:
    batch = rows.read(start, stop)
    for i, row in enumerate(batch, start):
        check_row(row, rows.where(i), fmt)
    return batch


def named(rows: Rows, work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work`, its row's place put into a `RowError`."""
    try:
        return work(*arguments)
    except RowError as error:
        raise DataError(f"{rows.where(error.row)}: {error.message}") from error


def _report(rows: Rows, tally: Tally, options: PrepareOptions, fmt: Format) -> PrepareReport:
    """Errors: DataError where no row is left."""
    report = tally.report(
        rows.where, max_length=options.max_length, truncation_mode=options.truncation_mode, format=str(fmt), unused_columns=fmt.unused
    )
    if not report.kept:
        raise DataError(_nothing_left(rows.name, report, options, fmt))
    return report


def _nothing_left(name: str, report: PrepareReport, options: PrepareOptions, fmt: Format) -> str:
    too_long = report.dropped_too_long + report.dropped_prompt_too_long
    if fmt.name in GROUP_FORMATS and too_long < report.rows:
        return f"Not one of the {report.rows:,} rows of {name} can be trained on: {report.dropped}; mend the rows."
    if report.max_length is not None and report.longest > report.max_length:
        or_cut = ", or cut rows with truncation_mode" if report.truncation_mode == "drop" else ""
        return (
            f"max_length={report.max_length} leaves no token to train on in the {report.rows:,} rows of {name}: the shortest has "
            f"{report.shortest:,} tokens and the median {report.median:,}; raise it{or_cut}."
        )
    if report.dropped_empty == report.rows:
        why = "all are empty; name other data, or another column"
    elif options.assistant_only_loss:
        why = "assistant_only_loss=True trains the assistant's turns, and there are none; leave it out, or mend the rows"
    else:
        why = f"of those that are not empty ({report.rows - report.dropped_empty:,}), labels or masks leave none; mend the rows"
    return f"Not one of the {report.rows:,} rows of {name} has a token to train on: {why}."


def _write(folder: Path, rows: Rows, batches: Iterator[tuple[Columns, Tally]], options: PrepareOptions, fmt: Format) -> None:
    tally = Tally()
    with StoreWriter(folder, rows.name) as writer, only_new_garbage():
        for columns, counted in batches:
            writer.append(columns)
            tally.merge(counted)
        writer.finish(_report(rows, tally, options, fmt))


def _in_memory(rows: Rows, batches: Iterator[tuple[Columns, Tally]], options: PrepareOptions, fmt: Format) -> ExampleStore:
    tally, parts = Tally(), []
    for columns, counted in batches:
        parts.append(columns)
        tally.merge(counted)
    report = _report(rows, tally, options, fmt)
    return ExampleStore({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, name=rows.name, report=report)
