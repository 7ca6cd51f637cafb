"""Sums up a run while it goes: the score so far with its interval, tokens/s, errors and cost, in one line."""

from __future__ import annotations

import time
from collections.abc import Callable

from firsthand.show.board_words import amount, money, span, value_text
from firsthand.stats.intervals import mean_interval
from firsthand.trace import Trace

EVERY_S = 0.2
"""The line is made anew at most this often: an interval reads all scores."""


class LiveTotals:
    """Totals of the attempts that ended since it was made. A failed one counts as 0, or of a score of harm not at all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began = clock()
        self._scores: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        """(benchmark, agent) -> task -> the scores of its attempts; None of one that failed."""
        self._harms: set[str] = set()
        """The benchmarks whose first score is one of harm."""
        self._tokens = 0
        self._errors = 0
        self._cost_usd = 0.0
        self._line = ""
        self._made_at = float("-inf")

    def add(self, trace: Trace) -> str:
        """Count an attempt; returns the line, about the agent of this attempt."""
        value = trace.value()
        if value is not None or trace.error is not None:
            of_agent = self._scores.setdefault((trace.benchmark, trace.agent_name), {})
            of_agent.setdefault(trace.task_id, []).append(value)
        if any(score.is_harm for score in trace.attempt_scores[:1]):
            self._harms.add(trace.benchmark)
        usage = trace.usage
        self._tokens += usage.completion_tokens
        self._errors += trace.error is not None
        self._cost_usd += usage.cost_usd
        now = self._clock()
        if now - self._made_at >= EVERY_S:
            self._made_at, self._line = now, self._made(trace, now)
        return self._line

    def _made(self, trace: Trace, now: float) -> str:
        parts = [trace.agent_name]
        if scores := self._scores.get((trace.benchmark, trace.agent_name)):
            lacking = [] if trace.benchmark in self._harms else [0.0]
            counted = {
                task: [each for one in its for each in ([one] if one is not None else lacking)]
                for task, its in scores.items()
            }
            found = mean_interval(counted)
            parts[0] += f" {value_text(found.value)} {span(found.low, found.high)}"
        if (seconds := now - self._began) > 0 and self._tokens:
            parts.append(f"{amount(self._tokens / seconds)} tokens/s")
        if self._errors:
            parts.append(f"{self._errors} error{'' if self._errors == 1 else 's'}")
        if self._cost_usd:
            parts.append(money(self._cost_usd))
        return ", ".join(parts)
