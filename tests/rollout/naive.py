"""A sampler that is as plain as can be: each completion alone, each token from a forward over all before it."""

from __future__ import annotations

import numpy as np
import torch

from burnish.rollout.sampler import Completion
from burnish.rollout.uniforms import row_key, uniforms


class NaiveSampler:
    """Draws from the policy at the temperature, without truncation; `exact` is as asked, so that it can stand for a server."""

    def __init__(self, policy, *, exact=True, gap=0.0):
        self.policy, self.exact, self.gap, self.version = policy, exact, gap, 0
        self.calls = []
        """How many requests each sampling had."""

    def update(self, version):
        self.version = version

    @torch.no_grad()
    def sample(self, requests, sampling, then=None):
        waiting = list(requests)
        self.calls.append(len(waiting))
        while waiting:
            completion = self._one(waiting.pop(0), sampling)
            following = then(completion) if then else None
            if following is not None:
                waiting.append(following)
            yield completion

    def _one(self, request, sampling):
        key, ids, logps = row_key(sampling.seed, request.prompt_id, request.sample), [], []
        while len(ids) < request.max_tokens and (not ids or ids[-1] not in sampling.stop_token_ids):
            row = torch.tensor([[*request.token_ids.tolist(), *ids]])
            log_p = (self.policy.logits(row)[0, -1].double() / (sampling.temperature or 1.0)).log_softmax(-1)
            if sampling.temperature:
                u = uniforms([key], [request.first + len(ids)])[0]
                token = min(int((log_p.exp().cumsum(0) < u).sum()), len(log_p) - 1)
            else:
                token = int(log_p.argmax())
            ids.append(token)
            logps.append(float(log_p[token]) + self.gap)
        return Completion(
            request=request,
            token_ids=np.array(ids, np.int32),
            logp=np.array(logps, np.float32),
            sampled_logp=None,
            finish_reason="stop" if ids[-1] in sampling.stop_token_ids else "length",
            policy_version=self.version,
        )
