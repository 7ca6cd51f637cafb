"""Looks at the scores that an activation monitor gave each step of an agent, and notes or stops steps above a threshold.

    firsthand run office --model smollm2+monitor:probe.safetensors --guard monitor:threshold=2.5

The scores come with the sampled tokens of a model whose name ends in `+monitor:FILE`, and stay in the trace. A step without
scores is noted, and with `stop=true` it is blocked, for nobody looked at it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.message import Json
from firsthand.tool import Tool


@dataclass(frozen=True)
class MonitorGuard:
    """The guard."""

    name = "monitor"
    threshold: float
    stops: bool

    def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """Judges the step that makes a call."""
        return self._judged(view, f"the step that calls {tool.name}")

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        """Judges the step that gives the answer."""
        return self._judged(view, "the answer")

    def _judged(self, view: AttemptView, what: str) -> GuardVerdict:
        said = next((each for each in reversed(view.messages) if each.role == "assistant"), None)
        scores = None if said is None or said.sampled is None else said.sampled.monitor
        if not scores:
            reason = f"{what} has no scores: give a model that ends in +monitor:FILE"
            return GuardVerdict.blocked(self.name, reason) if self.stops else GuardVerdict.passed(self.name, reason)
        largest, mean = max(scores), sum(scores) / len(scores)
        detail: Json = {"largest": largest, "mean": mean, "tokens": len(scores), "threshold": self.threshold}
        if mean < self.threshold:
            return GuardVerdict.passed(self.name, f"{what} scores {mean:.2f}", detail)
        reason = f"{what} scores {mean:.2f}, at or above {self.threshold:g}"
        if self.stops:
            return GuardVerdict.blocked(self.name, reason, detail)
        return GuardVerdict.passed(self.name, f"alarm: {reason}", detail)


def monitor(*, threshold: float = 0.0, stop: bool = False) -> MonitorGuard:
    """A record of the scores of a `+monitor:FILE` model, step by step; with `stop` it blocks steps at
    or above the threshold, and steps without scores."""
    if not math.isfinite(threshold):
        raise ConfigError(f"monitor:threshold={threshold}: give a number, as `firsthand interp probe` prints it")
    return MonitorGuard(threshold, stop)
