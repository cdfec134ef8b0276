import json
from itertools import islice

import numpy as np
import pytest

from burnish.data.formats import PAIR_FORMATS, STEPWISE_FORMATS, UNPAIRED_FORMATS
from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.prepare_stream import prepare_stream
from burnish.data.rows import DataError, ListRows
from burnish.data.streams import StreamRows
from tests.data.small_templates import GEMMA, LLAMA3, MISTRAL, PREFILLED, QWEN3, SPECIAL
from tests.data.small_tokenizer import CHATML, make_tokenizer

USER = {"role": "user", "content": "the dog"}
FOX, DOG = {"role": "assistant", "content": "the fox"}, {"role": "assistant", "content": "the lazy dog"}
WHAT = {"role": "user", "content": "what"}
SHORT = {"prompt": "the quick", "chosen": " brown fox", "rejected": " dog"}
PAIR = {"prompt": [USER], "chosen": [FOX], "rejected": [DOG]}
EXPECTED_HEAD = "<|im_start|>user\nthe dog<|im_end|>\n<|im_start|>assistant\n"


def prepared(rows, tokenizer, accepted=PAIR_FORMATS, **options):
    rows = rows if isinstance(rows, list) else [rows]
    return prepare(ListRows(rows, "data"), tokenizer, PrepareOptions(accepted=accepted, **options))


def one(row, tokenizer, accepted=PAIR_FORMATS, **options):
    store = prepared(row, tokenizer, accepted, **options)
    assert (len(store), store.lengths.tolist(), store.trained.tolist()) == (1, [len(store[0])], [store[0].trained_tokens])
    return store[0]


def failure(rows, tokenizer, accepted=PAIR_FORMATS, **options):
    with pytest.raises(DataError) as caught:
        prepared(rows, tokenizer, accepted, **options)
    return str(caught.value)


def ids_of(segments):
    return [token for segment in segments for token in segment.token_ids.tolist()]


def trained_of(segments):
    return [on for segment in segments for on in [segment.trained] * len(segment)]


def ids(example):
    """(the prompt's ids, those of each branch); none of the prompt may be trained."""
    assert not any(trained_of(example.prompt))
    return ids_of(example.prompt), [ids_of(branch.segments) for branch in example.branches]


def trained(example, tokenizer):
    """The trained tokens of each branch, as text."""
    out = []
    for branch in example.branches:
        out.append(tokenizer.decode([t for s in branch.segments if s.trained for t in s.token_ids.tolist()]))
    return out


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def chat(tokenizer, messages, **options):
    """The tokenizer's own ids of a conversation, up to the last end of turn."""
    written = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    return written[: len(written) - written[::-1].index(tokenizer.eos_token_id)]


# Pairs


def test_a_pair_of_texts_shares_its_prompt(tokenizer):
    example = one(SHORT, tokenizer)
    eos = tokenizer.eos_token_id
    assert ids(example) == (encode(tokenizer, "the quick"), [[*encode(tokenizer, " brown fox"), eos], [*encode(tokenizer, " dog"), eos]])
    assert all(all(trained_of(branch.segments)) for branch in example.branches)
    assert [branch.label for branch in example.branches] == [None, None]
    assert (example.margin, example.group_id) == (None, "data:0")


def test_bos_begins_the_prompt():
    tokenizer = make_tokenizer(bos=True)
    prompt, (chosen, _) = ids(one(SHORT, tokenizer))
    assert prompt == tokenizer("the quick")["input_ids"]
    assert prompt[0] == tokenizer.bos_token_id
    assert prompt + chosen == [*tokenizer("the quick brown fox")["input_ids"], tokenizer.eos_token_id]
    implicit = {"chosen": "the quick brown fox", "rejected": "the quick dog"}
    assert ids(one(implicit, tokenizer)) == ids(one(SHORT, tokenizer))


