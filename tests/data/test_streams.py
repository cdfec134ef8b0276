from itertools import islice
from pathlib import Path

import pytest

from burnish.data.rows import DataError, ListRows
from burnish.data.sources import open_rows
from burnish.data.streams import StreamMixture, StreamRows


def stream(count, name="rows"):
    return StreamRows.over(ListRows([{"n": i} for i in range(count)], name))


def iterable(count):
    import datasets

    return open_rows(datasets.Dataset.from_list([{"n": i} for i in range(count)]).to_iterable_dataset(num_shards=2))


@pytest.mark.parametrize("make", [stream, iterable])
def test_a_stream_continues_from_its_cursor(make):
    rows = make(6)
    assert [row["n"] for row in islice(rows, 2)] == [0, 1]
    assert rows.state == 2
    assert [row["n"] for row in rows.head(1)] == [0]
    assert [row["n"] for row in rows] == [2, 3, 4, 5]
    assert rows.state == 6
    rows.seek(4)
    assert [row["n"] for row in rows] == [4, 5]


def test_open_rows_streams_a_file_and_selects_columns(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 0, "m": 1}\n{"n": 1, "m": 2}\n')
    rows = open_rows(tmp_path / "a.jsonl", streaming=True, columns=["m"])
    assert (list(rows), rows.where(1), rows.name) == ([{"m": 1}, {"m": 2}], "a.jsonl line 2", "a")
    with pytest.raises(DataError, match=r"^Column 'x' of `columns` is not among the columns of stream, \['n'\]\.$"):
        open_rows(iterable(2), columns=["x"])
    with pytest.raises(DataError, match=r"^split='train\[:2\]' slices a stream, whose length is not known; give split='train'\.$"):
        open_rows(iterable(3), split="train[:2]")


def test_a_shuffled_pass_is_a_permutation_and_continues_at_any_row():
    rows = stream(11)
    whole = [row["n"] for _, row in rows.rows_from(0, 4, (7, 0, 0))]
    assert sorted(whole) == list(range(11))
    assert whole != list(range(11))
    assert [sorted(whole[a : a + 4]) for a in (0, 4, 8)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    for start in range(12):
        assert [row["n"] for _, row in rows.rows_from(start, 4, (7, 0, 0))] == whole[start:]
    assert [row["n"] for _, row in rows.rows_from(0, 4, (7, 1, 0))] != whole


def drawn(mixture, epoch, index, count=1000):
    return [(source, number, row["n"]) for source, number, row in islice(mixture.rows(epoch, index), count)]


@pytest.mark.parametrize("buffer", [0, 3])
def test_streams_one_after_the_other_continue_at_any_index(buffer):
    mixture = StreamMixture([stream(5), stream(4)], seed=1, shuffle_buffer=buffer)
    for epoch in range(2):
        whole = drawn(mixture, epoch, 0)
        assert sorted(whole) == [(0, i, i) for i in range(5)] + [(1, i, i) for i in range(4)]
        assert [source for source, _, _ in whole] == [0] * 5 + [1] * 4
        for index in range(10):
            assert drawn(mixture, epoch, index) == whole[index:]
    assert (drawn(mixture, 0, 0) == drawn(mixture, 1, 0)) == (buffer == 0)


@pytest.mark.parametrize("buffer", [0, 3])
def test_a_weighted_mixture_continues_at_any_index_over_many_laps(buffer):
    mixture = StreamMixture([stream(5), stream(40)], [3, 1], seed=1, shuffle_buffer=buffer)
    whole = drawn(mixture, 0, 0, 60)
    first = [n for source, _, n in whole if source == 0]
    assert 35 <= len(first) <= 55
    assert all(sorted(first[a : a + 5]) == [0, 1, 2, 3, 4] for a in range(0, len(first) - 5, 5))
    for index in (1, 4, 5, 17, 33, 59):
        assert drawn(mixture, 0, index, 60 - index) == whole[index:]
    with pytest.raises(DataError, match="one endless epoch, number 0, not 1"):
        drawn(mixture, 1, 0)


def test_an_empty_stream_in_a_mixture():
    with pytest.raises(DataError, match=r"^The stream nothing is empty\.$"):
        drawn(StreamMixture([stream(0, "nothing"), stream(1)], [1, 1], seed=1), 0, 0, 10)


def test_files_of_lines_are_streamed_without_an_index(tmp_path, monkeypatch):
    """Blank lines are no rows, places are lines of files, a cursor counts rows over all files; a slice needs their number, and indexes."""
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n\n{"n": 1}\n')
    (tmp_path / "b.jsonl").write_text('  \n{"n": 2}\n[3]\n')
    sliced = open_rows(tmp_path / "a.jsonl", split="train[1:]", streaming=True)
    assert [row["n"] for row in sliced] == [1]
    monkeypatch.setattr("burnish.data.files.JsonLines.__init__", None)
    for source in (tmp_path, tmp_path / "*.jsonl"):
        rows = open_rows(source, streaming=True)
        assert [row["n"] for row in rows.head(3)] == [0, 1, 2]
        assert [rows.where(i) for i in range(4)] == ["a.jsonl line 1", "a.jsonl line 3", "b.jsonl line 2", "b.jsonl line 3"]
        rows.seek(2)
        assert next(iter(rows)) == {"n": 2}
        with pytest.raises(DataError, match=r"^b\.jsonl line 3 is JSON of type list, not an object; write one object on each line\.$"):
            list(rows)
    (tmp_path / "c.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match=r"c\.jsonl is empty: it has no rows\.$"):
        open_rows(tmp_path / "c.jsonl", streaming=True)


def test_to_say_where_a_row_stands_reads_nothing(tmp_path, monkeypatch):
    """Of 300 rows in two files, some lines blank; each place is asked for, which once took a pass over the files each time."""
    lines = [[f'{{"n": {i}}}' if i % 7 else "" for i in range(part, part + 175)] for part in (0, 175)]
    for name, part in zip("ab", lines, strict=True):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    opened, plain = [], Path.open
    rows = open_rows(tmp_path, streaming=True)
    monkeypatch.setattr(Path, "open", lambda path, *given, **named: opened.append(path.name) or plain(path, *given, **named))
    wanted = [f"{name}.jsonl line {i}" for name, part in zip("ab", lines, strict=True) for i, line in enumerate(part, 1) if line]
    assert [rows.where(i) for i, _ in enumerate(rows)] == wanted
    assert len(wanted) == 300
    rows.seek(0)
    assert [rows.where(i) for i, _ in enumerate(rows)] == wanted, "a second pass knows no blank line twice"
    assert opened == ["a.jsonl", "b.jsonl"] * 2
