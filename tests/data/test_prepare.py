import json
import logging
from types import SimpleNamespace

import pytest

from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.rows import DataError, ListRows
from burnish.data.sources import open_rows
from burnish.data.tokenise import TextEncoder
from tests.data.small_templates import PREFILLED
from tests.data.small_tokenizer import CHATML, CORPUS, make_tokenizer

# A turn is closed by the next one's first token.
UNCLOSED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
USER, ANSWER = {"role": "user", "content": "the dog"}, {"role": "assistant", "content": "the fox"}
TURNS = [USER, ANSWER, {"role": "user", "content": "what"}, {"role": "assistant", "content": "three"}]
HEAD = "<|im_start|>user\nthe dog<|im_end|>\n<|im_start|>assistant\n"


def one(row, tokenizer, **options):
    store = prepare(ListRows([row]), tokenizer, PrepareOptions(**options))
    assert len(store) == 1
    return store[0]


def parts(example):
    """(prompt, branch) as lists of (ids, trained) with neighbours of one fate put together."""
    out = []
    for segments in (example.prompt, example.branches[0].segments):
        runs: list[tuple[list[int], bool]] = []
        for segment in segments:
            if runs and runs[-1][1] == segment.trained:
                runs[-1][0].extend(segment.token_ids.tolist())
            else:
                runs.append((segment.token_ids.tolist(), segment.trained))
        out.append(runs)
    return tuple(out)


def text(example, tokenizer, *, trained=False):
    segments = (*example.prompt, *example.branches[0].segments)
    return tokenizer.decode([t for s in segments if s.trained or not trained for t in s.token_ids.tolist()])


def failure(rows, tokenizer, **options):
    with pytest.raises(DataError) as caught:
        prepare(rows if not isinstance(rows, list) else ListRows(rows, "data"), tokenizer, PrepareOptions(**options))
    return str(caught.value)


# Which tokens are trained


def test_text_ends_in_eos_once_and_its_first_token_is_context(tokenizer):
    ids = tokenizer("the lazy dog")["input_ids"]
    expected = ([], [(ids[:1], False), ([*ids[1:], tokenizer.eos_token_id], True)])
    assert parts(one({"text": "the lazy dog"}, tokenizer)) == expected
    assert parts(one({"text": "the lazy dog<|im_end|>"}, tokenizer)) == expected
    assert parts(one({"text": "the lazy dog"}, tokenizer, eos=False)) == ([], [(ids[:1], False), (ids[1:], True)])


def test_a_tokenizer_that_writes_bos_writes_it_before_text_and_prompt():
    tokenizer = make_tokenizer(bos=True)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    dog, fox = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("dog", " fox"))
    assert parts(one({"text": "dog"}, tokenizer)) == ([], [([bos], False), ([*dog, eos], True)])
    assert parts(one({"prompt": "dog", "completion": " fox"}, tokenizer)) == ([([bos, *dog], False)], [([*fox, eos], True)])
    assert failure([{"text": "dog"}, {"text": "<s>dog"}], tokenizer) == (
        f"data[1]: the row begins with two BOS tokens (id {bos}): the tokenizer and the data write one each; remove one."
    )


def test_two_tokens_that_are_bos_and_eos_at_the_start_of_a_row_are_counted():
    tokenizer = make_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token
    rows = ListRows([{"text": "the dog"}, {"text": "<|im_end|><|im_end|>the dog"}], "data")
    report = prepare(rows, tokenizer).report
    assert (report.kept, report.duplicate_bos) == (2, 1)
    assert "1 row beginning with two BOS tokens; the tokenizer and the data may write one each (first: data[1])." in str(report)


def test_turns_that_the_template_rewrites_are_counted(tokenizer):
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nthe fox"}
    rows = ListRows([{"messages": TURNS}, {"messages": [USER, thought, USER, thought, USER, thought]}], "data")
    report = prepare(rows, tokenizer, PrepareOptions(assistant_only_loss=True, chat_template=PREFILLED)).report
    assert (report.departures, report.departed_turns, report.first["departures"]) == (2, 5, "data[0]")
    assert (
        "2 rows with turns that the template rewrites later (5 in all), thinking taken out, say: when the model spoke, "
        "it was given another text than it is trained on (first: data[0])."
    ) in str(report)
    assert prepare(rows, tokenizer, PrepareOptions(chat_template=PREFILLED)).report.departures == 0