def test_no_space_is_put_before_a_completion_or_a_step():
    """A SentencePiece-like tokenizer puts a space before a text."""
    tokenizer = make_tokenizer(metaspace=True)
    example = one({"prompt": "what is one and ", "chosen": "two", "rejected": "three"}, tokenizer)
    prompt, branches = ids(example)
    assert [tokenizer.decode(prompt + branch) for branch in branches] == [
        "what is one and two<|im_end|>",
        "what is one and three<|im_end|>",
    ]
    steps = one({"prompt": "what is ", "completions": ["one", "two"], "labels": [1, 0]}, tokenizer, STEPWISE_FORMATS)
    prompt, (branch,) = ids(steps)
    assert tokenizer.decode(prompt + branch) == "what is one\ntwo\n"


def test_a_pair_of_conversations_is_what_the_template_writes(tokenizer):
    example = one(PAIR, tokenizer)
    prompt, branches = ids(example)
    assert tokenizer.decode(prompt) == EXPECTED_HEAD
    assert [prompt + branch for branch in branches] == [chat(tokenizer, [USER, FOX]), chat(tokenizer, [USER, DOG])]
    assert trained(example, tokenizer) == ["the fox<|im_end|>", "the lazy dog<|im_end|>"]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, QWEN3, MISTRAL, GEMMA, PREFILLED])
