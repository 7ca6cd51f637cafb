"""Alerts on received traces: a bound on a metric of a window of time, or an outlier by a control chart of the windows
before.

`errors>0.1/1h` is a bound. `seconds~3/5m` is a control chart of individuals (Shewhart): the last whole window lies
more than 3 sigma from the mean of the windows before it, sigma being their mean moving range / 1.128; for a share,
such as errors, sigma is that of a p-chart, sqrt(p (1 - p) / n), where it is larger.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.ingest.retention import age_of
from firsthand.ingest.trace_store import TraceStore
from firsthand.message import Json

METRICS = ("traces", "errors", "seconds", "p95_seconds", "tokens", "cost", "spans")
BASELINE_WINDOWS = 30
LEAST_WINDOWS = 8
"""A chart with fewer windows before the last one says nothing."""
_D2 = 1.128
"""The mean range of two draws from a normal distribution, in sigmas."""
_RULE = re.compile(r"([A-Za-z0-9_.\-]{1,80})(>|<|~)([0-9.eE+\-]{1,20})/(\w{2,8})")
_SQL = {
    "traces": "count(*)",
    "errors": "avg(num_errors > 0)",
    "seconds": "avg(max(0, last_ns - first_ns) / 1e9)",
    "tokens": "avg(prompt_tokens + completion_tokens)",
    "cost": "total(cost_usd)",
    "spans": "total(num_spans)",
}


@dataclass(frozen=True)
class WindowValue:
    """A metric over one window; no value where there was no trace to measure."""

    value: float | None
    count: int


@dataclass(frozen=True)
class Alert:
    """A rule that holds now."""

    rule: str
    value: float
    said: str
    at_s: float
    """The end of the window."""

    def to_json(self) -> Json:
        """The alert as it is sent."""
        return {"rule": self.rule, "value": self.value, "message": self.said, "at": self.at_s}


@dataclass(frozen=True)
class AlertRule:
    """One rule."""

    text: str
    metric: str
    operator: Literal[">", "<", "~"]
    bound: float
    window_s: float

    @staticmethod
    def parse(text: str) -> AlertRule:
        """The rule of a text such as `errors>0.1/1h` or `score.helpful~3/1d`; ConfigError for anything else."""
        found = _RULE.fullmatch(text.strip().replace(" ", ""))
        if found is None:
            raise ConfigError(
                f"alert is {text[:80]!r}: write METRIC>VALUE/WINDOW or METRIC~SIGMAS/WINDOW, as in errors>0.1/1h"
            )
        metric, operator, bound, window = found.groups()
        if metric not in METRICS and not (metric.startswith("score.") and metric != "score."):
            raise ConfigError(f"alert asks for {metric!r}: the metrics are {', '.join(METRICS)} and score.NAME")
        try:
            number = float(bound)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (operator == "~" and number <= 0):
            raise ConfigError(f"alert is {text[:80]!r}: {bound!r} is no number that can be compared with")
        return AlertRule(text.strip(), metric, operator, number, age_of(window, "the window of an alert"))  # type: ignore[arg-type]

    def check(self, store: TraceStore, now_s: float) -> Alert | None:
        """The alert if the rule holds for the last whole window before now, else None."""
        end = math.floor(now_s / self.window_s) * self.window_s
        if self.operator != "~":
            end = now_s
        last = self.measure(store, end - self.window_s, end)
        if last.value is None:
            return None
        if self.operator == "~":
            windows = [
                self.measure(store, end - (back + 1) * self.window_s, end - back * self.window_s)
                for back in range(BASELINE_WINDOWS, 0, -1)
            ]
            return self._charted(last, windows, end)
        holds = last.value > self.bound if self.operator == ">" else last.value < self.bound
        if not holds:
            return None
        side = "above" if self.operator == ">" else "below"
        said = f"{self.metric} is {last.value:.4g}, {side} {self.bound:g}, over {last.count:,} traces"
        return Alert(self.text, last.value, said, end)

    def measure(self, store: TraceStore, start_s: float, end_s: float) -> WindowValue:
        """The metric over the traces that arrived in a window."""
        where, times = "arrived_s >= ? AND arrived_s < ?", (start_s, end_s)
        if self.metric.startswith("score."):
            sql = "SELECT avg(value), count(value) FROM scores WHERE name = ? AND at_s >= ? AND at_s < ?"
            value, count = store.database.read(sql, (self.metric.removeprefix("score."), *times))[0]
            return WindowValue(value, count)
        if self.metric == "p95_seconds":
            sql = f"SELECT max(0, last_ns - first_ns) / 1e9 FROM traces WHERE {where} ORDER BY 1"
            values = [row[0] for row in store.database.read(sql, times)]
            return WindowValue(values[math.ceil(0.95 * len(values)) - 1] if values else None, len(values))
        value, count = store.database.read(f"SELECT {_SQL[self.metric]}, count(*) FROM traces WHERE {where}", times)[0]
        is_sum = self.metric in ("traces", "cost", "spans")
        return WindowValue(None if value is None or (not count and not is_sum) else float(value), count)

    def _charted(self, last: WindowValue, windows: Sequence[WindowValue], end: float) -> Alert | None:
        known = [each for each in windows if each.value is not None]
        while known and not known[0].count and self.metric in ("traces", "cost", "spans"):
            known = known[1:]  # before the first trace there was nothing to measure
        values = [each.value for each in known if each.value is not None]
        if len(values) < LEAST_WINDOWS or last.value is None:
            return None
        centre, sigma = chart_of(values)
        if self.metric == "errors" and last.count:
            share = sum(each.value * each.count for each in known if each.value is not None) / max(
                1, sum(e.count for e in known)
            )
            centre, sigma = share, max(sigma, math.sqrt(share * (1 - share) / last.count))
        if abs(last.value - centre) <= self.bound * sigma or last.value == centre:
            return None
        side = "above" if last.value > centre else "below"
        said = (
            f"{self.metric} is {last.value:.4g}, {side} the limits {centre - self.bound * sigma:.4g} to"
            f" {centre + self.bound * sigma:.4g} of the {len(values)} windows before"
        )
        return Alert(self.text, last.value, said, end)


def chart_of(values: Sequence[float]) -> tuple[float, float]:
    """Centre and sigma of a control chart of individuals: the mean, and the mean moving range / 1.128."""
    ranges = [abs(after - before) for before, after in pairwise(values)]
    return statistics.fmean(values), statistics.fmean(ranges) / _D2 if ranges else 0.0
