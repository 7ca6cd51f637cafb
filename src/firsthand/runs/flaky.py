"""Finds flaky tasks: repeated attempts score differently, or two runs of one agent under one seed do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from firsthand.runs.pairing import Attempted, Comparison


@dataclass(frozen=True)
class Flaky:
    """A task whose score differs between attempts of one agent."""

    benchmark: str
    task_id: str
    where: Literal["a", "b", "between"]
    """Among the attempts of one side, or between the two runs."""
    values: tuple[float, ...]
    """The scores that disagree; between runs, those of `a` and then those of `b`."""

    @property
    def disagreement(self) -> float:
        """The probability that two of these attempts, drawn at random, score differently."""
        pairs = len(self.values) * (len(self.values) - 1)
        same = sum(self.values.count(value) - 1 for value in self.values)
        return 1 - same / pairs


def flaky(comparison: Comparison) -> list[Flaky]:
    """The flaky tasks of both sides, those that disagree most first."""
    found = []
    for pair in comparison.pairs:
        for where, side in (("a", pair.a), ("b", pair.b)):
            if len(set(side.values)) > 1:
                found.append(Flaky(pair.benchmark, pair.task_id, "a" if where == "a" else "b", side.values))
        if comparison.repeated and _flips(pair.a, pair.b):
            found.append(Flaky(pair.benchmark, pair.task_id, "between", pair.a.values + pair.b.values))
    return sorted(found, key=lambda each: (-each.disagreement, each.benchmark, each.task_id, each.where))


def _flips(a: Attempted, b: Attempted) -> bool:
    """True if an attempt that both runs made scored differently."""
    other = dict(zip(b.epochs, b.values, strict=True))
    return any(other.get(epoch, value) != value for epoch, value in zip(a.epochs, a.values, strict=True))
