"""`fit`: the one training loop. A step is a batch of token streams, a weighted sum of losses, and one optimizer update.

Every part of the loss (cross-entropy, policy gradient, divergence from a reference, values, comparisons) is summed over the
whole step and divided by its own count over that step, so results do not depend on micro-batches or packing. Algorithms are
functions that make the streams, and an `Objective`: nothing here knows one. Left out: data, checkpoint files, the store of
metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, distributed, nn

from firsthand.errors import TrainingError
from firsthand.nn.decoder import Decoder
from firsthand.train.kept_memory import kept_memory
from firsthand.train.objective import Objective
from firsthand.train.optimizers import expect_every_weight
from firsthand.train.processes import from_all, is_first, ranks
from firsthand.train.sharding import clip_sharded, forget_gathered, is_sharded, passes_of_rank
from firsthand.train.step_loss import step_loss
from firsthand.train.streams import Batches, micro_batches, packed, save_streams


class MetricSink(Protocol):
    """Takes metrics by step, as a Track does."""

    def log(self, metrics: Mapping[str, float], *, step: int) -> None: ...


class Saver(Protocol):
    """Checkpoints of a run."""

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> int:
        """Load the newest checkpoint into all three; returns the number of its step, 0 if there is none."""
        ...

    def after(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
        """Save a checkpoint if one is due after this step."""
        ...


@kept_memory()
def fit(
    model: Decoder,
    batches: Batches,
    *,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    steps: int,
    track: MetricSink | None = None,
    checkpoint: Saver | None = None,
    values: nn.Module | None = None,
    micro_tokens: int = 4096,
    clip_norm: float = 1.0,
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
) -> int:
    """Train until `steps` optimizer steps are done or `batches` ends; returns the number of the last step.

    `schedule(step)`, of the step from 1, scales the learning rates that the optimizer came with. `values` maps hidden states
    (N, D) to a value for each token (N): the value head of PPO, or the score of a reward model. `micro_tokens` bounds the
    tokens of one forward pass and changes no result; `clip_norm` bounds the norm of the gradient (0: no bound). A `dtype`
    other than float32 is autocast. `evaluate(step)` returns further metrics after a step. Ranks of torch.distributed share
    the micro-batches of each step. TrainingError if the loss or the gradient is not finite: the weights are those before the
    step, and its streams are saved in `folder`. TrainingError too if the optimizer lacks a weight that takes a gradient.
    """
    whole = model if values is None else nn.ModuleDict({"model": model, "value_head": values})
    expect_every_weight(whole, optimizer)
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    done = 0 if checkpoint is None else checkpoint.restore(whole, optimizer, batches)
    in_parts = ranks() > 1 and is_sharded(model)
    rates = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    whole.train()
    for step, streams in zip(range(done + 1, steps + 1), batches, strict=False):
        began = time.perf_counter()
        divisors = objective.divisors_of(streams)
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for micro, kind in passes_of_rank(micro_batches(streams, micro_tokens), in_parts=in_parts):
            loss, shares = step_loss(model, packed(micro), objective, divisors, values=values, dtype=dtype, kind=kind)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            _add(sums, shares)
        norm = _join(parameters, sums, clip_norm, in_parts=in_parts)
        if not (math.isfinite(sums.get("loss", 0.0)) and math.isfinite(norm)):
            saved = save_streams(streams, folder, step) if folder is not None and is_first() else None
            where = "" if saved is None else f", and its streams are in {saved}"
            raise TrainingError(
                f"step {step} has the loss {sums['loss']:g} and a gradient of norm {norm:g}: the weights are those of step "
                f"{step - 1}{where}; lower the learning rate, or look at what these streams hold"
            )
        scale = schedule(step)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        if any(weight.grad is not None for weight in parameters):  # a batch in which nothing counts changes nothing
            optimizer.step()
        done, tokens, seconds = step, sum(map(len, streams)), time.perf_counter() - began
        further = evaluate(step) if evaluate is not None and track is not None else {}
        if in_parts:
            forget_gathered(model)
        if track is not None and is_first():
            told = {"grad_norm": norm, "lr": rates[0] * scale, "tokens": tokens, "tokens_per_s": tokens / seconds}
            track.log({**sums, **told, **further}, step=step)
        if checkpoint is not None:
            checkpoint.after(step, whole, optimizer, batches)
    return done


def _join(parameters: Sequence[Tensor], sums: dict[str, float], clip_norm: float, *, in_parts: bool) -> float:
    """Adds up gradients and metrics over ranks, and clips the gradients; returns their norm before that.

    Sharded gradients (`in_parts`) were added up by the backward pass.
    """
    every_parameter = parameters
    if ranks() > 1:
        every = from_all([dict(sums)])
        sums.clear()
        for each in every:
            _add(sums, each)
        if in_parts:
            parameters = [weight for weight in parameters if not hasattr(weight, "full_tensor")]
        has_gradient = torch.tensor([weight.grad is not None for weight in parameters], dtype=torch.int32)
        distributed.all_reduce(has_gradient, distributed.ReduceOp.MAX)
        for weight, has in zip(parameters, has_gradient.tolist(), strict=True):
            if has:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                distributed.all_reduce(weight.grad)
    if in_parts:
        return clip_sharded(every_parameter, clip_norm)
    return float(nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf))


def _add(sums: dict[str, float], shares: Mapping[str, float]) -> None:
    """Adds one micro-batch's shares of the metrics; `sampler_gap` is a maximum."""
    for name, share in shares.items():
        sums[name] = max(share, sums.get(name, 0.0)) if name == "sampler_gap" else share + sums.get(name, 0.0)
