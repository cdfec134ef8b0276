"""Decoding step by step equals the whole row run at once, whatever else is decoded beside it."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.models.attention import NAME, register
from burnish.models.decoding import OWN, Decoder, context_slot
from burnish.models.load import ModelError
from burnish.models.plain_decoding import PlainDecoder
from burnish.models.shelves import Shelf
from tests.models.families import FAMILIES, VOCABULARY, tiny_model

TREES = [name for name, (_, _, way) in FAMILIES.items() if way == "tree"]
CPU = torch.device("cpu")


def alone(model, ids):
    """The hidden state of the last token, by the model's own forward and its own attention."""
    return model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]


class Comparison:
    """Rows that are decoded, and what each has come to; `check` compares each step with the whole row."""

    def __init__(self, model):
        self.plain, self.model = model.config._attn_implementation, model
        register()
        model.set_attn_implementation(NAME)
        self.decoder = Decoder(self.run, CPU)
        self.contexts, self.rows, self.found = {}, {}, []
        self.draw = np.random.default_rng(0)

    def run(self, ids, positions):
        return self.model.base_model(input_ids=ids[None], position_ids=positions[None], use_cache=False).last_hidden_state[0]

    def add_contexts(self, **lengths):
        new = {int(name[1:]): self.draw.integers(3, VOCABULARY, n) for name, n in lengths.items()}
        self.contexts |= new
        self.found += zip(self.decoder.add_contexts(new), map(list, new.values()), strict=True)

    def add_rows(self, rows):
        self.decoder.add_rows(rows)
        self.rows |= {row: list(self.contexts[context]) for row, context in rows.items()}

    def step(self, count=1):
        for _ in range(count):
            self.decoder.make_room()
            order = self.decoder.order
            tokens = self.draw.integers(3, VOCABULARY, len(order))
            for row, token in zip(order, tokens, strict=True):
                self.rows[row].append(int(token))
            self.found += zip(self.decoder.step(torch.from_numpy(tokens)), [list(self.rows[row]) for row in order], strict=True)

    @torch.no_grad()
    def worst(self):
        self.model.set_attn_implementation(self.plain)
        return max(float((hidden - alone(self.model, ids)).abs().max()) for hidden, ids in self.found)


def decode(model):
    """Contexts of 9, 4, 17 and 1 tokens; rows that begin, end and take each other's places at different times, past two sizes of slots."""
    with torch.no_grad():
        one = Comparison(model)
        one.add_contexts(c0=9, c1=4, c2=17, c3=1)
        one.add_rows({10: 0, 11: 0, 12: 1, 13: 2, 14: 3, 15: 3})
        one.step(5)
        one.decoder.drop_rows([11])
        one.step(9)
        one.decoder.drop_rows([13])
        one.decoder.drop_contexts([2])
        one.add_rows({11: 0, 16: 1})
        one.step()
        one.add_contexts(c7=33, c8=15)
        one.add_rows({20: 7, 21: 8, 22: 7})
        one.step(OWN - 10)
        one.decoder.drop_rows([10, 20])
        one.step(3)
        return one


@pytest.mark.parametrize("family", TREES)
def test_families(family):
    """To the rounding of norms and softmaxes that models compute in float32 whatever their weights are."""
    assert decode(tiny_model(family)).worst() <= 2e-6


def test_adapters_are_live():
    model = tiny_model("llama")
    torch.manual_seed(1)
    adapted = (
        get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "v_proj", "down_proj"])).double().eval()
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    with_adapter = decode(adapted.get_base_model())
    assert with_adapter.worst() <= 2e-6
    with adapted.disable_adapter(), torch.no_grad():
        assert max(float((hidden - alone(model, ids)).abs().max()) for hidden, ids in with_adapter.found) > 0.1


def test_a_context_that_fills_its_slot_and_lockstep_need_no_mask(monkeypatch):
    """Two contexts of 16 tokens in slots of 16, and rows that are equally long: nothing is hidden, so no mask is made."""
    monkeypatch.setattr("burnish.models.decoding._additive", None)
    with torch.no_grad():
        one = Comparison(tiny_model("llama"))
        one.add_contexts(c0=16, c1=16)
        one.add_rows({0: 0, 1: 0, 2: 1})
        one.step(OWN + 2)
        assert one.worst() <= 2e-6


