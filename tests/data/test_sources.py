import json
import subprocess
import sys

import pytest

from burnish.data.rows import DataError, JoinedRows, ListRows
from burnish.data.sources import open_rows


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def failure(*arguments, **options):
    with pytest.raises(DataError) as caught:
        list(open_rows(*arguments, **options))
    return str(caught.value)


def test_json_lines_are_rows_by_number_and_places_by_line(tmp_path):
    path = write(tmp_path / "train.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}\n\t{"text": "\xc3\xa9"}')
    rows = open_rows(path)
    assert list(rows) == [{"text": "a"}, {"text": "b"}, {"text": "é"}]
    assert [rows.where(i) for i in range(3)] == ["train.jsonl line 1", "train.jsonl line 4", "train.jsonl line 5"]
    assert (rows.name, rows.column_names, rows.read(1, 3)) == ("train", ["text"], [{"text": "b"}, {"text": "é"}])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": }', "train.jsonl line 2 is not JSON (Expecting value at column 10); write one object on each line."),
        (b"[1, 2]", "train.jsonl line 2 is JSON of type list, not an object; write one object on each line."),
        (b'{"text": "\xff"}', "train.jsonl line 2 is not UTF-8 text (invalid start byte at byte 10); convert the file to UTF-8."),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "train.jsonl", b'{"text": "a"}\n' + line + b"\n")
    assert open_rows(path)[0] == {"text": "a"}
    assert failure(path) == message


def test_json_is_an_array_or_lines(tmp_path):
    array = open_rows(write(tmp_path / "a.json", ' [{"text": "a"}, {"text": "b"}]'))
    assert (list(array), array.where(1)) == ([{"text": "a"}, {"text": "b"}], "a.json[1]")
    assert list(open_rows(write(tmp_path / "b.json", lines({"text": "a"}, {"text": "b"})))) == [{"text": "a"}, {"text": "b"}]
    path = write(tmp_path / "c.json", '{\n "data": []\n}')
    assert failure(path) == f"{path} is one JSON object; give an array of objects, or one object on each line."
    assert failure(write(tmp_path / "d.json", '[{"text": "a"},\n {]')) == (
        "d.json line 2 is not JSON (Expecting property name enclosed in double quotes at column 3)."
    )
    assert failure(write(tmp_path / "e.json", "[1]")) == "e.json[0] is of type int, not an object of columns; give a list of dicts."


def test_csv_places_are_lines_even_after_a_cell_of_several(tmp_path):
    long = "x" * 200_000
    rows = open_rows(write(tmp_path / "a.csv", f'prompt,completion\n"two\nlines, one cell",b\n\n{long},d\n'))
    assert list(rows) == [{"prompt": "two\nlines, one cell", "completion": "b"}, {"prompt": long, "completion": "d"}]
    assert [rows.where(i) for i in range(2)] == ["a.csv line 2", "a.csv line 5"]
    assert list(open_rows(write(tmp_path / "a.tsv", "text\tid\na, b\t1\n"))) == [{"text": "a, b", "id": "1"}]
    assert failure(write(tmp_path / "b.csv", "a,b\n1,2\n1,2,3\n")) == "b.csv line 3 has 3 cells, but the header names 2 columns."


def test_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a", "b"], "id": [1, 2]}), tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet", columns=["text"])
    assert (list(rows), rows.where(1), rows.column_names) == ([{"text": "a"}, {"text": "b"}], "a.parquet[1]", ["text"])
    path = write(tmp_path / "b.parquet", "text")
    assert failure(path).startswith(f"{path} is not a Parquet file (")


def test_a_folder_gives_the_files_of_a_split(tmp_path):
    for name in ("train-0.jsonl", "train-1.jsonl", "test.jsonl"):
        write(tmp_path / name, lines({"text": name}))
    write(tmp_path / "README.md", "no rows")
    train = open_rows(tmp_path)
    assert isinstance(train, JoinedRows)
    assert (list(train), train.name) == ([{"text": "train-0.jsonl"}, {"text": "train-1.jsonl"}], tmp_path.name)
    assert (train.where(1), train.read(0, 2)) == ("train-1.jsonl line 1", list(train))
    twice = JoinedRows([train, train, ListRows([{"text": "x"}])], "twice")
    assert [twice.read(a, b) for a, b in ((0, 1), (1, 4), (3, 5))] == [list(twice)[a:b] for a, b in ((0, 1), (1, 4), (3, 5))]
    assert list(open_rows(tmp_path, split="test")) == [{"text": "test.jsonl"}]
    assert list(open_rows(str(tmp_path / "t*-*.jsonl"))) == list(train)
    assert failure(tmp_path, split="validation") == (
        f"No file of {tmp_path} is named for the split 'validation': its files are test.jsonl, train-0.jsonl, train-1.jsonl."
    )


def test_files_that_name_no_split_are_train(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "eval.jsonl"):
        write(tmp_path / name, lines({"text": name}))
    assert list(open_rows(tmp_path)) == [{"text": "a.jsonl"}, {"text": "b.jsonl"}]
    assert list(open_rows(tmp_path, split="validation")) == [{"text": "eval.jsonl"}]


