"""Computes what an agent's attempts cost on average: tokens, calls, seconds and money."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.runs.attempt_summary import AttemptSummary


@dataclass(frozen=True)
class Cost:
    """The average cost of one attempt, in tokens, calls, seconds and US dollars; `seconds_median` is the median."""

    prompt_tokens: float
    cached_tokens: float
    """Prompt tokens found in the prefix cache."""
    completion_tokens: float
    seconds_mean: float
    seconds_median: float
    calls: float
    usd: float
    seconds_path: float = 0.0
    """Seconds on the critical path: the longest chain of calls that wait for each other."""

    @property
    def tokens(self) -> float:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def cost_of(attempts: Sequence[AttemptSummary]) -> Cost:
    """The average cost of some attempts; StatisticsError if there are none."""
    usages = [each.usage for each in attempts]
    durations = [each.duration_s for each in attempts]
    return Cost(
        prompt_tokens=statistics.fmean(usage.prompt_tokens for usage in usages),
        cached_tokens=statistics.fmean(usage.cached_tokens for usage in usages),
        completion_tokens=statistics.fmean(usage.completion_tokens for usage in usages),
        seconds_mean=statistics.fmean(durations),
        seconds_median=statistics.median(durations),
        calls=statistics.fmean(each.num_calls for each in attempts),
        usd=statistics.fmean(usage.cost_usd for usage in usages),
        seconds_path=statistics.fmean(each.critical_s for each in attempts),
    )
