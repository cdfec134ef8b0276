"""Padding of a reward model, which must end no row: transformers passes over it to find a row's last token."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from burnish.data.tree import build_tree
from burnish.models.export import save_model
from burnish.models.padding import set_padding
from tests.laws.methods import tokenizer
from tests.models.families import tiny_scorer
from tests.models.scorers import AUTO, pair, scorer_of, with_pad


@pytest.mark.parametrize("kind", AUTO)
def test_padding_that_ends_no_row_stays(kind):
    model, one = tiny_scorer("llama", kind), tokenizer()
    assert set_padding(model, one) == ()
    assert (model.config.pad_token_id, one.pad_token) == (0, "<pad>")


BEFORE_THE_END = "</s> ends rows, and transformers passes over padding to find a row's last token"


def test_padding_that_ends_rows_is_replaced():
    """By the unknown token, a special one that ends no row, or one that is new; the embedding has 97 rows, the tokenizer 93 tokens."""
    for made, wanted, token in (
        (with_pad(pad_token="</s>", unk_token="w4"), 7, "w4"),
        (with_pad(pad_token="</s>"), 0, "<pad>"),
        (with_pad(pad_token="</s>", chat_template="{{ m }}<pad>"), 1, "<s>"),
        (with_pad(pad_token="</s>", chat_template="{{ bos }}<s>{{ m }}<pad>"), 93, "<|padding|>"),
    ):
        model = tiny_scorer("llama", pad_token_id=2)
        said = set_padding(model, made)
        assert said == (f"Padding is {token} from here on, for the model and for its tokenizer: {BEFORE_THE_END}.",)
        assert (model.config.pad_token_id, made.pad_token_id, made.pad_token, made.eos_token_id) == (wanted, wanted, token, 2)


def test_where_there_was_none():
    assert set_padding(tiny_scorer("llama"), with_pad(pad_token=None)) == (
        "Padding is <pad> from here on, for the model and for its tokenizer: there was none.",
    )


def test_the_models_own_ends_count_too():
    model, one = tiny_scorer("llama", eos_token_id=[2, 0]), tokenizer()
    (message,) = set_padding(model, one)
    assert message.endswith(": <pad> ends rows, and transformers passes over padding to find a row's last token.")
    assert model.config.pad_token_id not in (0, 2)


def test_where_nothing_can_be_padding_rows_are_taken_one_at_a_time():
    model, one = tiny_scorer("llama", vocab_size=93), with_pad(pad_token="</s>", bos_token="</s>", unk_token="</s>", eos_token="</s>")
    one.chat_template = "<pad><s>"
    assert set_padding(model, one) == (
        f"No token can be padding ({BEFORE_THE_END}): transformers will take one row at a time of this model.",
    )
    assert model.config.pad_token_id is None
    with pytest.raises(ValueError, match="Cannot handle batch sizes > 1"):
        model(torch.ones(2, 3, dtype=torch.long))


@torch.no_grad()
@pytest.mark.parametrize("pad", ["</s>", "<pad>", None])
def test_transformers_reads_our_scores_of_rows_alone_and_padded(tmp_path, pad):
    """Rows that end with the end-of-turn token, whatever padding was before: the score is that of the tree."""
    one = with_pad(pad_token=pad)
    scorer = scorer_of("llama", dtype=torch.float32, pad_token_id=2)
    set_padding(scorer.model, one)
    wanted = scorer(build_tree([pair()])).score_NK
    save_model(scorer.model, tmp_path, one)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    from transformers import AutoTokenizer

    padder = AutoTokenizer.from_pretrained(tmp_path)
    rows = [[5, 6, 7, 8, 9, 2], [5, 6, 7, 10, 2]]
    for side in ("left", "right"):
        padder.padding_side = side
        batch = padder.pad({"input_ids": rows}, return_tensors="pt")
        positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        found = plain(**batch, position_ids=positions).logits
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    for row, score in zip(rows, wanted, strict=True):
        torch.testing.assert_close(plain(torch.tensor([row])).logits[0], score, atol=1e-5, rtol=1e-5)
