"""Law *micro-batch*: any split of the same step gives the same gradient, and the same metrics."""

import pytest

from burnish.data.tree import split_example
from burnish.models.policy import Paths
from tests.laws.exact import distance
from tests.laws.methods import cases
from tests.laws.rollout_cases import groups
from tests.laws.runs import cut_step, make_run, take, whole_step

pytestmark = pytest.mark.usefixtures("float64")

SPLITS = {
    "2x4": [range(4), range(4, 8)],
    "4x2": [(0, 7), (1, 6), (2, 5), (3, 4)],
    "8x1": [[i] for i in range(8)],
    "uneven": [(0, 3, 4, 5, 6, 7), (2,), (1,)],
    "another order": [(7, 1, 5), (6, 0, 2, 4, 3)],
}


def same(found, wanted):
    assert distance(found.gradient, wanted.gradient) <= 1e-10
    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-10, abs=1e-12)


@cases("micro-batch")
@pytest.mark.parametrize("split", SPLITS)
def test_cut_by_hand(case, split):
    examples = case.examples(8)
    found = take(make_run(case), cut_step(examples, SPLITS[split]))
    assert found.micro_batches == len(SPLITS[split])
    same(found, take(make_run(case), cut_step(examples, [range(8)])))


@cases("micro-batch")
@pytest.mark.parametrize("max_tokens", [10**6, 150, 60, 20, 1])
def test_cut_by_the_plan(case, max_tokens):
    """Evaluation too: its loss is one division over the set, however it is cut."""
    examples = case.examples(8)
    wanted = take(make_run(case), cut_step(examples, [range(8)]), evaluated=case.examples(11))
    found = take(make_run(case), whole_step(examples, max_tokens=max_tokens), evaluated=case.examples(11), max_tokens=max_tokens)
    longest, total = max(map(len, examples)), sum(map(len, examples))
    assert -(-total // max(max_tokens, longest)) <= found.micro_batches <= 8
    assert found.micro_batches == {10**6: 1, 1: 8}.get(max_tokens, found.micro_batches)
    assert max_tokens > 60 or found.micro_batches > 2
    same(found, wanted)


@cases("micro-batch")
def test_branch_by_branch(case):
    examples = case.examples(8)
    wanted = take(make_run(case), cut_step(examples, [range(8)]))
    same(take(make_run(case, paths=Paths(attention="branches")), whole_step(examples, max_tokens=60)), wanted)


@cases("micro-batch", "max_tokens", of=lambda case: (40, 20, 1) if case.samples else ())
def test_groups_cut_between_their_branches(case, max_tokens):
    """Micro-batches have parts of groups, and the prompt again; some have completions that are left out, and nothing else."""
    examples = case.examples(8)
    parts = [part for one in examples for part in split_example(one, max_tokens)]
    assert len(parts) > len(examples)
    found, wanted = take(make_run(case), whole_step(parts, max_tokens=max_tokens)), take(make_run(case), cut_step(examples, [range(8)]))
    assert found.micro_batches > 3
    assert distance(found.gradient, wanted.gradient) <= 1e-10
    assert found.metrics.pop("trained_share count") > wanted.metrics.pop("trained_share count"), "prompts are there more often"
    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-10, abs=1e-12)


@cases("micro-batch")
def test_a_part_of_the_step_gives_another_gradient(case):
    """So that the comparisons above compare something."""
    examples = case.examples(8)
    whole, part = take(make_run(case), cut_step(examples, [range(8)])), take(make_run(case), cut_step(examples[:7], [range(7)]))
    assert distance(part.gradient, whole.gradient) > 1e-3


@cases("micro-batch", "way", of=lambda case: ("averaged over",) if case.samples and case.name not in ("grpo-kl", "grpo-entropy") else ())
def test_what_is_left_out_is_averaged_over(case, way):
    """A completion without an advantage, computed or not: the same gradient, and the same loss."""
    left_out, computed = (take(make_run(case), whole_step(groups(8, left_out=out), max_tokens=60)) for out in (True, False))
    assert distance(left_out.gradient, computed.gradient) <= 1e-10
    assert left_out.metrics["loss total"] == pytest.approx(computed.metrics["loss total"], rel=1e-6, abs=1e-9)
    assert left_out.metrics["entropy count"] < computed.metrics["entropy count"]
