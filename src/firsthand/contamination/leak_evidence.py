"""The evidence of one test of contamination, and a verdict in words over several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from firsthand.message import Json
from firsthand.stats.multiple_comparisons import holm
from firsthand.system.plurals import count_of

ALPHA = 0.05
"""Chance that any test of a report calls a clean model leaked."""
MIN_PAIRS = 8
"""Items below which a test says nothing: a sign test of fewer cannot reach ALPHA after correction."""


@dataclass(frozen=True)
class Evidence:
    """The outcome of one test."""

    test: str
    asks: str
    """The question that the test puts to the model or the corpus."""
    statistic: float = math.nan
    """Its size in the test's own unit; larger is more like a leak."""
    p_value: float | None = None
    """One-sided, of a model that never saw the items; None if the test gives none."""
    n: int = 0
    """Items that it used."""
    detail: str = ""
    """The figures in words, or why the test was not run."""
    flagged: tuple[str, ...] = ()
    """Ids of items that it found by themselves."""
    limits: str = ""
    """The leaks that the test cannot see."""
    unread: tuple[str, ...] = ()
    """Files of a corpus that were not read, or not whole, each with the reason."""
    short: int = 0
    """Items that were too short to compare."""

    @property
    def ran(self) -> bool:
        """True if it came to a number."""
        return self.p_value is not None or bool(self.n)

    def to_json(self) -> Json:
        """The evidence as a JSON object."""
        return {
            **vars(self),
            "flagged": list(self.flagged),
            "unread": list(self.unread),
            "statistic": self.statistic if math.isfinite(self.statistic) else None,
        }


@dataclass(frozen=True)
class ContaminationReport:
    """All evidence about one benchmark, and what it comes to."""

    benchmark: str
    model: str
    evidence: tuple[Evidence, ...]
    corpus: str = ""
    corrected: dict[str, float] = field(default_factory=dict)
    """Test -> its p-value, corrected by Holm for the number of tests."""
    alpha: float = ALPHA

    @property
    def caught(self) -> tuple[str, ...]:
        """The tests that tell the model from one that never saw the items."""
        return tuple(name for name, p in self.corrected.items() if p <= self.alpha)

    @property
    def verdict(self) -> str:
        """leaked, overlap, cleared, no overlap (a corpus alone was searched, all of it for all items), or untested."""
        if self.caught:
            return "leaked"
        if any(each.flagged for each in self.evidence if each.p_value is None):
            return "overlap"
        if self.corrected:
            return "cleared"
        if self.unread or self.short or not any(each.ran for each in self.evidence):
            return "untested"
        return "no overlap"

    @property
    def unread(self) -> tuple[str, ...]:
        """The files of the corpus that were not read, or not whole."""
        return tuple(file for each in self.evidence for file in each.unread)

    @property
    def short(self) -> int:
        """Items that were too short to be looked for in the corpus."""
        return sum(each.short for each in self.evidence)

    @property
    def words(self) -> str:
        """The verdict in a sentence or two."""
        ran = len(self.corrected)
        if self.verdict == "leaked":
            named = ", ".join(f"{name} (p {_p(self.corrected[name])})" for name in self.caught)
            return (
                f"{self.model} behaves as if it had been trained on items of {self.benchmark}: {named}, after correction "
                f"for {count_of(ran, 'test')}. Its score on this benchmark is no evidence of what it can do."
            )
        if self.verdict == "overlap":
            searched = [each for each in self.evidence if each.p_value is None]
            found = max(searched, key=lambda each: len(each.flagged))
            return (
                f"{len(found.flagged)} of {found.n} items of {self.benchmark} stand in {self.corpus}. A model that "
                "was trained on it has seen them; whether it learned them is another question."
            )
        if self.verdict == "cleared":
            return (
                f"No test tells {self.model} from a model that never saw {self.benchmark} ({count_of(ran, 'test')}, "
                f"{self.alpha:.0%} chance of a false alarm for all together). A leak that was seen once in a large corpus, "
                "or in other words, would not be found."
            )
        if self.verdict == "no overlap":
            return (
                f"No item of {self.benchmark} stands in {self.corpus} in its own words. Translations, paraphrases and "
                "other texts that a model may have read are not covered."
            )
        if self.unread:
            more = f", and {len(self.unread) - 1} more" if len(self.unread) > 1 else ""
            return (
                f"Not all of {self.corpus} was read: {self.unread[0]}{more}. No item of {self.benchmark} stands in the "
                "rest; of what was not read nothing is known."
            )
        if self.short:
            compared = sum(each.n for each in self.evidence if each.short)
            rest = f" None of the other {compared:,} stands in {self.corpus} in its own words." if compared else ""
            return (
                f"{self.short:,} of {count_of(self.short + compared, 'item', ',')} of {self.benchmark} are too short to "
                f"look for in {self.corpus}, and nothing is known of them.{rest}"
            )
        return f"No test could be run on {self.benchmark}: see the reasons."

    def to_json(self) -> Json:
        """The report as a JSON object."""
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "corpus": self.corpus,
            "verdict": self.verdict,
            "words": self.words,
            "alpha": self.alpha,
            "corrected": dict(self.corrected),
            "evidence": [each.to_json() for each in self.evidence],
        }


def report(
    benchmark: str, model: str, evidence: Sequence[Evidence], *, corpus: str = "", alpha: float = ALPHA
) -> ContaminationReport:
    """The report of some evidence; p-values are corrected by Holm for the number of tests that gave one."""
    tested = [each for each in evidence if each.p_value is not None]
    corrected = holm([each.p_value or 0.0 for each in tested]) if tested else []
    by_name = {each.test: p for each, p in zip(tested, corrected, strict=True)}
    return ContaminationReport(benchmark, model, tuple(evidence), corpus, by_name, alpha)


def not_finite(test: str, asks: str, limits: str) -> Evidence:
    """The test, not run, of a model that gives log-probs which are no finite numbers."""
    told = "not run: the model gives log-probs that are no finite numbers: are its weights, or its endpoint, broken?"
    return Evidence(test, asks, detail=told, limits=limits)


def paired_p_value(differences: NDArray[np.float64]) -> float:
    """One-sided p-value of a mean above 0: Student's t, or the sign test where that gives a larger one.

    A few items with very large differences raise t; they do not move the sign test, so both must agree.
    """
    size = len(differences)
    spread = float(differences.std(ddof=1)) if size > 1 else math.nan
    positive, nonzero = (differences > 0).sum(), (differences != 0).sum()
    if not nonzero:
        return 1.0
    by_sign = float(ndtr(-(positive - nonzero / 2 - 0.5) / math.sqrt(nonzero / 4)))
    if not spread > 0:
        return min(1.0, by_sign)
    by_mean = float(stdtr(size - 1, -float(differences.mean()) / (spread / math.sqrt(size))))
    return min(1.0, max(by_mean, by_sign))


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
