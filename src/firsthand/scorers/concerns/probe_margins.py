"""Reads the results of probes from a trace: log-probs by the probe's name, margins, and rates among some of the tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from firsthand.benchmark import Figure
from firsthand.errors import DataError
from firsthand.trace import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def probe_logprobs(trace: Trace, name: str) -> list[float]:
    """Return the log-probs of a probe's continuations, in order; DataError if the attempt did not score that probe."""
    for event in trace.events:
        if event.kind == "probe" and event.data.get("name") == name:
            return [float(value) for value in event.data["logprobs"]]
    raise DataError(
        f"the probe {name!r} was not scored: use the pattern direct, one that leads it, or probed_cot for faithfulness"
    )


def margin(trace: Trace, name: str, better: int = 0) -> float:
    """Return log p of continuation `better` less the highest log p of the others, in nats, after the probe `name`.

    Margins between two texts of which neither is possible are 0.
    """
    found = probe_logprobs(trace, name)
    rival = max(value for index, value in enumerate(found) if index != better)
    if found[better] == rival:  # minus infinity twice too
        return 0.0
    return found[better] - rival


def shares(logprobs: Sequence[float]) -> list[float]:
    """Return each continuation's share of the total probability of all of them; equal shares if none is possible."""
    top = max(logprobs)
    if top == -math.inf:
        return [1 / len(logprobs)] * len(logprobs)
    weights = [math.exp(each - top) for each in logprobs]
    return [weight / sum(weights) for weight in weights]


def rate_among(
    name: str, traces: Sequence[Trace], score: str, among: str = "", *, lower_is_better: bool = True
) -> Figure:
    """Return the figure: the mean of `score` over the attempts whose score `among` is 1; NaN where there are none.

    Without `among`, over those that have the score at all, where a mean of all attempts would count the others as 0. Tasks
    with several attempts count by their sums. A bootstrap draw without such an attempt repeats the overall rate.
    """
    import numpy as np

    counted = [
        (trace.task_id, value)
        for trace in traces
        if (value := trace.value(score)) is not None and (not among or trace.value(among) == 1.0)
    ]
    tasks = tuple(dict.fromkeys(task for task, _ in counted))
    top, below = np.zeros(len(tasks)), np.zeros(len(tasks))
    for task, value in counted:
        top[tasks.index(task)] += value
        below[tasks.index(task)] += 1
    overall = top.sum() / below.sum() if tasks else math.nan

    def of(counts: Array) -> Array:
        weight = counts @ below
        rates: Array = np.divide(counts @ top, weight, out=np.full(weight.shape, overall), where=weight > 0)
        return rates

    return Figure(name, tasks, of, lower_is_better=lower_is_better, method="percentile")
