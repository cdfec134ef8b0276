import io

import pytest
import rich.console

from burnish.report.tokens import length_histogram, share_trained, show_example
from burnish.types import Branch, Example, Segment

WORDS = ["<s>", "user\n", "Hi", " there", "<e>", "bot\n", "Oh", "!", "\x1b[31m", "é"]


def decode(ids):
    return "".join(WORDS[i] for i in ids)


def segment(ids, source, trained=False):
    return Segment(token_ids=ids, source=source, trained=trained)


CHAT = Example(
    group_id="train:17",
    prompt=(),
    branches=(
        Branch(
            segments=(
                segment([0, 1], "template"),
                segment([2, 3], "prompt"),
                segment([4, 5], "template"),
                segment([6, 7], "model", trained=True),
                segment([4], "model", trained=True),
            )
        ),
    ),
)


def shown(example, to_text=decode, *, colour=False, max_tokens=None, **environment):
    out = io.StringIO()
    system = "truecolor" if colour else None
    console = rich.console.Console(file=out, width=40, force_terminal=colour, color_system=system, _environ=environment)
    show_example(example, to_text, console, max_tokens=max_tokens)
    return out.getvalue()


PLAIN = """\
train:17: 9 tokens, 3 trained (33%)
⟦trained⟧ context and template
<s>user⏎
Hi there<e>bot⏎
⟦Oh!<e>⟧
"""


def test_without_colour_trained_runs_are_in_brackets():
    assert shown(CHAT) == PLAIN


def test_no_color_is_obeyed_on_a_terminal():
    assert shown(CHAT, colour=True, NO_COLOR="1") == PLAIN


def test_with_colour_each_kind_has_its_own():
    trained, context, template = "\x1b[1;30;42m", "\x1b[36m", "\x1b[90m"
    end = "\x1b[0m"
    assert shown(CHAT, colour=True) == (
        "train:17: 9 tokens, 3 trained (33%)\n"
        f"{trained}trained{end}  {context}context{end}  {template}template{end}\n"
        f"{template}<s>user⏎{end}\n"
        f"{context}Hi there{end}{template}<e>bot⏎{end}\n"
        f"{trained}Oh!<e>{end}\n"
    )


def test_the_data_cannot_steer_the_terminal():
    hostile = Example(group_id="a[red]b", prompt=(), branches=(Branch(segments=(segment([8, 2], "prompt"),)),))
    assert shown(hostile) == "a[red]b: 2 tokens, 0 trained (0%)\n⟦trained⟧ context and template\n\\x1b[31mHi\n"


LEGEND = "⟦trained⟧ context and template\n"


def group(*branches, prompt=(3, 2), **more):
    shared = (segment(list(prompt), "prompt"),) if prompt else ()
    return Example(group_id="p:1", prompt=shared, branches=branches, **more)


def branch(*ids, **more):
    return Branch(segments=(segment(list(ids), "model", trained=True),), **more)


def test_a_pair_is_shown_with_its_prompt_once():
    pair = group(branch(6, 4), branch(7, 3, 4), margin=0.5)
    assert shown(pair) == (
        f"p:1: 7 tokens, 5 trained (71%), margin 0.5\n{LEGEND}"
        "prompt of all, 2 tokens\n thereHi\nchosen, 2 tokens\n⟦Oh<e>⟧\nrejected, 3 tokens\n⟦! there<e>⟧\n"
    )
    assert shown(pair, max_tokens=2).splitlines()[-1] == "⟦!⟧ … 1 tokens left out … ⟦<e>⟧"


def test_labels_are_shown():
    assert shown(group(branch(6, label=False))) == (
        f"p:1: 3 tokens, 1 trained (33%)\n{LEGEND}prompt, 2 tokens\n thereHi\nlabel false, 1 token\n⟦Oh⟧\n"
    )
    names = [line.split(",")[0] for line in shown(group(branch(6, label=True), branch(7, label=False), branch(2))).splitlines()[2::2]]
    assert names == ["prompt of all", "label true", "label false", "of another prompt"]


def test_other_branches_have_numbers():
    sampled = group(branch(6, advantage=1.0), branch(7, advantage=-1.0))
    assert shown(sampled).splitlines()[4::2] == ["branch 1 of 2, 1 token", "branch 2 of 2, 1 token"]


def test_the_label_of_a_step_stands_behind_it():
    def step(label):
        return Segment(token_ids=[4], source="model", trained=True, label=label)

    steps = group(Branch(segments=(segment([6], "model"), step(True), segment([7], "model"), step(False))))
    assert shown(steps).splitlines()[2:] == [" thereHiOh⟦<e>⟧✓!⟦<e>⟧✗"]
    coloured = shown(steps, colour=True).splitlines()[2]
    assert coloured == "\x1b[36m thereHiOh\x1b[0m\x1b[1;30;42m<e>\x1b[0m✓\x1b[36m!\x1b[0m\x1b[1;30;41m<e>\x1b[0m✗"


