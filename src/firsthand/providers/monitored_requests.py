"""Scores a request's tokens by an activation monitor while the engine computes them."""

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


@dataclass
class MonitoredRequest:
    """The scores of one request by answer and position; they are complete when the answer is."""

    monitor: ActivationMonitor
    found: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def tapped(self, request: Request) -> Request:
        """The request with a tap that reads."""
        return replace(request, taps=RequestTaps({self.monitor.site: self._read}, edits=False))

    def _read(self, values_TD: Any, positions: range, index: int) -> None:
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
