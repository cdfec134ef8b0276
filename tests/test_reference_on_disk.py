"""Log-probs of a reference on disk: the same run with and without them, whoever computed them, for sets and for streams."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from burnish import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from burnish.config.values import ConfigError
from burnish.trainer import reference as module
from tests.tiny import preferences, tiny_llama, tiny_tokenizer

ROWS = preferences(30)


def trainer(folder, *, rows=ROWS, method=(DPOTrainer, DPOConfig), model=None, **options):
    kind, config = method
    shape = {"batch_size": 4, "max_steps": 5, "learning_rate": 1e-2, "compute_dtype": "float32", "logging_steps": 1, "disable_tqdm": True}
    args = config(output_dir=str(folder), dataset_cache_dir=str(folder.parent / "cache"), save_strategy="no", **shape, **options)
    return kind(model or tiny_llama(), args=args, train_dataset=rows, eval_dataset=ROWS[:4], processing_class=tiny_tokenizer())


def losses(one):
    one.train()
    return [line["loss"] for line in one.state.log_history if "loss" in line]


@pytest.mark.parametrize("method", [(DPOTrainer, DPOConfig), (KTOTrainer, KTOConfig)], ids=["dpo", "kto"])
def test_the_same_run(method, tmp_path):
    wanted = losses(trainer(tmp_path / "a", method=method))
    assert losses(trainer(tmp_path / "b", method=method, precompute_ref_log_probs=True)) == pytest.approx(wanted, rel=1e-5)


def test_shared_between_runs_and_cut_short(tmp_path, monkeypatch):
    """A second run computes nothing; one that is stopped in the pass goes on where it stopped, to the bit."""
    monkeypatch.setattr(module, "BLOCK", 8)
    whole = trainer(tmp_path / "a" / "run", precompute_ref_log_probs=True)
    wanted = losses(whole)
    calls, plain = [], module.spread

    def counted(*given):
        calls.append(len(given[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(module, "spread", counted)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "b" / "run", precompute_ref_log_probs=True).train()
    assert calls == [8, 8, 8]
    assert losses(trainer(tmp_path / "b" / "run", precompute_ref_log_probs=True)) == wanted
    assert calls == [8, 8, 8, 8, 6]  # the evaluation set is part of the training set: 4 blocks of 30 rows, of which 2 were done
    assert losses(trainer(tmp_path / "b" / "again", precompute_ref_log_probs=True, beta=0.1)) == wanted
    assert len(calls) == 5


def test_a_stream(tmp_path):
    stream = Dataset.from_list(ROWS).to_iterable_dataset()
    wanted = losses(trainer(tmp_path / "a", rows=stream))
    assert losses(trainer(tmp_path / "b", rows=stream, precompute_ref_log_probs=True)) == pytest.approx(wanted, rel=1e-5)


def test_the_reference_is_gone_afterwards(tmp_path):
    one = trainer(tmp_path / "run", precompute_ref_log_probs=True)
    before = one.evaluate()
    assert before["eval_rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert sum(parameter.numel() for parameter in one.policy.parameters()) == sum(p.numel() for p in one.model.parameters())
    assert one.started.reference._policy is None
    with pytest.raises(ConfigError, match="frees the reference when the trainer's own sets are done"):
        one.evaluate(ROWS[:2])


def test_another_reference_has_log_probs_of_its_own(tmp_path):
    one = losses(trainer(tmp_path / "a", precompute_ref_log_probs=True))
    other = losses(trainer(tmp_path / "b", model=tiny_llama(seed=1), precompute_ref_log_probs=True))
    assert one != other
    assert len(list((tmp_path / "cache" / "references").glob("*.sqlite"))) == 2


def test_names_in_trls_order(tmp_path):
    """The second argument is ref_model, as in TRL."""
    with pytest.raises(ConfigError, match="The second argument of DPOTrainer is ref_model, as in TRL"):
        DPOTrainer(tiny_llama(), DPOConfig(output_dir=str(tmp_path)), train_dataset=ROWS)
    reference = tiny_llama(seed=3)
    args = DPOConfig(output_dir=str(tmp_path), max_steps=1, compute_dtype="float32", save_strategy="no", logging_steps=1)
    one = DPOTrainer(tiny_llama(), reference, args, train_dataset=ROWS, processing_class=tiny_tokenizer())
    one.train()
    assert abs(one.state.log_history[0]["rewards/chosen"]) > 1e-3
    with torch.no_grad():
        assert all(torch.equal(p, q) for p, q in zip(reference.parameters(), tiny_llama(seed=3).parameters(), strict=True))
