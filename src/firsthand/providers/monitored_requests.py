"""Taps of a local model's requests: a steering vector is added, and an activation monitor scores each token."""

# T tokens

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.sequence import Request
from firsthand.model import Completion

if TYPE_CHECKING:
    from firsthand.nn.activation_monitor import ActivationMonitor
    from firsthand.nn.steering_vector import SteeringVector


@dataclass
class MonitoredRequest:
    """The scores of one request by answer and position; they are complete when the answer is."""

    monitor: ActivationMonitor
    found: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def read(self, values_TD: Any, positions: range, index: int) -> None:
        """The tap."""
        self.found[index].update(zip(positions, self.monitor.scores(values_TD), strict=True))

    def scored(self, answer: Completion, request: Request, index: int) -> Completion:
        """The completion with a score for each sampled token: that of the activation it was sampled from.

        The first token of the second and later of several answers was sampled from the prompt that they share.
        """
        sampled = answer.message.sampled
        if sampled is None:
            return answer
        own, shared = self.found[index], self.found[0]
        last = len(request.prompt) - 1
        scores = tuple(own.get(at, shared.get(at, 0.0)) for at in range(last, last + len(sampled.token_ids)))
        return replace(answer, message=replace(answer.message, sampled=replace(sampled, monitor=scores)))


def model_taps(steering: SteeringVector | None, monitored: MonitoredRequest | None) -> RequestTaps | None:
    """The taps of a request; None without either. A monitor at the site of a steering vector reads what was steered."""
    if steering is None:
        return None if monitored is None else RequestTaps({monitored.monitor.site: monitored.read}, edits=False)
    vector = steering

    def steer(values_TD: Any, positions: range, index: int) -> Any:
        edited = vector.added(values_TD)
        if monitored is not None and monitored.monitor.site == vector.site:
            monitored.read(edited, positions, index)
        return edited

    reads = {} if monitored is None else {monitored.monitor.site: monitored.read}
    return RequestTaps({**reads, vector.site: steer})