def test_slots():
    """Multiples of 16 up to 128 tokens, then of 32 to 256, of 64 to 512: the least that holds them."""
    assert [context_slot(n) for n in (1, 16, 17, 64, 100, 127, 129, 200, 257, 1000)] == [16, 16, 32, 64, 112, 128, 160, 224, 320, 1024]
    for n in range(64, 5000):
        assert n <= context_slot(n) <= 1.25 * n


def test_room_is_what_slots_in_use_hold():
    """Contexts of 9 and 17 tokens have slots of 16 and 32; two rows 32 each, and 64 each from their 33rd token on."""
    with torch.no_grad():
        one = Comparison(tiny_model("llama"))
        one.add_contexts(c0=9, c1=17)
        one.add_rows({0: 0, 1: 1})
        assert one.decoder.room == 16 + 32 + 2 * OWN
        one.step(OWN)
        assert one.decoder.room == 16 + 32 + 2 * 2 * OWN
        one.decoder.drop_rows([0])
        assert one.decoder.room == 16 + 32 + 2 * OWN
        one.decoder.drop_contexts([0])
        assert one.decoder.room == 32 + 2 * OWN
        # two layers of keys and values of two heads of 8 in float64
        assert one.decoder.token_bytes == 2 * 2 * 2 * 8 * 8


def filled(shelf, holders):
    """Each holder's keys are its number, its values the number's negative."""
    first = shelf.add(holders)
    module = torch.nn.Identity() if not shelf._kept else next(iter(shelf._kept))
    key, value = shelf.of(module, torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 4))
    for slot, holder in enumerate(holders, first):
        key[slot], value[slot] = holder, -holder
    return module


def held(shelf, module):
    key, value = shelf._kept[module]
    assert bool((key[:, 0, 0, 0] == -value[:, 1, 0, 3]).all())
    return key[: len(shelf.holders), 0, 0, 0].int().tolist()


def test_the_last_holders_move_into_slots_that_are_given_up():
    shelf = Shelf(4)
    module = filled(shelf, [10, 11, 12, 13, 14])
    shelf.drop([1, 3])
    assert shelf.holders == held(shelf, module) == [10, 14, 12]
    assert shelf.slots == 3, "what is not used is given back"
    filled(shelf, [15])
    assert shelf.holders == held(shelf, module) == [10, 14, 12, 15]


def test_holders_move_to_larger_slots():
    small, large = Shelf(4), Shelf(8)
    module = filled(small, [1, 2, 3])
    small.hand_over([0, 2], large)
    assert (small.holders, large.holders) == ([2], [1, 3])
    assert (held(small, module), held(large, module)) == ([2], [1, 3])
    small.hand_over([0], large)
    assert (small.holders, small.slots, held(large, module)) == ([], 0, [1, 3, 2])
    assert large._kept[module][0][:, :, 4:].abs().max() == 0, "room that nothing was written to is finite"


@pytest.mark.parametrize("family", ["mamba", "bloom-alibi", "llama", "mistral-sliding", "gemma3"])
def test_the_models_own_cache(family):
    """One context and three rows, of which the middle one ends."""
    model, draw = tiny_model(family), np.random.default_rng(0)
    decoder = PlainDecoder(model.base_model, CPU)
    with torch.no_grad():
        context = draw.integers(3, VOCABULARY, 7)
        found = [(decoder.add_contexts({4: context})[0], list(context))]
        rows = {0: list(context), 1: list(context), 2: list(context)}
        decoder.add_rows(dict.fromkeys(rows, 4))
        for step in range(12):
            if step == 5:
                decoder.drop_rows([1])
            tokens = draw.integers(3, VOCABULARY, len(decoder.order))
            for row, token in zip(decoder.order, tokens, strict=True):
                rows[row].append(int(token))
            found += zip(decoder.step(torch.from_numpy(tokens)), [list(rows[row]) for row in decoder.order], strict=True)
        assert max(float((hidden - alone(model, ids)).abs().max()) for hidden, ids in found) <= 2e-5


def test_a_model_without_a_cache_is_refused():
    def run(input_ids, use_cache):
        return {"last_hidden_state": torch.zeros(1, 2, 3)}

    with pytest.raises(ModelError, match="gives no cache"):
        PlainDecoder(run, CPU).add_contexts({0: np.array([1, 2])})