@pytest.mark.parametrize(
    ("split", "numbers"),
    [("train[:3]", [0, 1, 2]), ("train[80%:]", [8, 9]), ("train[:80%]", list(range(8))), ("train[-2:]", [8, 9]), ("train[2:4]", [2, 3])],
)
def test_slices_of_a_split(tmp_path, split, numbers):
    rows = open_rows(write(tmp_path / "a.jsonl", lines(*({"n": i} for i in range(10)))), split=split)
    assert [row["n"] for row in rows] == numbers
    assert rows.where(0) == f"a.jsonl line {numbers[0] + 1}"


def test_what_cannot_be_opened(tmp_path):
    path = write(tmp_path / "train.jsonl", lines({"text": "a"}))
    assert failure(tmp_path / "trian.jsonl") == f"There is no file or folder {tmp_path}/trian.jsonl (did you mean 'train.jsonl'?)."
    empty = write(tmp_path / "empty.jsonl", "\n \n")
    assert failure(empty) == f"{empty} is empty: it has no rows."
    nothing = write(tmp_path / "nothing.csv", "")
    assert failure(nothing) == f"{nothing} is empty: it has no rows."
    assert failure(path, split="test") == (
        f"split='test' was asked of {path}; give a file for each split, or a slice such as 'train[90%:]'."
    )
    assert failure(path, split="train[5:]") == "split='train[5:]' selects none of the 1 rows of train."
    assert failure(path, split="train[x]") == (
        "split='train[x]' is neither a split's name nor a slice such as 'train[:1000]' or 'train[90%:]'."
    )
    assert failure(path, config_name="en") == f"config_name='en' needs a hub data set, but {path} is local; leave it out."
    assert failure(path, columns=["txt"]) == (
        "Column 'txt' of `columns` is not among the columns of train, ['text'] (did you mean 'text'?)."
    )
    other = write(tmp_path / "a.txt", "x")
    assert failure(other) == f"{other} has the suffix '.txt'; give a file in one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet."
    assert failure(tmp_path / "*.csvx") == f"There is no .jsonl, .ndjson, .json, .csv, .tsv, .parquet file in {tmp_path}/*.csvx."
    assert failure([]) == "rows is empty: split 'train' has no rows."
    assert failure([{"text": "a"}, "b"]) == "rows[1] is of type str, not an object of columns; give a list of dicts."
    assert failure(7) == "Rows cannot be read from an object of type int; give a path, a hub id, a datasets.Dataset or a list of dicts."
    assert failure({"train": [{"a": 1}]}, split="tran") == "There is no split 'tran' among ['train'] (did you mean 'train'?)."


def test_lists_and_dicts_of_splits():
    rows = open_rows([{"text": "a"}, {"text": "b"}])
    assert (rows[1], rows.where(1), len(rows)) == ({"text": "b"}, "rows[1]", 2)
    assert open_rows({"train": [{"text": "a"}], "test": [{"text": "b"}]}, split="test")[0] == {"text": "b"}
    assert open_rows(rows) is rows


def test_datasets(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_list([{"text": "a", "n": 1}, {"text": "b", "n": 2}, {"text": "c", "n": 3}])
    rows = open_rows(dataset, columns=["text"])
    assert (rows.read(1, 3), rows[0], len(rows)) == ([{"text": "b"}, {"text": "c"}], {"text": "a"}, 3)
    assert open_rows(dataset.with_format("torch"))[2] == {"text": "c", "n": 3}
    assert "with_transform" in failure(dataset.with_transform(lambda batch: batch))
    dataset.save_to_disk(tmp_path / "saved")
    assert list(open_rows(tmp_path / "saved")) == list(dataset)
    assert list(open_rows(dataset.to_iterable_dataset())) == list(dataset)
    assert open_rows(datasets.DatasetDict({"test": dataset}), split="test")[1] == {"text": "b", "n": 2}


def test_fingerprints_are_of_the_content(tmp_path):
    import datasets

    one, two = [{"text": "a"}], [{"text": "b"}]

    def from_dataset(rows):
        return open_rows(datasets.Dataset.from_list(rows))

    def from_file(rows):
        return open_rows(write(tmp_path / "a.jsonl", lines(*rows)))

    for make in (open_rows, from_dataset, from_file):
        assert make(one).fingerprint() == make(one).fingerprint() != make(two).fingerprint()
    path = write(tmp_path / "b.jsonl", lines(*one, *two))
    prints = [open_rows(path, split=split).fingerprint() for split in ("train", "train[:1]", "train[1:]")]
    assert len(set(prints)) == 3
    joined = JoinedRows([ListRows(one), ListRows(two)], "x").fingerprint()
    assert joined != JoinedRows([ListRows(two), ListRows(one)], "x").fingerprint()


def test_a_missing_hub_data_set_is_one_sentence(monkeypatch):
    import datasets

    def load_dataset(name, *_, **__):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.\nTrace …")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert failure("org/name") == (
        "org/name is no local file or folder, and the hub gave no data set of that name: "
        "Dataset 'org/name' doesn't exist on the Hub or cannot be accessed."
    )


def test_local_files_need_neither_datasets_nor_torch(tmp_path):
    path = write(tmp_path / "a.jsonl", lines({"text": "a"}))
    code = (
        "import sys; from burnish.data.sources import open_rows; from burnish.data.formats import check_rows\n"
        f"check_rows(open_rows({path!r})); print(sorted({{'torch', 'datasets', 'transformers', 'pyarrow'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