def test_a_token_at_which_the_model_stops_ends_a_turn(tokenizer):
    options = {"assistant_only_loss": True, "chat_template": UNCLOSED}
    row = {"messages": [USER, ANSWER, USER]}
    assert text(one(row, tokenizer, **options), tokenizer, trained=True) == "\nthe fox"
    stop = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert text(one(row, tokenizer, **options, stop_token_ids=(stop,)), tokenizer, trained=True) == "\nthe fox<|im_start|>"


def test_prompt_and_completion_are_encoded_once_each(tokenizer):
    row = {"prompt": "the qui", "completion": "ck brown fox"}
    prompt, completion = (tokenizer(row[name])["input_ids"] for name in ("prompt", "completion"))
    completion = [*completion, tokenizer.eos_token_id]
    assert parts(one(row, tokenizer)) == ([(prompt, False)], [(completion, True)])
    assert parts(one(row, tokenizer, completion_only_loss=False)) == ([(prompt[:1], False), (prompt[1:], True)], [(completion, True)])


def test_what_would_straddle_the_boundary_is_counted(tokenizer):
    rows = [{"prompt": "the lazy", "completion": " dog"}, {"prompt": "the qui", "completion": "ck"}]
    report = prepare(ListRows(rows, "data"), tokenizer).report
    assert (report.straddled, report.straddled_of, report.first["straddled"]) == (1, 2, "data[1]")


def test_no_space_is_put_between_prompt_and_completion():
    """A SentencePiece-like tokenizer puts a space before a text, so encoding "two" alone would write "= two"."""
    tokenizer = make_tokenizer(metaspace=True)
    assert tokenizer("two")["input_ids"] != tokenizer("\ntwo")["input_ids"][len(tokenizer("\n")["input_ids"]) :]
    example = one({"prompt": "what is one and ", "completion": "two"}, tokenizer)
    assert text(example, tokenizer) == "what is one and two<|im_end|>"
    assert text(one({"prompt": "what is", "completion": " two"}, tokenizer), tokenizer) == "what is two<|im_end|>"


def test_conversations_train_on_every_token(tokenizer):
    ids = tokenizer.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    expected = ([], [(ids[:1], False), (ids[1:], True)])
    assert parts(one({"messages": TURNS}, tokenizer)) == expected
    speakers = {"user": "human", "assistant": "gpt"}
    conversations = [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in TURNS]
    assert parts(one({"conversations": conversations}, tokenizer)) == expected
    in_parts = [
        turn | {"content": [{"type": "text", "text": turn["content"][:2]}, {"type": "text", "text": turn["content"][2:]}]} for turn in TURNS
    ]
    assert parts(one({"messages": in_parts}, tokenizer)) == expected


def test_assistant_only_loss_trains_on_the_answers(tokenizer):
    example = one({"messages": TURNS}, tokenizer, assistant_only_loss=True)
    assert text(example, tokenizer) == tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert text(example, tokenizer, trained=True) == "the fox<|im_end|>three<|im_end|>"


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, "what three<|im_end|>\n"),
        ({"completion_only_loss": True, "assistant_only_loss": True}, "what three<|im_end|>"),
        ({"completion_only_loss": False, "assistant_only_loss": True}, "the fox<|im_end|>what three<|im_end|>"),
        (
            {"completion_only_loss": False},
            "user\nthe dog<|im_end|>\n<|im_start|>assistant\nthe fox<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
            "what three<|im_end|>\n",
        ),
    ],
)
def test_prompt_and_completion_of_messages(tokenizer, options, trained):
    prompt, completion = [USER, ANSWER, {"role": "user", "content": ""}], [{"role": "assistant", "content": "what three"}]
    example = one({"prompt": prompt, "completion": completion}, tokenizer, **options)
    assert text(example, tokenizer) == tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    assert text(example, tokenizer, trained=True) == trained
    assert bool(example.prompt) == (options.get("completion_only_loss") is not False)


def test_tools_and_template_arguments_reach_the_template():
    tokenizer = make_tokenizer(chat_template="{{ tools[0]['name'] }}{{ greeting }}" + CHATML)
    row = {"messages": TURNS, "tools": '[{"name": "the "}]', "chat_template_kwargs": {"greeting": "lazy "}}
    for assistant_only in (False, True):
        example = one(row, tokenizer, assistant_only_loss=assistant_only)
        assert text(example, tokenizer) == "the lazy " + tokenizer.apply_chat_template(
            TURNS, tools=None, chat_template=CHATML, tokenize=False
        )


