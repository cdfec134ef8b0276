"""The table itself: no method without its laws, no exemption without its reason."""

import importlib
import pkgutil
from pathlib import Path

import burnish.methods
from tests.laws.methods import CASES, LAWS, MODEL_LAWS

TESTS = {
    "micro-batch": "test_micro_batch.py",
    "ranks": "test_ranks.py",
    "tree": "test_tree.py",
    "mask": "test_mask.py",
    "order": "test_order.py",
    "identity": "test_identity.py",
    "silence": "test_silence.py",
    "two voices": "test_two_voices.py",
    "round trip": "test_round_trip.py",
    "resume": "test_resume_and_seed.py",
    "seed": "test_resume_and_seed.py",
    "fast = plain": "test_fast_plain.py",
    "export": "test_export.py",
    "paper": "test_paper.py",
}
STABLE = [case for case in CASES if case.room == "methods"]


def test_every_method_is_listed():
    modules = {module.name for module in pkgutil.iter_modules(burnish.methods.__path__)}
    listed = {case.module for case in STABLE}
    missing = ", ".join(sorted(modules - listed))
    assert listed >= modules, f"tests/laws/methods.py has no case of {missing}; add one for each loss, so that every law binds it."
    assert listed == modules


def test_every_loss_of_a_method_is_listed():
    for module in {case.module for case in STABLE}:
        losses = importlib.import_module(f"burnish.methods.{module}").LOSSES
        assert {case.loss for case in STABLE if case.module == module} == set(losses)


def test_a_law_has_tests_or_no_method_that_it_binds():
    for law in LAWS:
        written = law in TESTS and Path(__file__).with_name(TESTS[law]).is_file()
        assert written or all(law in case.exempt for case in CASES), law


def test_laws_that_take_a_case_ask_the_table():
    for law in TESTS.keys() - MODEL_LAWS - {"paper"}:
        text = Path(__file__).with_name(TESTS[law]).read_text(encoding="utf-8")
        assert f'@cases("{law}"' in text, law


def test_exemptions_name_laws_and_give_reasons():
    for case in CASES:
        assert set(case.exempt) <= set(LAWS), case.name
        assert all(len(reason.split()) >= 3 for reason in case.exempt.values()), case.name


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_examples_are_of_unequal_lengths_and_have_something_to_train():
    for case in CASES:
        examples = case.examples(8)
        assert len({len(e) for e in examples}) >= 6, case.name
        assert all(e.trained_tokens for e in examples), case.name
