"""Computes the effective length (RULER): the last length whose score reaches a threshold, with its certainty.

A score of harm, where lower is better, reaches the threshold if it does not exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from firsthand.message import Json
from firsthand.stats.breakdown import Cell, Value
from firsthand.stats.intervals import Interval


@dataclass(frozen=True)
class Effective:
    """One agent on one benchmark: lengths, or values of another key that is ordered, against a threshold."""

    benchmark: str
    agent: str
    threshold: float
    last: Value | None
    """The last value whose score reaches the threshold; None if none does."""
    sure: Value | None
    """The last value whose whole interval reaches it."""
    failing: Value | None
    """The first value whose whole interval misses it."""
    gaps: tuple[Value, ...]
    """Values before the last one whose scores do not reach it."""
    is_end: bool
    """True if it is the last length measured, so that longer ones may reach the threshold too."""
    lower_is_better: bool = False
    """True for a score of harm: it reaches the threshold from above."""

    def sentence(self, key: str) -> str:
        """The finding in words."""
        name = f"{self.agent} on {self.benchmark}"
        goal = f"{self.threshold:g} or less" if self.lower_is_better else f"{self.threshold:g}"
        if self.last is None:
            text = f"{name}: no {key} reaches {goal}"
        else:
            text = f"{name}: the last {key} that reaches {goal} is {self.last}"
            text += ", where the measurement ends" if self.is_end else ""
            text += f" (but {', '.join(map(str, self.gaps))} does not)" if self.gaps else ""
        text += f"; surely reached up to {self.sure}" if self.sure is not None else "; surely reached at none"
        return text + (f", surely not at {self.failing}." if self.failing is not None else ", surely missed at none.")

    def to_json(self) -> Json:
        """The finding as a JSON object."""
        return {
            "benchmark": self.benchmark,
            "agent": self.agent,
            "threshold": self.threshold,
            "last": self.last,
            "sure": self.sure,
            "failing": self.failing,
            "gaps": list(self.gaps),
            "is_end": self.is_end,
            "lower_is_better": self.lower_is_better,
        }


def effective(found: Sequence[Cell], threshold: float) -> list[Effective]:
    """For each agent on each benchmark the last of its cells, which have one key and are in order, with the threshold."""
    made: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        made.setdefault((cell.benchmark, cell.agent), []).append(cell)
    return [_effective(*place, each, threshold) for place, each in made.items()]


def _effective(benchmark: str, agent: str, found: Sequence[Cell], threshold: float) -> Effective:
    lower = any(cell.lower_is_better for cell in found)
    least = -threshold if lower else threshold
    scores = [_negative(cell.score) if lower else cell.score for cell in found]
    reached = [index for index, score in enumerate(scores) if score.value >= least]
    sure = [cell.values[0] for cell, score in zip(found, scores, strict=True) if score.low >= least]
    failing = [cell.values[0] for cell, score in zip(found, scores, strict=True) if score.high < least]
    last = reached[-1] if reached else None
    gaps = [found[index].values[0] for index in range(last or 0) if index not in reached]
    return Effective(
        benchmark,
        agent,
        threshold,
        None if last is None else found[last].values[0],
        sure[-1] if sure else None,
        failing[0] if failing else None,
        tuple(gaps),
        last == len(found) - 1,
        lower,
    )


def _negative(score: Interval) -> Interval:
    return replace(score, value=-score.value, low=-score.high, high=-score.low)