def test_another_template(tokenizer):
    example = one({"messages": TURNS}, tokenizer, chat_template="{% for m in messages %}{{ m.content }};{% endfor %}")
    assert text(example, tokenizer) == "the dog;the fox;what;three;"


@pytest.mark.parametrize(
    ("columns", "options", "trained"),
    [
        ({}, {}, [5, 6, 7]),
        ({"labels": [-100, 5, -100, 7]}, {}, [5, 7]),
        ({"completion_mask": [0, 0, 1, 1]}, {}, [6, 7]),
        ({"completion_mask": [0, 0, 1, 1]}, {"completion_only_loss": False}, [5, 6, 7]),
        ({"completion_mask": [0, 0, 1, 1], "assistant_masks": [0, 1, 1, 0]}, {"assistant_only_loss": True}, [6]),
        ({"assistant_masks": [1, 1, 0, 0]}, {}, [5]),
    ],
)
def test_token_ids(tokenizer, columns, options, trained):
    example = one({"input_ids": [4, 5, 6, 7], **columns}, tokenizer, **options)
    segments = example.branches[0].segments
    assert [t for s in segments for t in s.token_ids.tolist()] == [4, 5, 6, 7]
    assert [t for s in segments if s.trained for t in s.token_ids.tolist()] == trained


def test_formatting_func(tokenizer):
    row = {"a": "the dog", "b": "the fox"}
    assert text(one(row, tokenizer, formatting_func=lambda r: r["a"] + " and"), tokenizer) == "the dog and<|im_end|>"
    chat = one(row, tokenizer, formatting_func=lambda r: [USER | {"content": r["b"]}])
    assert text(chat, tokenizer) == "<|im_start|>user\nthe fox<|im_end|>\n"
    pair = one(row, tokenizer, formatting_func=lambda r: {"prompt": r["a"], "completion": r["b"]}, text_field="a")
    assert text(pair, tokenizer, trained=True) == "the fox<|im_end|>"
    assert failure([row], tokenizer, formatting_func=lambda r: [r["a"]]) == (
        "formatting_func made an object of type list of data[0]; return text, a list of messages, or a row (a dict)."
    )


# What is dropped and cut


def lengths_of(*lengths):
    """Rows of that many tokens, all 'a', EOS included."""
    return [{"text": " ".join(["the"] * (n - 1))} for n in lengths]


@pytest.mark.parametrize(
    ("mode", "lengths", "cut", "dropped", "missing_eos"),
    [("drop", [4, 5], 0, 1, 0), ("keep_start", [4, 5, 5], 1, 0, 1), ("keep_end", [4, 5, 5], 1, 0, 0)],
)
def test_truncation(tokenizer, mode, lengths, cut, dropped, missing_eos):
    rows = ListRows(lengths_of(4, 8, 5), "data")
    store = prepare(rows, tokenizer, PrepareOptions(max_length=5, truncation_mode=mode))
    report = store.report
    assert store.lengths.tolist() == lengths
    assert store.trained.tolist() == [n - 1 for n in lengths] == [example.trained_tokens for example in store]
    assert (report.cut, report.tokens_cut, report.dropped_too_long, report.missing_eos) == (cut, 3 * cut, dropped, missing_eos)
    assert (report.rows, report.kept, report.tokens, report.trained_tokens) == (3, len(lengths), sum(lengths), sum(lengths) - len(lengths))
    assert (report.shortest, report.median, report.longest) == (4, 5, 8)
    assert set(report.first.values()) == {"data[1]"}
    assert [example.group_id for example in store] == [f"data:{i}" for i in ([0, 2] if dropped else [0, 1, 2])]