@pytest.mark.parametrize("before", [[USER], [USER, FOX, WHAT]])
def test_pairs_under_other_templates(template, before):
    tokenizer = make_tokenizer(chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nthree"}
    row = {"prompt": before, "chosen": [FOX], "rejected": [thought]}
    example = one(row, tokenizer)
    prompt, branches = ids(example)
    for branch, answer in zip(branches, (FOX, thought), strict=True):
        whole = tokenizer.apply_chat_template([*before, answer], tokenize=False)
        written = tokenizer.decode(prompt + branch)
        assert whole.startswith(written)
        assert whole[len(written) :].strip() == ""
        assert encode(tokenizer, written) == prompt + branch
    assert trained(example, tokenizer) == [tokenizer.decode(branch) for branch in branches]
    given = tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
    assert given.startswith(tokenizer.decode(prompt))
    implicit = {"chosen": [*before, FOX], "rejected": [*before, thought]}
    assert ids(one(implicit, tokenizer)) == (prompt, branches)


def test_a_conversation_without_prompt_column_is_the_same_pair(tokenizer):
    for before in ([USER], [USER, FOX, WHAT]):
        explicit = {"prompt": before, "chosen": [FOX], "rejected": [DOG]}
        implicit = {"chosen": [*before, FOX], "rejected": [*before, DOG]}
        assert ids(one(implicit, tokenizer)) == ids(one(explicit, tokenizer))
        # a question that is repeated as text is not read
        assert ids(one({"prompt": "the dog", **implicit}, tokenizer)) == ids(one(explicit, tokenizer))


def test_without_a_prompt_column_texts_share_their_common_tokens(tokenizer):
    chosen, rejected = "the quick brown fox", "the quick brown dog"
    wholes = [[*encode(tokenizer, text), tokenizer.eos_token_id] for text in (chosen, rejected)]
    prompt, branches = ids(one({"chosen": chosen, "rejected": rejected}, tokenizer))
    assert [prompt + branch for branch in branches] == wholes
    assert prompt == encode(tokenizer, "the quick brown")
    assert branches[0][0] != branches[1][0]


@pytest.mark.parametrize("eos", [True, False])
def test_no_branch_is_left_without_a_token(tokenizer, eos):
    example = one({"chosen": "the quick brown", "rejected": "the quick"}, tokenizer, eos=eos)
    prompt, branches = ids(example)
    expected = [encode(tokenizer, "the quick brown"), encode(tokenizer, "the quick")]
    assert [prompt + branch for branch in branches] == [ids + [tokenizer.eos_token_id] * eos for ids in expected]
    assert [len(branch) for branch in branches] == ([2, 1] if eos else [2, 1])
    assert example.trained_tokens == 3


def test_nothing_in_common(tokenizer):
    example = one({"chosen": "the fox", "rejected": "what fox"}, tokenizer)
    assert example.prompt == ()
    assert [trained_of(branch.segments) for branch in example.branches] == [[False, True, True]] * 2
    example = one({"chosen": [USER, FOX], "rejected": [WHAT, FOX]}, tokenizer)
    prompt, branches = ids(example)
    assert [prompt + branch for branch in branches] == [chat(tokenizer, [USER, FOX]), chat(tokenizer, [WHAT, FOX])]
    assert tokenizer.decode(prompt) == "<|im_start|>user\n"


def test_several_turns_after_the_prompt(tokenizer):
    chosen, rejected = [FOX, WHAT, DOG], [DOG]
    row = {"prompt": [USER], "chosen": chosen, "rejected": rejected}
    example = one(row, tokenizer)
    prompt, branches = ids(example)
    assert [prompt + branch for branch in branches] == [chat(tokenizer, [USER, *chosen]), chat(tokenizer, [USER, *rejected])]
    assert trained(example, tokenizer) == [
        "the fox<|im_end|>\n<|im_start|>user\nwhat<|im_end|>\n<|im_start|>assistant\nthe lazy dog<|im_end|>",
        "the lazy dog<|im_end|>",
    ]
    only = one(row, tokenizer, assistant_only_loss=True)
    assert ids(only) == (prompt, branches)
    assert trained(only, tokenizer) == ["the fox<|im_end|>the lazy dog<|im_end|>", "the lazy dog<|im_end|>"]


def test_tools_and_template_arguments_reach_the_template():
    tokenizer = make_tokenizer(chat_template="{{ tools[0]['name'] }}{{ greeting }}" + CHATML)
    row = {**PAIR, "tools": '[{"name": "the "}]', "chat_template_kwargs": {"greeting": "lazy "}}
    example = one(row, tokenizer)
    prompt, branches = ids(example)
    options = {"tools": None, "chat_template": "the lazy " + CHATML}
    assert [prompt + branch for branch in branches] == [chat(tokenizer, [USER, FOX], **options), chat(tokenizer, [USER, DOG], **options)]


def test_a_tool_result_in_a_completion_is_its_text(tokenizer):
    result = {"role": "tool", "content": "three"}
    row = {"prompt": [USER], "chosen": [FOX, result, DOG], "rejected": [FOX, result]}
    example = one(row, tokenizer, assistant_only_loss=True)
    assert trained(example, tokenizer) == ["the fox<|im_end|>the lazy dog<|im_end|>", "the fox<|im_end|>"]


def test_a_prompt_that_the_completion_changes_is_shared_as_far_as_it_goes():
    """A template that says ahead how many messages will come."""
    tokenizer = make_tokenizer(chat_template="the dog {{ messages | length }} " + CHATML)
    example = one({"prompt": [USER], "chosen": [FOX, WHAT, FOX], "rejected": [DOG]}, tokenizer)
    prompt, branches = ids(example)
    assert [prompt + branch for branch in branches] == [chat(tokenizer, [USER, FOX, WHAT, FOX]), chat(tokenizer, [USER, DOG])]
    assert tokenizer.decode(prompt) in ("the dog", "the dog ")
    assert trained(example, tokenizer)[1] == "the lazy dog<|im_end|>"


def test_pairs_of_token_ids(tokenizer):
    explicit = one({"prompt_ids": [4, 5], "chosen_ids": [5, 6], "rejected_ids": [5], "margin": 0.5}, tokenizer)
    assert (ids(explicit), explicit.margin) == (([4, 5], [[5, 6], [5]]), 0.5)
    assert ids(one({"chosen_ids": [4, 5, 6], "rejected_ids": [4, 5]}, tokenizer)) == ([4], [[5, 6], [5]])
    size = len(tokenizer)
    assert failure({"chosen_ids": [4, size], "rejected_ids": [5]}, tokenizer) == (
        f"data[0]: token id {size} is not among the tokenizer's {size}; encode the rows with the model's own tokenizer."
    )


# Scores and margins


def test_scores_order_a_pair_and_margins_ride_along(tokenizer):
    rows = [
        {**SHORT, "score_chosen": 2, "score_rejected": 1.5, "margin": 3},
        {**SHORT, "score_chosen": 1, "score_rejected": 2, "margin": -0.25},
        {**SHORT, "score_chosen": 1, "score_rejected": 1, "margin": 0},
    ]
    store = prepared(rows, tokenizer)
    assert [ids(example) for example in store] == [
        ids(one(SHORT, tokenizer)),
        ids(one({**SHORT, "chosen": SHORT["rejected"], "rejected": SHORT["chosen"]}, tokenizer)),
    ]
    assert [example.margin for example in store] == [3, 0.25]
    assert (store.report.swapped, store.report.dropped_tied) == (1, 1)
    assert (
        "1 row in which no completion has a better score than another, dropped (first: data[2]). "
        "1 row whose scores say that the rejected completion is the better one, the two swapped (first: data[1])."
    ) in str(store.report)


@pytest.mark.parametrize("column", ["scores", "ratings"])
def test_the_best_against_the_worst(tokenizer, column):
    row = {"prompt": "the", "completions": [" dog", " fox", " quick", " lazy"], column: [2, 1, 3.5, 1]}
    assert ids(one(row, tokenizer)) == ids(one({"prompt": "the", "chosen": " quick", "rejected": " fox"}, tokenizer))
    turns = {"prompt": [USER], "completions": [[DOG], [FOX]], column: [0, 1]}
    assert ids(one(turns, tokenizer)) == ids(one(PAIR, tokenizer))
    rows = [row, row | {column: [1, 1, 1, 1]}, row | {"completions": [" dog"], column: [2]}, row | {"completions": [], column: []}]
    assert prepared(rows, tokenizer).report.dropped_tied == 3


# Labels


@pytest.mark.parametrize(("label", "expected"), [(True, True), (0, False)])
def test_a_labelled_completion(tokenizer, label, expected):
    example = one({"prompt": "the quick", "completion": " brown fox", "label": label}, tokenizer, UNPAIRED_FORMATS)
    prompt, (chosen, _) = ids(one(SHORT, tokenizer))
    assert ids(example) == (prompt, [chosen])
    assert [branch.label for branch in example.branches] == [expected]
    example = one({"prompt": [USER], "completion": [FOX], "label": label}, tokenizer, UNPAIRED_FORMATS)
    prompt, (chosen, _) = ids(one(PAIR, tokenizer))
    assert (ids(example), example.branches[0].label) == ((prompt, [chosen]), expected)
    assert trained(example, tokenizer) == ["the fox<|im_end|>"]


def test_a_pair_can_be_two_labelled_completions(tokenizer):
    for row in (SHORT, PAIR, {"prompt": "the", "completions": [" dog", " fox"], "scores": [1, 2]}):
        example = one(row, tokenizer, UNPAIRED_FORMATS, unpair=True)
        assert ids(example) == ids(one(row, tokenizer))
        assert [branch.label for branch in example.branches] == [True, False]


def test_labels_are_counted_and_balanced(tokenizer):
    def report(desirable, undesirable):
        rows = [{"prompt": "the", "completion": " dog", "label": i < desirable} for i in range(desirable + undesirable)]
        return prepared(rows, tokenizer, UNPAIRED_FORMATS).report

    found = report(2, 8)
    assert (found.desirable, found.undesirable) == (2, 8)
    assert str(found).endswith(
        " 2 completions with the label true, 8 false; to balance them, "
        "desirable_weight in [4, 5.33] or undesirable_weight in [0.188, 0.25]."
    )
    assert str(report(4, 3)).endswith(" 4 completions with the label true, 3 false.")
    assert str(report(3, 3)).endswith(" 3 completions with the label true, 3 false.")
    assert "to balance them" in str(report(5, 3))
    assert str(report(3, 0)).endswith(" All 3 labels are true; learning from labels needs both.")
    assert str(report(0, 2)).endswith(" All 2 labels are false; learning from labels needs both.")
    assert "label" not in str(prepared(SHORT, tokenizer).report)


# The last token alone


@pytest.mark.parametrize(
    "row",
    [SHORT, {"chosen": "the quick brown fox", "rejected": "the quick dog"}, PAIR, {"chosen": [USER, FOX], "rejected": [USER, DOG]}],
)
def test_only_the_last_token_and_as_much_shared_as_there_is(tokenizer, row):
    example = one(row, tokenizer, targets="last")
    prompt, branches = ids(example)
    whole_prompt, whole_branches = ids(one(row, tokenizer))
    assert [prompt + branch for branch in branches] == [whole_prompt + branch for branch in whole_branches]
    assert branches[0][0] != branches[1][0]
    for branch in example.branches:
        assert [len(segment) for segment in branch.segments if segment.trained] == [1]
        assert branch.segments[-1].trained
        assert branch.segments[-1].token_ids.tolist() == [tokenizer.eos_token_id]


def test_explicit_and_implicit_prompts_are_alike_where_only_the_last_token_is_trained(tokenizer):
    implicit = {"chosen": [USER, FOX], "rejected": [USER, DOG]}
    assert ids(one(implicit, tokenizer, targets="last")) == ids(one(PAIR, tokenizer, targets="last"))
    example = one({"prompt": "the", "completion": " dog", "label": True}, tokenizer, UNPAIRED_FORMATS, targets="last")
    assert trained(example, tokenizer) == ["<|im_end|>"]


# Steps


def test_the_last_token_of_each_step_has_its_label(tokenizer):
    row = {"prompt": "what is", "completions": ["one and", "two"], "labels": [True, 0]}
    example = one(row, tokenizer, STEPWISE_FORMATS)
    newline = encode(tokenizer, "\n")
    first, second = ([*encode(tokenizer, step), *newline] for step in ("one and", "two"))
    assert ids(example) == (encode(tokenizer, "what is"), [first + second])
    judged = [(s.token_ids.tolist(), s.label) for s in example.branches[0].segments if s.trained]
    assert judged == [(newline, True), (newline, False)]
    at = np.flatnonzero(trained_of(example.branches[0].segments)).tolist()
    assert at == [len(first) - 1, len(first) + len(second) - 1]
    assert all(segment.label is None for segment in example.branches[0].segments if not segment.trained)


def test_other_separators_and_the_last_step_only(tokenizer):
    row = {"prompt": "what is", "completions": ["one and", "two"], "labels": [True, False]}
    separator = " the lazy"
    example = one(row, tokenizer, STEPWISE_FORMATS, step_separator=separator, train_on_last_step_only=True)
    ending = encode(tokenizer, separator)
    assert len(ending) > 1
    assert ids(example)[1] == [[*encode(tokenizer, "one and"), *ending, *encode(tokenizer, "two"), *ending]]
    assert [(s.token_ids.tolist(), s.label) for s in example.branches[0].segments if s.trained] == [(ending[-1:], False)]


def test_steps_of_which_nothing_is_left_lose_their_label(tokenizer):
    row = {"prompt": "what is", "completions": ["one and", "two", "three"], "labels": [True, False, True]}
    whole = one(row, tokenizer, STEPWISE_FORMATS)
    ends = [len(whole.prompt[0]) + i + 1 for i, on in enumerate(trained_of(whole.branches[0].segments)) if on]
    for limit in (ends[1], ends[2] - 1):
        cut = one(row, tokenizer, STEPWISE_FORMATS, max_length=limit, truncation_mode="keep_start")
        assert len(cut) == limit
        assert [s.label for s in cut.branches[0].segments if s.trained] == [True, False]
    assert failure(row, tokenizer, STEPWISE_FORMATS, max_length=ends[0] - 1, truncation_mode="keep_start").startswith(
        "Not one of the 1 rows of data can be trained on: 1 with no trained token (first: data[0]); mend the rows."
    )
    first = one({"prompt": "", "completions": ["", "two"], "labels": [True, False]}, tokenizer, STEPWISE_FORMATS)
    assert [s.label for s in first.branches[0].segments if s.trained] == [False]
    assert prepared([row, row | {"completions": [], "labels": []}], tokenizer, STEPWISE_FORMATS).report.dropped_empty == 1


# What is dropped and cut

LONG = {"prompt": "the dog the dog", "chosen": " fox fox fox", "rejected": " dog"}


def test_max_length_bounds_the_prompt_with_each_branch(tokenizer):
    prompt, (chosen, rejected) = ids(one(LONG, tokenizer))
    most = len(prompt) + max(len(chosen), len(rejected))
    assert ids(one(LONG, tokenizer, max_length=most)) == (prompt, [chosen, rejected])
    assert prepared([LONG, SHORT], tokenizer, max_length=most - 1).report.dropped_too_long == 1
    assert failure([SHORT, LONG], tokenizer, max_length=most - 1, truncation_mode="error") == (
        f"data[1]: {most} tokens are more than max_length={most - 1}; raise it, or choose another truncation_mode."
    )


def test_keep_start_cuts_the_ends_of_completions(tokenizer):
    prompt, (chosen, rejected) = ids(one(LONG, tokenizer))
    limit = len(prompt) + len(chosen) - 1
    store = prepared(LONG, tokenizer, max_length=limit, truncation_mode="keep_start")
    assert ids(store[0]) == (prompt, [chosen[:-1], rejected])
    report = store.report
    assert (report.cut, report.tokens_cut, report.missing_eos, report.longest) == (1, 1, 1, limit + 1)
    assert (report.tokens, report.trained_tokens) == (store.lengths.sum(), store.trained.sum())
    last = one(LONG, tokenizer, max_length=limit, truncation_mode="keep_start", targets="last")
    assert [branch.segments[-1].token_ids.tolist() for branch in last.branches] == [chosen[-2:-1], rejected[-1:]]
    assert last.trained_tokens == 2


def test_keep_end_cuts_the_beginning_of_the_prompt_for_both(tokenizer):
    prompt, (chosen, rejected) = ids(one(LONG, tokenizer))
    for kept in range(1, len(prompt)):
        example = one(LONG, tokenizer, max_length=kept + max(len(chosen), len(rejected)), truncation_mode="keep_end")
        assert ids(example) == (prompt[-kept:], [chosen, rejected])
    store = prepared([LONG, SHORT], tokenizer, max_length=max(len(chosen), len(rejected)), truncation_mode="keep_end")
    assert (len(store), store.report.dropped_too_long) == (1, 1)


@pytest.mark.parametrize("mode", ["drop", "keep_start"])
def test_a_prompt_that_leaves_no_room_is_counted(tokenizer, mode):
    prompt, _ = ids(one(LONG, tokenizer))
    fits = {"prompt": "the", "chosen": " fox", "rejected": " dog"}
    report = prepared([fits, LONG], tokenizer, max_length=len(prompt), truncation_mode=mode).report
    assert (report.kept, report.dropped_prompt_too_long, report.dropped_too_long) == (1, 1, 0)
    assert f"1 row with a prompt of max_length={len(prompt)} or more, dropped (first: data[1])." in str(report)
    assert failure([LONG], tokenizer, max_length=len(prompt), truncation_mode="error") == (
        f"data[0]: the prompt alone has {len(prompt)} tokens, which leaves no room for a completion in max_length={len(prompt)}; "
        "raise it, or choose another truncation_mode."
    )


def test_equal_and_empty_completions_are_counted(tokenizer):
    empty, silent = {**SHORT, "rejected": ""}, {"role": "assistant", "content": ""}
    store = prepared([SHORT, {**SHORT, "rejected": SHORT["chosen"]}, empty], tokenizer)
    assert (len(store), store.report.dropped_equal, store.report.dropped_empty) == (1, 1, 1)
    assert "1 row empty, or with an empty completion, dropped (first: data[2])." in str(store.report)
    assert "1 row with chosen equal to rejected, dropped (first: data[1])." in str(store.report)
    turns = [PAIR, {**PAIR, "rejected": [FOX]}, {**PAIR, "chosen": [silent]}, {**PAIR, "chosen": []}]
    report = prepared(turns, tokenizer).report
    assert (report.kept, report.dropped_equal, report.dropped_empty) == (1, 1, 2)
    implicit = [{"chosen": [USER, one], "rejected": [USER, FOX]} for one in (DOG, FOX, silent)]
    report = prepared(implicit, tokenizer).report
    assert (report.kept, report.dropped_equal, report.dropped_empty) == (1, 1, 1)
    labelled = [{"prompt": "the", "completion": said, "label": True} for said in (" dog", "")]
    assert prepared(labelled, tokenizer, UNPAIRED_FORMATS).report.dropped_empty == 1
    as_ids = [{"chosen_ids": [4, 5], "rejected_ids": other} for other in ([4, 6], [4, 5], [])]
    report = prepared(as_ids, tokenizer).report
    assert (report.kept, report.dropped_equal, report.dropped_empty) == (1, 1, 1)


def test_completions_that_a_cut_makes_equal_are_counted(tokenizer):
    row = {"prompt": "the", "chosen": " dog dog", "rejected": " dog fox"}
    store = prepared([SHORT, row], tokenizer, max_length=5, truncation_mode="keep_start")
    assert store.report.dropped_equal == 0
    prompt, (chosen, _) = ids(one(row, tokenizer))
    limit = len(prompt) + 1
    assert failure(row, tokenizer, max_length=limit, truncation_mode="keep_start") == (
        "Not one of the 1 rows of data can be trained on: 1 with chosen equal to rejected (first: data[0]); mend the rows."
    )
    assert chosen


def test_nothing_left(tokenizer):
    same = {**SHORT, "rejected": SHORT["chosen"]}
    assert failure([same, {**SHORT, "chosen": ""}], tokenizer) == (
        "Not one of the 2 rows of data can be trained on: 1 empty, or with an empty completion (first: data[1]); "
        "1 with chosen equal to rejected (first: data[0]); mend the rows."
    )
    prompt, (chosen, _) = ids(one(SHORT, tokenizer))
    size = len(prompt) + len(chosen)
    assert failure([SHORT], tokenizer, max_length=size - 1) == (
        f"max_length={size - 1} leaves no token to train on in the 1 rows of data: the shortest has {size} tokens and the median {size}; "
        "raise it, or cut rows with truncation_mode."
    )


def test_rows_that_would_straddle_are_counted(tokenizer):
    rows = [SHORT, {"prompt": "the qui", "chosen": "ck", "rejected": " dog"}]
    report = prepared(rows, tokenizer).report
    assert (report.straddled, report.straddled_of, report.first["straddled"]) == (1, 2, "data[1]")


def test_what_a_template_refuses_is_named(tokenizer):
    template = "{{ raise_exception('No system here.') if messages[0].role == 'system' }}" + CHATML
    rows = [{**PAIR, "chosen": []}, PAIR, {**PAIR, "prompt": [{"role": "system", "content": "a"}, USER]}]
    message = failure(rows, tokenizer, chat_template=template)
    assert message.startswith("data[2]: ")
    assert "No system here." in message


def test_options_that_would_be_ignored(tokenizer):
    assert failure(SHORT, tokenizer, completion_only_loss=False) == (
        "completion_only_loss has no meaning for rows that are preference, whose prompts are never trained; leave it out."
    )
    assert failure(PAIR, tokenizer, targets="last", assistant_only_loss=True) == (
        "assistant_only_loss=True has no meaning where only a completion's last token is trained; leave it out."
    )
    assert failure(SHORT, tokenizer, assistant_only_loss=True) == (
        "assistant_only_loss=True needs conversations, and these rows are preference; leave it out."
    )
    assert failure(PAIR, make_tokenizer(chat_template=None)).startswith(
        "The rows are preference of messages, and the tokenizer has no chat"
    )


def test_workers_and_the_cache_give_the_same(tokenizer, tmp_path):
    rows = [SHORT | {"chosen": f" fox{' dog' * (i % 5)}", "margin": i} for i in range(1200)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    alone = prepare(ListRows(rows, "data"), tokenizer, PrepareOptions(accepted=PAIR_FORMATS), num_proc=1)
    two = prepare(ListRows(rows, "data"), tokenizer, PrepareOptions(accepted=PAIR_FORMATS), num_proc=2, cache_dir=tmp_path / "other")
    assert (alone.fingerprint, alone.report) == (two.fingerprint, two.report)
    assert prepare(ListRows(rows, "data"), tokenizer, PrepareOptions(accepted=PAIR_FORMATS)).fingerprint == alone.fingerprint


def test_a_formatting_func_and_a_stream_give_the_same(tokenizer):
    rows = ListRows([{"q": "the quick", "good": f" brown {word}", "bad": " dog"} for word in ("fox", "dog", "lazy")], "data")
    options = PrepareOptions(
        accepted=PAIR_FORMATS, formatting_func=lambda row: {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}
    )
    store = prepare(rows, tokenizer, options)
    stream = prepare_stream(StreamRows.over(rows), tokenizer, options)
    assert [ids(example) for example in islice(stream, 3)] == [ids(example) for example in store]
    assert ids(store[0]) == ids(one(SHORT, tokenizer))
