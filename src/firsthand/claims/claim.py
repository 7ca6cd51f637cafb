"""Types of a claim: the sentence that is tested, what was measured, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json

SECTIONS = {
    "papers": "Seminal Papers",
    "architecture": "Architecture Internals",
    "patterns": "Agent Reasoning Patterns",
    "benchmarks": "Benchmarks Explained",
    "leaderboards": "Live Leaderboards & Trackers",
    "blogs": "Expert Blogs & Writing",
    "safety": "Safety, Alignment & Interpretability",
    "llmops": "LLMOps & Production Engineering",
}
"""Folder of claims -> the section of the reading list, in the list's order."""

Kind = Literal["arithmetic", "cassette", "sim", "small", "ours", "none"]
KINDS: dict[Kind, str] = {
    "arithmetic": "counted or computed, no model",
    "cassette": "recorded replies of a real model",
    "sim": "a simulated or scripted model of known skill",
    "small": "real weights that run on a laptop",
    "ours": "a model trained here, or our own kernels and engine",
    "none": "nothing was run",
}
"""Kind of model that a claim is measured on -> what that is."""

Word = Literal["holds here", "holds in part", "does not hold here", "cannot be tested here"]
POINTS: dict[Word, float | None] = {
    "holds here": 1.0,
    "holds in part": 0.5,
    "does not hold here": 0.0,
    "cannot be tested here": None,
}
"""Verdict -> its score in a run; None: no part of a mean."""


@dataclass(frozen=True)
class Measurement:
    """A number with its interval, and the table and curves it comes from."""

    value: float
    what: str = ""
    """The quantity in words, such as `peak bytes at 2,048 tokens over those at 1,024`."""
    low: float | None = None
    """Lower end of the 95% interval; None for a number that has none, such as a count."""
    high: float | None = None
    n: int = 1
    """Observations: tasks, seeds, repetitions."""
    unit: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | float, ...], ...] = ()
    """The table behind the number, in `columns`."""
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Name -> points (x, y) of a line in the plot."""
    axes: tuple[str, str] = ("", "")
    """Labels of the plot's x and y."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; the value itself on both sides where there is none."""
        low = self.value if self.low is None else self.low
        return low, self.value if self.high is None else self.high

    def cell(self, row: str, column: str) -> float:
        """A number of the table: the row whose first cell is `row`."""
        at = self.columns.index(column)
        return float(next(each[at] for each in self.rows if each[0] == row))

    @property
    def fault(self) -> str:
        """The reason why nothing can be judged from the number; empty if it can."""
        low, high = self.bounds
        if not all(map(math.isfinite, (self.value, low, high))):
            return "the measurement gave no finite number"
        return f"the measurement's interval begins at {low:g} and ends at {high:g}" if low > high else ""

    def to_json(self) -> Json:
        """The measurement as a JSON object; numbers that are not finite become None."""
        return {
            "value": _finite(self.value),
            "what": self.what,
            "low": _finite(self.low),
            "high": _finite(self.high),
            "n": self.n,
            "unit": self.unit,
            "columns": list(self.columns),
            "rows": [[_finite(each) if isinstance(each, float) else each for each in row] for row in self.rows],
            "curves": {name: [[_finite(x), _finite(y)] for x, y in line] for name, line in self.curves.items()},
            "axes": list(self.axes),
        }

    @staticmethod
    def from_json(body: Json) -> Measurement:
        """The measurement that `to_json` wrote."""
        return Measurement(
            math.nan if body["value"] is None else body["value"],
            body["what"],
            body["low"],
            body["high"],
            body["n"],
            body["unit"],
            tuple(body["columns"]),
            tuple(tuple(row) for row in body["rows"]),
            {name: tuple((x, y) for x, y in line) for name, line in body["curves"].items()},
            (body["axes"][0], body["axes"][1]),
        )

    def is_plain(self) -> bool:
        """True if each part is of its type, as not all that is read from a file is."""
        numbers = (
            self.value,
            self.low,
            self.high,
            *(each for line in self.curves.values() for point in line for each in point),
        )
        texts = (self.what, self.unit, *self.columns, *self.axes)
        cells = (cell for row in self.rows for cell in row)
        return (
            all(each is None or isinstance(each, int | float) for each in numbers)
            and all(isinstance(each, str) for each in texts)
            and all(each is None or isinstance(each, str | int | float) for each in cells)
            and isinstance(self.n, int)
        )


class Verdict(NamedTuple):
    """A judgement in words: one of four, and the sentence that says why."""

    word: Word
    why: str


@dataclass(frozen=True)
class Claim:
    """A checkable sentence of the reading list."""

    quote: str
    """The list's own words."""
    source: str
    """The paper or page it is about: arXiv id, DOI, or address."""
    kind: Kind
    cost_s: float = 0.0
    """CPU seconds of one measurement, measured on two cores."""
    needs: tuple[str, ...] = ()
    """Models, data and extras beyond the package: `model smollm2`, `extra interp`, `data swe/...`."""
    cannot: str = ""
    """The reason why it cannot be tested here; empty if it can."""

    def __post_init__(self) -> None:
        if not self.quote or not self.source:
            raise ConfigError("a claim has no quote or no source: give the list's words, and the paper or page")
        if bool(self.cannot) != (self.kind == "none"):
            raise ConfigError(f"kind is {self.kind!r} and cannot is {self.cannot!r}: a claim of kind none says why")


Judge = Callable[[Measurement], Verdict]
"""A pure function, so that a wrong measurement gives another verdict."""


def ruling(word: Word, why: str) -> Verdict:
    """A verdict; ConfigError for a word that is not one of the four."""
    if word not in POINTS:
        raise ConfigError(f"{word!r} is no verdict: give one of {', '.join(POINTS)}")
    return Verdict(word, why)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
