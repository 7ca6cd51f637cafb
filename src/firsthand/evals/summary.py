"""A run's scores with their intervals, from its totals: the same figures as a leaderboard's, without reading a trace."""

from __future__ import annotations

import math
from dataclasses import dataclass

from firsthand.evals.intervals import CONFIDENCE, Interval, Moments, finite, interval_of
from firsthand.evals.power import Spread, smallest_detectable
from firsthand.message import Json
from firsthand.runs.store import Run
from firsthand.runs.totals import Totals, totals


@dataclass(frozen=True)
class Line:
    """One agent on one benchmark."""

    benchmark: str
    agent: str
    score: Interval
    spread: Spread
    """The variance of single attempts, between tasks and within them."""
    attempts: int
    errors: int
    """Attempts without a score, for they or their scoring failed; each counts as 0."""
    tokens: float
    """Tokens per attempt."""
    seconds: float
    """Seconds per attempt."""
    cost_usd: float
    """Money of all attempts."""

    @property
    def detectable(self) -> float:
        """The smallest difference to another agent of that spread, on tasks of its own, that would have been seen.

        A comparison on the same tasks sees less or more, as they agree; see `paired_difference` and `firsthand power`.
        """
        return smallest_detectable(1, sd=math.sqrt(2) * self.score.error) if self.score.error > 0 else math.nan

    def to_json(self) -> Json:
        """The line as a JSON object."""
        return {
            "benchmark": self.benchmark,
            "agent": self.agent,
            "score": self.score.to_json(),
            "spread": self.spread.to_json(),
            "attempts": self.attempts,
            "errors": self.errors,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cost_usd": self.cost_usd,
            "detectable": finite(self.detectable),
        }


def summary(run: Run, confidence: float = CONFIDENCE) -> list[Line]:
    """A line for each agent on each benchmark, with the interval of its first score."""
    return [_line(each, confidence) for each in totals(run)]


def _line(each: Totals, confidence: float) -> Line:
    mean = each.sum_means / each.tasks
    variance = max(0.0, each.sum_square_means - each.tasks * mean * mean) / max(each.tasks - 1, 1)
    moments = Moments(each.tasks, mean, variance, each.lowest, each.highest, each.fractions == 0, each.clusters)
    return Line(
        each.benchmark,
        each.agent,
        interval_of(moments, confidence),
        _spread(each, variance),
        each.attempts,
        each.attempts - each.scored,
        each.tokens / each.attempts,
        each.seconds / each.attempts,
        each.cost_usd,
    )


def _spread(each: Totals, variance: float) -> Spread:
    freedom = each.attempts - each.tasks
    if each.tasks < 2 or freedom == 0:
        return Spread(math.nan, math.nan, each.tasks, each.attempts)
    within = max(0.0, each.squares_within) / freedom
    return Spread(max(0.0, variance - within * each.inverse_epochs / each.tasks), within, each.tasks, each.attempts)
