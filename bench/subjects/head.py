"""Memory and time of the vocabulary head alone: log-probs of chosen tokens and their gradient, for one size.

Memory is the most that was resident beyond what was resident before, less the gradients, which any head has: `[tokens, hidden]` and
`[vocabulary, hidden]`. A first small call is not counted. Where the system does not say what is resident, time alone is measured.

Specification: `{"tokens": …, "vocabulary": …, "hidden": …, "threads": …}`.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.subjects.inside import Answer, clocks, peak_bytes, resident_bytes, serve, since
from burnish.ops.logprobs import Head, chunked_logprobs


def run(spec: dict[str, Any]) -> Answer:
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    weight = torch.randn(spec["vocabulary"], spec["hidden"]).mul_(0.02).requires_grad_()
    hidden = torch.randn(spec["tokens"], spec["hidden"]).requires_grad_()
    targets = torch.randint(spec["vocabulary"], (spec["tokens"],))
    once(hidden[:8].detach().requires_grad_(), weight[:64].detach().requires_grad_(), targets[:8] % 64)
    before, start = resident_bytes(), clocks()
    once(hidden, weight, targets)
    measures = {"cpu_s": [since(start)[0]]}
    if before:
        measures["extra_bytes"] = [peak_bytes() - before - 4 * (weight.numel() + hidden.numel())]
    return {"measures": measures, "facts": {"logits_bytes": 4 * spec["tokens"] * spec["vocabulary"]}}


def once(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> None:
    chunked_logprobs(Head(inputs=[hidden], weights=[weight]), targets)[0].sum().backward()


if __name__ == "__main__":
    serve(run)
