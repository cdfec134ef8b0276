"""What the tests of preference losses share: pairs, and the losses with the options that make each of them whole."""

from functools import partial

import torch

from burnish.ops import preference, reference_free
from burnish.ops.preference import ReferencedPairs

FIELDS = ("chosen_logp_P", "rejected_logp_P", "chosen_tokens_P", "rejected_tokens_P", "ref_chosen_logp_P", "ref_rejected_logp_P")

PAIRED = {
    **preference.LOSSES,
    **{f"{name} as in TRL": loss for name, loss in preference.LOSSES_AS_IN_TRL.items()},
    "ipo of sums": partial(preference.ipo_loss, average=False),
    "smoothed sigmoid": partial(preference.sigmoid_loss, label_smoothing=0.2),
    "smoothed robust": partial(preference.robust_loss, label_smoothing=0.2),
    "smoothed aot": partial(preference.aot_loss, label_smoothing=0.2),
    "smoothed aot_unpaired": partial(preference.aot_unpaired_loss, label_smoothing=0.2),
    "bco_pair": partial(preference.bco_pair_loss, delta=0.3),
    "sft as in TRL": partial(preference.token_mean_sft_loss, tokens_per_pair=7.0),
}
"""Those with `beta`; and `sft`, which has none."""

REFERENCE_FREE = {
    **{f"cpo {name}": loss for name, loss in reference_free.LOSSES.items()},
    **{f"cpo {name}, alpha {alpha}": partial(loss, alpha=alpha) for name, loss in reference_free.LOSSES.items() for alpha in (0.5, -0.5)},
}


def pairs_of(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, dtype=torch.float64):
    def tensor(values):
        return values if isinstance(values, torch.Tensor) else torch.tensor(values, dtype=dtype)

    return ReferencedPairs(
        chosen_logp_P=tensor(chosen),
        rejected_logp_P=tensor(rejected),
        ref_chosen_logp_P=tensor(ref_chosen),
        ref_rejected_logp_P=tensor(ref_rejected),
        chosen_tokens_P=tensor(chosen_tokens),
        rejected_tokens_P=tensor(rejected_tokens),
    )


def call(name, pairs, beta):
    loss = PAIRED[name]
    return loss(pairs) if name.startswith("sft") else loss(pairs, beta=beta)