def test_truncation_is_of_the_whole_row(tokenizer):
    prompt, completion = "the dog the dog", " the fox"
    ids = [*tokenizer(prompt)["input_ids"], *tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
    row = {"prompt": prompt, "completion": completion}
    for limit in range(2, len(ids)):
        end = one(row, tokenizer, max_length=limit, truncation_mode="keep_end")
        assert [t for s in (*end.prompt, *end.branches[0].segments) for t in s.token_ids.tolist()] == ids[-limit:]
    assert failure([row], tokenizer, max_length=2, truncation_mode="keep_start") == (
        "max_length=2 leaves no token to train on in the 1 rows of data: "
        f"the shortest has {len(ids)} tokens and the median {len(ids)}; raise it."
    )
    assert failure([row, row], tokenizer, max_length=4, truncation_mode="error") == (
        f"data[0]: {len(ids)} tokens are more than max_length=4; raise it, or choose another truncation_mode."
    )


def test_the_report_says_all_in_one_paragraph(tokenizer, tmp_path):
    rows = [{"id": 1, "messages": TURNS}, {"id": 2, "messages": [USER]}, {"id": 3, "messages": TURNS * 9}]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    report = prepare(open_rows(path), tokenizer, PrepareOptions(max_length=100, assistant_only_loss=True)).report
    whole, asked = (len(tokenizer.apply_chat_template(rows[i]["messages"], tokenize=True, return_dict=False)) for i in (0, 1))
    trained = len(tokenizer("the fox<|im_end|>three<|im_end|>")["input_ids"])
    assert str(report) == (
        f"3 rows (messages): 1 kept with {whole} tokens, {trained} trained ({trained / whole:.1%}); "
        f"lengths {asked} to {9 * whole}, median {whole}. "
        "1 row longer than max_length=100, dropped (first: train.jsonl line 3). "
        "1 row with no trained token, dropped (first: train.jsonl line 2). Columns not read: id."
    )


def test_empty_rows_are_counted(tokenizer):
    report = prepare(ListRows([{"text": ""}, {"text": "the"}], "data"), tokenizer).report
    assert (report.rows, report.kept, report.dropped_empty, report.first) == (2, 1, 1, {"dropped_empty": "data[0]"})
    assert prepare(ListRows([{"input_ids": []}, {"input_ids": [4, 5]}], "data"), tokenizer).report.dropped_empty == 1


def test_the_first_of_a_kind_is_the_first_of_all_batches(tokenizer):
    rows = lengths_of(*[4] * 1500, 9, *[4] * 700, 9)
    report = prepare(ListRows(rows, "data"), tokenizer, PrepareOptions(max_length=5)).report
    assert (report.dropped_too_long, report.first, report.rows, report.median) == (2, {"dropped_too_long": "data[1500]"}, 2202, 4)


def test_rows_that_do_not_teach_to_stop_are_counted():
    tokenizer = make_tokenizer(eos_token="<eos>")
    report = prepare(ListRows([{"messages": TURNS}], "data"), tokenizer).report
    assert (report.missing_eos, report.first) == (1, {"missing_eos": "data[0]"})
    assert "1 row without EOS among their trained tokens, from which the model does not learn to stop (first: data[0])." in str(report)


# What is refused


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            lengths_of(9, 7, 8),
            {"max_length": 5},
            "max_length=5 leaves no token to train on in the 3 rows of data: the shortest has 7 tokens and the median 8; "
            "raise it, or cut rows with truncation_mode.",
        ),
        (
            [{"text": ""}],
            {},
            "Not one of the 1 rows of data has a token to train on: all are empty; name other data, or another column.",
        ),
        (
            [{"text": "a"}],
            {"completion_only_loss": True},
            "completion_only_loss=True needs rows with a prompt and a completion, and these are text; leave it out.",
        ),
        (
            [{"prompt": "a", "completion": "b"}],
            {"assistant_only_loss": True},
            "assistant_only_loss=True needs conversations, and these rows are prompt+completion; leave it out.",
        ),
        ([{"text": "a"}, {"text": 1}], {}, "data[1]: 'text' is of type int, not text."),
        ([{"text": "a"}], {"max_length": 1}, "max_length=1 leaves no token to predict from another; give at least 2."),
        ([{"text": "a"}], {"truncation_mode": "left"}, "truncation_mode='left' is none of error, drop, keep_start and keep_end."),
    ],
)
def test_refused(tokenizer, rows, options, message):
    assert failure(rows, tokenizer, **options) == message


def test_a_bad_row_behind_the_first_ones_is_named(tokenizer):
    assert failure([{"text": "a"}] * 2345 + [{"body": "b"}], tokenizer) == (
        "data[2345] has no 'text', which the first row has; its columns are ['body']."
    )


def test_no_chat_template_and_no_eos():
    assert failure([{"messages": TURNS}], make_tokenizer(chat_template=None)) == (
        "The rows are messages, and the tokenizer has no chat template to write them with; "
        "give one with chat_template_path (a .jinja file, or a tokenizer that has one)."
    )
    tokenizer = make_tokenizer(eos_token=None)
    message = "The tokenizer has no EOS token, so a model would never learn to stop; name one with eos_token."
    assert failure([{"text": "a"}], tokenizer) == failure([{"prompt": "a", "completion": "b"}], tokenizer) == message
    assert prepare(ListRows([{"text": "the dog"}]), tokenizer, PrepareOptions(eos=False)).report.missing_eos == 1