def test_a_branch_is_decoded_behind_its_prompt():
    class SentencePiece:
        """Drops the first space of whatever it decodes."""

        def decode(self, token_ids):
            return decode(token_ids).removeprefix(" ")

    assert shown(group(branch(3, 4), branch(6), prompt=(2,)), SentencePiece()).splitlines()[5] == "⟦ there<e>⟧"
    assert shown(group(branch(3, 4), branch(6), prompt=()), SentencePiece()).splitlines()[3:6] == ["", "chosen, 2 tokens", "⟦there<e>⟧"]


def test_the_middle_of_a_long_one_is_left_out_and_counted():
    long = Example(
        group_id="l", prompt=(segment([2] * 1500, "prompt"),), branches=(Branch(segments=(segment([7] * 3, "model", trained=True),)),)
    )
    assert shown(long, max_tokens=5).splitlines()[-1] == "HiHiHi … 1,498 tokens left out … ⟦!!⟧"
    assert "left out" not in shown(long, max_tokens=1503)


def test_a_tokenizer_is_a_decoder_and_keeps_the_space_between_runs():
    class SentencePiece:
        """Drops the first space of whatever it decodes, as sentencepiece does; is callable, as tokenizers are."""

        def __call__(self, text):
            raise AssertionError("not to be called")

        def decode(self, token_ids):
            return decode(token_ids).removeprefix(" ")

    example = Example(
        group_id="s", prompt=(segment([3, 2], "prompt"),), branches=(Branch(segments=(segment([3, 9], "model", trained=True),)),)
    )
    assert shown(example, SentencePiece()).splitlines()[-1] == "thereHi⟦ thereé⟧"


def test_a_run_whose_text_does_not_extend_the_text_before_it_is_decoded_alone():
    def split_character(ids):
        return {(2,): "a�", (2, 3): "aé!"}.get(tuple(ids), "�!")

    example = Example(group_id="s", prompt=(segment([2], "prompt"),), branches=(Branch(segments=(segment([3], "model", trained=True),)),))
    assert shown(example, split_character).splitlines()[-1] == "a�⟦�!⟧"


def test_histogram():
    lengths = [7, 61, 140] + [30] * 2 + [99] * 7
    assert length_histogram(lengths, 100, width=12).splitlines() == [
        "     0–9 █▊ 1",
        "   10–19  0",
        "   20–29  0",
        "   30–39 ███▍ 2",
        "   40–49  0",
        "   50–59  0",
        "   60–69 █▊ 1",
        "   70–79  0",
        "   80–89  0",
        "   90–99 ████████████ 7",
        "over 100 █▊ 1",
        "12 rows: shortest 7, median 99, longest 140 tokens",
    ]


@pytest.mark.parametrize(
    ("lengths", "max_length", "text"),
    [
        ([], 10, "no rows"),
        ([5], None, "5–5 ██ 1\n1 row: shortest 5, median 5, longest 5 tokens"),
        ([1024] * 3, 1024, "1,024–1,024 ██ 3\n3 rows: shortest 1,024, median 1,024, longest 1,024 tokens"),
        (
            [1001, 1013],
            None,
            "1,000–1,001 ██ 1\n1,002–1,003  0\n1,004–1,005  0\n1,006–1,007  0\n1,008–1,009  0\n1,010–1,011  0\n"
            "1,012–1,013 ██ 1\n2 rows: shortest 1,001, median 1,013, longest 1,013 tokens",
        ),
        ([50], 10, "over 10 ██ 1\n1 row: shortest 50, median 50, longest 50 tokens"),
        ([0, 2048], 2048, None),
    ],
)
def test_histogram_at_its_edges(lengths, max_length, text):
    drawn = length_histogram(lengths, max_length, width=2)
    if text is None:
        assert drawn.splitlines()[0].strip() == "0–199 ██ 1"
        assert drawn.splitlines()[-2].strip() == "2,000–2,048 ██ 1"
    else:
        assert drawn == text


def test_every_row_is_counted_once_and_a_rare_one_is_seen():
    drawn = length_histogram([3] * 10_000 + [95], None)
    counts = [int(line.rsplit(" ", 1)[1].replace(",", "")) for line in drawn.splitlines()[:-1]]
    assert sum(counts) == 10_001
    assert drawn.splitlines()[-2].endswith(" ▏ 1")


def test_share_trained():
    assert share_trained([CHAT, CHAT]) == 3 / 9
    assert share_trained([]) == 0.0
