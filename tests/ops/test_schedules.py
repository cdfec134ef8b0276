"""Learning-rate schedules: by hand, and against transformers' own over whole runs."""

import pytest
import torch
from transformers import optimization

from burnish.ops.schedules import SHAPES, schedule


def factors(name, warmup=2, total=10, **options):
    shape = schedule(name, warmup=warmup, total=total, **options)
    return [shape(step) for step in range(total + 1)]


BY_HAND = {
    # 2 steps up, 8 down: 1 - 1/8, 1 - 2/8, …
    "linear": ({}, [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]),
    # (1 + cos(pi k / 8)) / 2: at k = 4 it is 1/2, at k = 8 it is 0
    "cosine": ({}, [0, 0.5, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060, 0]),
    # two cosines of 4 steps each; the last step is 0 and not the top of a third
    "cosine_with_restarts": ({"num_cycles": 2}, [0, 0.5, 1, 0.853553, 0.5, 0.146447, 1, 0.853553, 0.5, 0.146447, 0]),
    # 0.2 + 0.8 cosine
    "cosine_with_min_lr": ({"min_lr_rate": 0.2}, [0, 0.5, 1, 0.969552, 0.882843, 0.753073, 0.6, 0.446927, 0.317157, 0.230448, 0.2]),
    # (1 - k/8)^2, from 1 to 1e-7
    "polynomial": ({"power": 2.0}, [0, 0.5, 1, 0.765625, 0.5625, 0.390625, 0.25, 0.140625, 0.0625, 0.015625, 1e-7]),
    "constant": ({}, [1] * 11),
    "constant_with_warmup": ({}, [0, 0.5] + [1] * 9),
    # flat for 4 of the 8 steps, then (1 + cos(pi j / 4)) / 2
    "warmup_stable_decay": ({"decay_share": 0.5}, [0, 0.5, 1, 1, 1, 1, 1, 0.853553, 0.5, 0.146447, 0]),
    # sqrt(2 / (2 + k)): 1, 0.8165, 0.7071, …; at k = 6 it is sqrt(2/8) = 1/2
    "inverse_sqrt": ({}, [0, 0.5, 1, 0.816497, 0.707107, 0.632456, 0.577350, 0.534522, 0.5, 0.471405, 0.447214]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    options, wanted = BY_HAND[name]
    assert factors(name, **options) == pytest.approx(wanted, abs=1e-6)


def test_every_schedule_is_worked_by_hand():
    assert set(BY_HAND) == {*SHAPES, "inverse_sqrt"}


def theirs(name, warmup, total, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    one = optimization.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=options)
    found = []
    for _ in range(total + 1):
        found.append(one.get_last_lr()[0])
        optimizer.step()
        one.step()
    return found


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (1, 20), (5, 20), (19, 20), (13, 57)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("cosine", {"num_cycles": 1.5}),
        ("cosine_with_restarts", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.3}),
        ("polynomial", {}),
        ("polynomial", {"power": 3.0}),
        ("constant", {}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
        ("inverse_sqrt", {"timescale": 50}),
    ],
)
def test_as_transformers(name, options, warmup, total):
    assert factors(name, warmup, total, **options) == pytest.approx(theirs(name, warmup, total, **options), abs=1e-6)


@pytest.mark.parametrize(("warmup", "total", "share"), [(0, 10, 0.5), (4, 24, 0.25), (10, 110, 0.1)])
@pytest.mark.parametrize("lowest", [0.0, 0.1])
def test_warmup_stable_decay_as_transformers(warmup, total, share, lowest):
    """Its lengths are counts of steps there and a share of the steps after warm-up here.

    Its warm-up starts from the lowest rate there; here, as that of every other schedule, from 0.
    """
    decay = round(share * (total - warmup))
    wanted = theirs("warmup_stable_decay", warmup, total, num_decay_steps=decay, min_lr_ratio=lowest)
    found = factors("warmup_stable_decay", warmup, total, decay_share=share, min_lr_ratio=lowest)
    assert found[warmup:] == pytest.approx(wanted[warmup:], abs=1e-6)
    assert found[:warmup] == [step / warmup for step in range(warmup)]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="^lr_scheduler_type is 'cosin'; choose one of linear, cosine, cosine_with_restarts, "):
        schedule("cosin", warmup=0, total=1)


@pytest.mark.parametrize("name", ["linear", "inverse_sqrt", "constant"])
def test_an_option_of_another_schedule_is_refused(name):
    wanted = rf"^lr_scheduler_kwargs \['min_lr_rate'\] do not all belong to the {name} schedule; remove the others\.$"
    with pytest.raises(ValueError, match=wanted):
        schedule(name, warmup=0, total=1, min_lr_rate=0.1)


def test_steps_beyond_the_end_stay_at_the_end():
    assert [schedule("linear", warmup=0, total=4)(step) for step in (4, 5, 50)] == [0.0, 0.0, 0.0]