def test_what_a_template_refuses_is_named(tokenizer):
    template = "{{ raise_exception('No system here.') if messages[0].role == 'system' }}" + CHATML
    rows = [{"messages": TURNS}, {"messages": [{"role": "system", "content": "a"}, *TURNS]}]
    for assistant_only in (False, True):
        message = failure(rows, tokenizer, chat_template=template, assistant_only_loss=assistant_only)
        assert message.startswith("data[1]: ")
        assert "No system here." in message


# The cache


def test_what_was_prepared_is_kept_by_content(tokenizer, cache, tmp_path):
    def folders():
        return len(list((cache / "examples").glob("*/manifest.json")))

    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "the dog"}\n')
    first = prepare(open_rows(path), tokenizer)
    assert folders() == 1
    stamp = next((cache / "examples").glob("*/tokens")).stat().st_mtime_ns
    again = prepare(open_rows(path), make_tokenizer())
    assert (folders(), again.report, again.fingerprint) == (1, first.report, first.fingerprint)
    assert next((cache / "examples").glob("*/tokens")).stat().st_mtime_ns == stamp
    prepare(open_rows(path), tokenizer, PrepareOptions(eos=False))
    prepare(open_rows(path), make_tokenizer(chat_template="{{ messages }}"))
    prepare(open_rows(path), make_tokenizer(bos=True))
    assert folders() == 4
    path.write_text('{"text": "the fox"}\n')
    assert text(prepare(open_rows(path), tokenizer)[0], tokenizer) == "the fox<|im_end|>"
    assert folders() == 5
    prepare(open_rows(path), tokenizer, cache_dir=tmp_path / "other")
    assert folders() == 5


def test_a_damaged_entry_is_made_again(tokenizer, cache, caplog):
    rows = ListRows([{"text": "the dog"}], "data")
    prepare(rows, tokenizer)
    tokens = next((cache / "examples").glob("*/tokens"))
    tokens.write_bytes(tokens.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        assert text(prepare(rows, tokenizer)[0], tokenizer) == "the dog<|im_end|>"
    size = tokens.stat().st_size
    assert caplog.messages == [
        f"The prepared rows of data are damaged and will be made again: {tokens} has {size - 4} bytes instead of {size}."
    ]


def test_what_a_call_left_in_the_tokenizer_changes_nothing(cache):
    rows = ListRows([{"text": "the quick brown fox"}, {"text": "the dog"}])
    clean, used = make_tokenizer(), make_tokenizer()
    used.pad_token = "<s>"
    clean.pad_token = "<s>"
    used(["a", "the dog the dog"], truncation=True, max_length=2, padding=True)
    assert prepare(rows, used).fingerprint == prepare(rows, clean).fingerprint
    assert len(list((cache / "examples").glob("*/manifest.json"))) == 1


def test_a_cache_that_cannot_be_written(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to .*/file/examples/.* \(Not a directory\); make room there, or name another"):
        prepare(ListRows([{"text": "the"}], "data"), tokenizer, cache_dir=tmp_path / "file")


# The fast path is the plain one


def test_the_fast_encoder_gives_the_ids_of_the_tokenizer(tokenizer):
    texts = [*CORPUS, "<|im_start|>user\nnaïve 🙂<|im_end|>", "", "  \n\n x"]
    expected = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    by_word, whole, plain = (TextEncoder(tokenizer) for _ in range(3))
    assert by_word._words is not None
    assert whole._backend is not None
    whole._words = plain._words = plain._backend = None
    for encoder in (by_word, whole, plain):
        assert [ids.tolist() for ids in encoder.encode(texts)] == expected
    assert by_word._words is not None


def test_a_tokenizer_without_a_backend_is_prepared_in_memory(tokenizer, cache):
    class Slow(SimpleNamespace):
        def __call__(self, texts, add_special_tokens=True):
            return tokenizer(texts, add_special_tokens=add_special_tokens)

    slow = Slow(is_fast=False, eos_token_id=tokenizer.eos_token_id, bos_token_id=0, chat_template=None)
    rows = ListRows([{"text": "the dog"}, {"prompt": "", "text": ""}], "data")
    store = prepare(rows, slow)
    assert (parts(store[0]), store.report) == (parts(prepare(rows, tokenizer)[0]), prepare(rows, tokenizer).report)
    assert prepare(rows, slow).report.dropped_empty == 1
    assert len(list((cache / "examples").glob("*/manifest.json"))) == 1
