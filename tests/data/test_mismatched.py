from itertools import islice

import numpy as np
import pytest

from burnish.data.dataset import JoinedExamples
from burnish.data.formats import UNPAIRED_FORMATS
from burnish.data.mismatched import MismatchedCompletions, mismatched_stream
from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.prepare_stream import prepare_stream
from burnish.data.rows import DataError, ListRows
from burnish.data.store import ExampleStore
from burnish.data.streams import StreamRows
from burnish.types import Branch, Example, Segment


def seg(ids, source="model", trained=True):
    return Segment(token_ids=ids, source=source, trained=trained)


def labelled(name, prompt, *completions):
    """Token ids; the first completion has the label true, a second one false."""
    branches = tuple(Branch(segments=(seg(ids),), label=not i) for i, ids in enumerate(completions))
    return Example(group_id=name, prompt=(seg(prompt, "prompt", False),) if prompt else (), branches=branches)


def joined(*parts):
    return JoinedExamples([ExampleStore.from_examples(part, name=f"part{i}") for i, part in enumerate(parts)])


def flat(branch):
    return [token for segment in branch.segments for token in segment.token_ids.tolist()]


def plain(example):
    prompt = [t for s in example.prompt for t in s.token_ids.tolist()]
    return example.group_id, prompt, [(flat(b), b.label, [(s.trained, len(s)) for s in b.segments]) for b in example.branches]


ONE = [labelled("a", [5, 6], [7, 8], [9]), labelled("b", [5, 6], [10]), labelled("c", [6, 5], [11, 12, 13])]
TWO = [labelled("d", [6, 5], [14]), labelled("e", [1], [15, 16, 17, 18])]


def test_the_completion_is_the_first_of_the_next_example_with_another_prompt():
    mismatched = MismatchedCompletions(joined(ONE, TWO))
    assert [flat(example.branches[-1]) for example in mismatched] == [
        [11, 12, 13],
        [11, 12, 13],
        [15, 16, 17, 18],
        [15, 16, 17, 18],
        [7, 8],
    ]
    assert [[b.label for b in example.branches] for example in mismatched][:2] == [[True, False, None], [True, None]]
    for mine, plainly in zip(mismatched, [*ONE, *TWO], strict=True):
        assert plain(mine)[:2] == plain(plainly)[:2]
        assert plain(mine)[2][:-1] == plain(plainly)[2]


@pytest.mark.parametrize("max_length", [None, 2, 3, 4, 5])
def test_lengths_and_targets_are_those_of_the_examples(max_length):
    with_context = Example(
        group_id="f",
        prompt=(seg([2, 3], "prompt", False),),
        branches=(Branch(segments=(seg([4], "template", False), seg([5]), seg([6, 7], "tool", False), seg([8, 9])), label=False),),
    )
    promptless = Example(group_id="g", prompt=(), branches=(Branch(segments=(seg([7], "prompt", False), seg([7])), label=True),))
    examples = joined([*ONE, with_context], [promptless, *TWO])
    mismatched = MismatchedCompletions(examples, max_length)
    assert mismatched.lengths.tolist() == [len(example) for example in mismatched]
    assert mismatched.trained.tolist() == [example.trained_tokens for example in mismatched]
    assert len(mismatched) == 7
    if max_length is not None:
        longest = [len(example.branches[-1]) + sum(map(len, example.prompt)) for example in mismatched]
        assert max(longest) <= max(max_length, 3)
        whole = MismatchedCompletions(examples)
        for cut, full in zip(mismatched, whole, strict=True):
            room = max(1, max_length - sum(map(len, cut.prompt)))
            assert flat(cut.branches[-1]) == flat(full.branches[-1])[:room]
            assert plain(cut)[2][:-1] == plain(full)[2][:-1]


def test_it_stands_where_the_examples_stood():
    examples = joined(ONE, TWO)
    mismatched = MismatchedCompletions(examples, 9)
    assert mismatched.parts == examples.parts
    assert len({examples.fingerprint, mismatched.fingerprint, MismatchedCompletions(examples, 8).fingerprint}) == 3
    assert mismatched.fingerprint == MismatchedCompletions(joined(ONE, TWO), 9).fingerprint
    assert mismatched.describe() == examples.describe() | {"fingerprint": mismatched.fingerprint}
    assert np.array_equal(mismatched.order(None, seed=3, shuffle=True).indices(1), examples.order(None, seed=3, shuffle=True).indices(1))
    assert plain(mismatched[-1]) == plain(mismatched[4])
    with pytest.raises(IndexError):
        mismatched[5]


@pytest.mark.parametrize("examples", [ONE[:2], ONE[:1]])
def test_one_prompt_alone_is_refused(examples):
    with pytest.raises(DataError) as caught:
        MismatchedCompletions(joined(examples))
    assert str(caught.value) == (
        f"The {len(examples)} examples of part0 have one prompt, and KTO compares with completions of other prompts; add rows with others."
    )


def test_labels_of_one_kind_are_refused():
    joined(ONE, TWO).check_both_labels()
    with pytest.raises(DataError) as caught:
        joined(ONE[1:], TWO).check_both_labels()
    assert str(caught.value) == (
        "Learning from labels needs some that are true and some that are false, but all 4 are true; add rows with others."
    )


# Streams

WORDS = ["the", "quick", "brown", "fox"]


def rows(count):
    return ListRows([{"prompt": WORDS[i % 7 // 2], "completion": f" {WORDS[i % 4]}" * (1 + i % 3), "label": i % 2} for i in range(count)])


def options():
    return PrepareOptions(accepted=UNPAIRED_FORMATS, max_length=6)


@pytest.mark.parametrize("max_length", [None, 3])
def test_a_stream_gives_what_the_rows_give_as_a_set(tokenizer, max_length):
    whole = MismatchedCompletions(JoinedExamples([prepare(rows(50), tokenizer, options())]), max_length)
    stream = mismatched_stream(prepare_stream(StreamRows.over(rows(50)), tokenizer, options()).open_at, max_length)
    drawn = [example for example, _ in islice(stream((0, 0)), 50 + 9)]
    assert [plain(example) for example in drawn] == [plain(example) for example in [*whole, *islice(whole, 9)]]


def test_a_stream_that_is_continued_goes_on_as_if_it_had_never_stopped(tokenizer):
    def stream():
        prepared = prepare_stream(StreamRows.over(rows(300)), tokenizer, options(), seed=3, shuffle_buffer=40)
        return mismatched_stream(prepared.open_at, 6)

    whole = list(islice(stream()((0, 0)), 700))
    for at in (0, 1, 2, 3, 255, 299, 310):
        resumed = list(islice(stream()(whole[at][1]), 60))
        assert [(plain(e), cursor) for e, cursor in resumed] == [(plain(e), cursor) for e, cursor in whole[at + 1 : at + 61]]


def test_streams_that_have_no_next_prompt_are_given_up(monkeypatch):
    monkeypatch.setattr("burnish.data.mismatched.PATIENCE", 4)

    def repeat(examples, times):
        return lambda cursor: iter([(example, (0, i)) for i, example in enumerate(examples * times)])

    with pytest.raises(DataError, match=r"^4 examples in a row have one prompt"):
        next(mismatched_stream(repeat(ONE[:1], 9))((0, 0)))
    ended = mismatched_stream(repeat(ONE, 1))((0, 0))
    assert [flat(example.branches[-1]) for example, _ in islice(ended, 2)] == [[11, 12, 13]] * 2
    with pytest.raises(DataError, match=r"^The stream has ended"):
        next(ended)
