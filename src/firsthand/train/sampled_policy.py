"""Log-probs of the trainer under the distribution that was sampled: after temperature, top-k, top-p and min-p.

With them the ratio of the first update is 1 under any of these settings, and sampler and trainer can be compared.
"""

# M tokens that count, V vocabulary

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.train.objective import Targets


def sampled_policy(sampling: Sampling) -> Callable[[Tensor, Targets], Tensor] | None:
    """Returns (logits M V, targets) -> log-probs M after the cuts of `sampling`, differentiable; None if there are none.

    The order is the sampler's: temperature, top-k, top-p, min-p. What is kept counts as constant, and the sampled token is
    always kept: after an update it may have left the cut. ConfigError for settings whose distribution depends on more than
    a row of logits (penalties, biases, grammars, token lists) and for temperature 0.
    """
    sampling_extra = [
        name
        for name, is_used in (
            ("repetition_penalty", sampling.repetition_penalty != 1),
            ("presence_penalty", sampling.presence_penalty != 0),
            ("frequency_penalty", sampling.frequency_penalty != 0),
            ("logit_bias", bool(sampling.logit_bias)),
            ("grammar", sampling.grammar is not None),
            ("allowed_token_ids", sampling.allowed_token_ids is not None),
            ("bad_words", bool(sampling.bad_words)),
            ("min_tokens", sampling.min_tokens > 0),
        )
        if is_used
    ]
    if sampling_extra:
        raise ConfigError(
            f"rollouts are sampled with {', '.join(sampling_extra)}, which the trainer cannot compute from logits alone: "
            "leave it out, or train the model's own distribution (correct_to_model) by importance weights"
        )
    if sampling.temperature == 0:
        raise ConfigError(
            "rollouts at temperature 0 are all alike, so nothing can be learned: give a temperature above 0"
        )
    if sampling.temperature == 1 and not sampling.top_k and sampling.top_p == 1 and not sampling.min_p:
        return None

    temperature = max(sampling.temperature, torch.finfo(torch.float32).tiny)  # below it 0 / temperature is NaN

    def logprobs(logits_MV: Tensor, targets: Targets) -> Tensor:
        scaled_MV = (logits_MV - logits_MV.detach().amax(-1, keepdim=True)) / temperature
        with torch.no_grad():
            kept_MV = kept_tokens(scaled_MV, top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p)
            kept_MV.scatter_(1, targets.ids[:, None], True)
        return scaled_MV.masked_fill(~kept_MV, -torch.inf).log_softmax(-1).gather(1, targets.ids[:, None]).squeeze(1)

    return logprobs


def kept_tokens(scaled_MV: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """True for the tokens that remain after top-k, then top-p of what is left, then min-p of the most probable: M V."""
    if not top_k and top_p == 1:
        return scaled_MV.double().softmax(-1) >= min_p * scaled_MV.double().softmax(-1).amax(-1, keepdim=True)
    values_MC, ids_MC = scaled_MV.double().sort(dim=-1, descending=True, stable=True)
    if top_k:
        values_MC, ids_MC = values_MC[:, :top_k], ids_MC[:, :top_k]
    probs_MC = values_MC.softmax(-1)
    kept_MC = probs_MC.cumsum(-1) - probs_MC < top_p if top_p < 1 else torch.ones_like(ids_MC, dtype=torch.bool)
    kept_MC &= probs_MC >= min_p * probs_MC[:, :1]
    kept_MC[:, 0] = True
    return torch.zeros_like(scaled_MV, dtype=torch.bool).scatter_(1, ids_MC, kept_MC)
