"""`step_loss`: one packed forward pass and its share of the loss of a step."""

# N tokens of a micro-batch, M of them count, S streams, D hidden, V vocabulary

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, DataError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.routed_lora import choose
from firsthand.train.agent_heads import choose_head
from firsthand.train.objective import Comparisons, Objective, PartLoss, Targets, token_logprobs
from firsthand.train.sharding import PassPart, anchor
from firsthand.train.streams import WEIGHTS, PackedStreams

Numbers = np.ndarray[Any, Any]


def step_loss(
    model: Decoder,
    batch: PackedStreams,
    objective: Objective,
    divisors: Mapping[str, float],
    *,
    values: nn.Module | None = None,
    dtype: torch.dtype = torch.float32,
    kind: PassPart = "whole",
) -> tuple[Tensor, dict[str, float]]:
    """This micro-batch's share of the loss of a step, without gradient if nothing counts, and its shares of the metrics.

    `divisors` are those of the whole step: `streams.counts`, and under `watch` the divisor of watched metrics. The
    `kind` of a sharded model's pass is told by `sharding.passes_of_rank`. DataError for an id outside the vocabulary.
    """
    device = model.embed.weight.device
    if batch.adapter:
        choose(model, batch.adapter)
        choose_head(values, batch.adapter)
    if batch.ids.max() >= model.architecture.vocab_size:
        raise DataError(
            f"token id {batch.ids.max()} came, and the model has {model.architecture.vocab_size} tokens: encode the data "
            "with the model's own tokenizer"
        )
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        hidden_ND = model(on(batch.ids, device), on(batch.positions, device), Packed(batch.lengths))
        loss = torch.zeros((), device=device) if kind == "whole" else anchor(model, hidden_ND)
        if kind == "idle":
            return loss, {}
        values_N = None if values is None else values(hidden_ND).float().reshape(-1)
        at_M = on(np.flatnonzero(sum(batch.arrays[name] for name in WEIGHTS)), device)
        logits_MV = model.logits(hidden_ND[at_M - 1])
    arrays = {name: on(array, device)[at_M] for name, array in batch.arrays.items()}
    targets = Targets(ids=on(batch.ids, device)[at_M], row=on(batch.row, device)[at_M], **arrays)
    logprobs_M = token_logprobs(logits_MV, targets.ids)
    sampled = objective.policy_logprobs
    policy_M = logprobs_M if sampled is None else sampled(logits_MV, targets)
    parts: dict[str, tuple[PartLoss, Tensor]] = {
        "ce": (_cross_entropy, logprobs_M),
        "pg": (objective.policy_loss, policy_M),
        "ref_kl": (objective.kl_loss, policy_M),
    }
    if values_N is not None:
        parts["value"] = (objective.value_loss, values_N[at_M - 1])
    elif objective.value:
        raise ConfigError("the objective has a weight for values: give `fit` the value head as `values`")
    sums = dict[str, Tensor]()
    for part, (function, given_M) in parts.items():
        weights_M = getattr(targets, part)
        chosen_M = weights_M > 0  # a function sees the tokens of its own part alone: others may overflow in it
        if getattr(objective, part) and chosen_M.any():
            losses_M = function(targets.of(chosen_M), given_M[chosen_M])
            sums[part] = (weights_M[chosen_M] * losses_M).sum() / divisors[part]
    if objective.soft and objective.soft_loss is not None and (targets.ce > 0).any():
        chosen_M = targets.ce > 0
        soft_M = objective.soft_loss(batch, at_M[chosen_M], logits_MV[chosen_M])
        sums["soft"] = (targets.ce[chosen_M] * soft_M).sum() / divisors["ce"]
    if objective.pair_loss is not None and (batch.pair >= 0).any():
        sums["pair"] = objective.pair_loss(_comparisons(batch, targets, logprobs_M, values_N)).sum() / divisors["pair"]
    for part, each in sums.items():
        loss = loss + getattr(objective, part) * each
    metrics = {"loss": loss.detach(), **sums}
    if "pg" in sums:
        chosen_M = targets.pg > 0
        of, policy_M = targets.of(chosen_M), policy_M[chosen_M].detach()
        metrics["sampler_gap"] = (policy_M - of.behaviour).abs().max()
        watched = {} if objective.watch is None else objective.watch(of, policy_M)
        metrics |= {name: (of.pg * each_M).sum() / divisors["watch"] for name, each_M in watched.items()}
    return loss, {name: float(number.detach()) for name, number in metrics.items()}


def logits_of(model: Decoder, batch: PackedStreams, at_M: Tensor) -> Tensor:
    """The scores of every token at these places of the packed streams, given the tokens before: M V, without gradient."""
    device = model.embed.weight.device
    with torch.no_grad():
        hidden_ND = model(on(batch.ids, device), on(batch.positions, device), Packed(batch.lengths))
        return model.logits(hidden_ND[at_M - 1])


def on(array: Numbers, device: torch.device) -> Tensor:
    """The array as a tensor on a device, whole numbers as int64."""
    tensor = torch.from_numpy(array).to(device)
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def _cross_entropy(targets: Targets, logprobs_M: Tensor) -> Tensor:
    return -logprobs_M


def _comparisons(batch: PackedStreams, targets: Targets, logprobs_M: Tensor, values_N: Tensor | None) -> Comparisons:
    """The streams of comparisons, with log-probs summed over the tokens that have a weight `ce`."""
    device = logprobs_M.device
    kept_S = on(np.flatnonzero(batch.pair >= 0), device)

    def summed(of_M: Tensor) -> Tensor:
        zeros_S = torch.zeros(len(batch.lengths), device=device)
        return zeros_S.index_add(0, targets.row, targets.ce * of_M)[kept_S]

    return Comparisons(
        pair=on(batch.pair, device)[kept_S],
        label=on(batch.label, device)[kept_S],
        logprob=summed(logprobs_M),
        reference=summed(targets.reference),
        length=summed(torch.ones_like(targets.ce)),
        value=None if values_N is None else values_N[on(batch.ends, device)[kept_S]],
    )
