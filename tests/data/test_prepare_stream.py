from itertools import islice

import pytest

from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.prepare_stream import prepare_stream
from burnish.data.rows import DataError, ListRows
from burnish.data.streams import StreamRows

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"]


def rows(count, name="data", column="text"):
    """Rows of 1 to 8 words; their lengths differ, so that max_length drops some."""
    return ListRows([{column: " ".join(WORDS[: 1 + i % 8])} for i in range(count)], name)


def plain(example):
    return example.group_id, [(s.token_ids.tolist(), s.source, s.trained) for s in example.branches[0].segments]


def test_one_epoch_of_a_stream_is_the_prepared_rows(tokenizer):
    options = PrepareOptions(max_length=7)
    store = prepare(rows(600), tokenizer, options)
    assert 0 < store.report.dropped_too_long < 600
    stream = prepare_stream(StreamRows.over(rows(600)), tokenizer, options)
    made = list(islice(stream.open_at((0, 0)), len(store) + 1))
    assert [plain(example) for example, _ in made] == [plain(e) for e in [*store, store[0]]]
    assert made[len(store) - 1][1] == (1, 0)
    assert made[len(store)][1] == (1, 1)


def test_the_report_runs_along(tokenizer):
    options = PrepareOptions(max_length=7)
    stream = prepare_stream(StreamRows.over(rows(600)), tokenizer, options)
    store = prepare(rows(600), tokenizer, options)
    assert stream.report.rows == 0
    list(islice(stream, len(store)))
    assert stream.report == store.report


@pytest.mark.parametrize("weights", [None, [1, 2]])
@pytest.mark.parametrize("shuffle_buffer", [0, 50])
def test_a_resumed_stream_goes_on_as_if_it_had_never_stopped(tokenizer, weights, shuffle_buffer):
    def stream():
        sources = [StreamRows.over(rows(300, "a")), StreamRows.over(rows(90, "b"))]
        return prepare_stream(sources, tokenizer, PrepareOptions(max_length=7), weights=weights, seed=5, shuffle_buffer=shuffle_buffer)

    whole = list(islice(stream().open_at((0, 0)), 700))
    assert {example.group_id[0] for example, _ in whole} == {"a", "b"}
    for at in (0, 1, 100, 255, 256, 299, 333):
        resumed = list(islice(stream().open_at(whole[at][1]), 60))
        assert [(plain(e), cursor) for e, cursor in resumed] == [(plain(e), cursor) for e, cursor in whole[at + 1 : at + 61]]


def test_streams_may_differ_in_format_and_share_a_name(tokenizer):
    pairs = ListRows([{"prompt": "the", "completion": " dog"}], "data")
    stream = prepare_stream([StreamRows.over(rows(1)), StreamRows.over(pairs)], tokenizer)
    made = list(islice(stream, 2))
    assert [example.group_id for example in made] == ["0/data:0", "1/data:0"]
    assert [len(example.prompt) for example in made] == [0, 1]
    assert stream.report.format == "text, prompt+completion"


def test_a_bad_row_is_named_when_it_is_reached(tokenizer):
    source = ListRows([{"text": "the"}] * 300 + [{"body": "dog"}], "data")
    stream = iter(prepare_stream(StreamRows.over(source), tokenizer))
    with pytest.raises(DataError) as caught:
        list(stream)
    assert str(caught.value) == "data[300] has no 'text', which the first row has; its columns are ['body']."


def test_a_formatting_func_and_a_refused_row(tokenizer):
    options = PrepareOptions(formatting_func=lambda row: row["body"] + " dog", max_length=5, truncation_mode="error")
    stream = prepare_stream(StreamRows.over(rows(8, column="body")), tokenizer, options)
    with pytest.raises(
        DataError, match=r"^data\[\d\]: \d+ tokens are more than max_length=5; raise it, or choose another truncation_mode\.$"
    ):
        list(stream)


def test_a_stream_with_nothing_to_train_on_ends(tokenizer):
    stream = prepare_stream(StreamRows.over(ListRows([{"text": ""}] * 3, "data")), tokenizer)
    with pytest.raises(DataError, match=r"^Nothing in the stream can be trained on: 3 rows \(text\): 0 kept"):
        next(iter(stream))
    with pytest.raises(DataError, match=r"^The data is empty: it has no rows\.$"):
        prepare_stream(StreamRows.over(ListRows([], "data")), tokenizer)
