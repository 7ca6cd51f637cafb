"""Tests whether a candidate may replace a baseline: non-inferiority of the paired difference, by benchmark and score.

A check passes if the data exclude a drop larger than the one allowed, fails if they show one, and is inconclusive otherwise:
absence of evidence is not a pass. Either error has a probability of at most 1 - confidence; scores within 0 to 1 may have
losses that no task has shown yet (`bounded_mean.py`), so tests and bounds are wider than those of a comparison. A gate
passes if every check does, so the error of passing a bad candidate needs no correction for their number; one check makes it
fail, so the p-values of failing are Holm-corrected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from firsthand.message import Json
from firsthand.runs.flaky import Flaky
from firsthand.runs.retried_attempts import NOT_RETRIED, Retried
from firsthand.runs.scored_alike import OtherScorers
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.intervals import Bounds, finite
from firsthand.stats.multiple_comparisons import holm
from firsthand.stats.paired import Differences
from firsthand.stats.power_analysis import SMALLEST_EFFECT, margin_tasks_needed
from firsthand.system.plurals import count_of

Ruling = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Gaps:
    """Missing parts of a comparison; each is reported, and an error by default."""

    baseline_errors: int = 0
    """Attempts of the baseline without a score."""
    candidate_errors: int = 0
    missing: int = 0
    """Tasks of the baseline that the candidate did not attempt."""
    changed: int = 0
    """Tasks that are not the same in both runs."""
    above_one: int = 0
    """Attempts of the candidate with a score above 1, where all scores of the baseline are within 0 to 1."""
    baseline_unmade: int = 0
    """Attempts that the baseline's run was to make and has not made, for it was interrupted or goes on."""
    candidate_unmade: int = 0
    no_agent: bool = False
    """True if the candidate has no agent of that name: then nothing of it was compared."""

    def __str__(self) -> str:
        finish = "let it end if it goes on, or finish it with --resume"
        parts = (
            (self.baseline_errors, "attempt", "of the baseline without a score"),
            (self.candidate_errors, "attempt", "of the candidate without a score"),
            (self.baseline_unmade, "attempt", f"that the baseline's run has yet to make: {finish}"),
            (self.candidate_unmade, "attempt", f"that the candidate's run has yet to make: {finish}"),
            (self.missing, "task", "that the candidate did not attempt"),
            (self.changed, "task", "not the same in both runs"),
            (self.above_one, "attempt", "of the candidate with a score above 1, and none of the baseline's is"),
        )
        if self.no_agent:
            return "the candidate has no agent of this name: name the two to compare with --agent-a and --agent-b"
        return ", ".join(f"{count_of(count, noun)} {which}" for count, noun, which in parts if count)

    def __bool__(self) -> bool:
        return self != Gaps()


@dataclass(frozen=True)
class Check:
    """One agent, one benchmark, one score: candidate against baseline."""

    agent: str
    benchmark: str
    score: str
    max_drop: float
    differences: Differences | FigureDifference
    """Candidate - baseline."""
    confidence: float
    ruling: Ruling
    reason: str
    gaps: Gaps = Gaps()
    baseline: float = math.nan
    """Its mean score on the paired tasks, or their figure."""
    candidate: float = math.nan
    worse: tuple[str, ...] = ()
    """Tasks on which the candidate did worse, the largest difference first."""
    flaky: tuple[Flaky, ...] = ()
    evened: int = 0
    """Tasks with more attempts on one side, of which only as many count as the other has; see `Comparison.evened`."""
    other_scorers: tuple[OtherScorers, ...] = ()
    """The scores that the two runs do not have from the same scorer, or perhaps not."""
    retried: tuple[Retried, Retried] = (NOT_RETRIED, NOT_RETRIED)
    """The attempts of the baseline and of the candidate that were made again after an error."""
    reduce: str = "mean"
    """The reducer of the attempts at a task, on both sides."""

    @property
    def gain(self) -> Differences | FigureDifference:
        """The difference in favour of the candidate, its sign reversed where lower is better."""
        return self.differences.reversed if self.differences.lower_is_better else self.differences

    @property
    def drop(self) -> str:
        """The word for getting worse: a drop, or a rise of an error or a score of harm."""
        return "rise" if self.differences.lower_is_better else "drop"

    @property
    def bounds(self) -> Bounds:
        """One-sided confidence bounds at the gate's confidence; infinite where nothing is paired."""
        if self.differences.n == 0:
            return Bounds(-math.inf, math.inf)
        return self.differences.sure_bounds(2 * self.confidence - 1)

    def to_json(self) -> Json:
        """The check as a JSON object."""
        better, worse = self.differences.counts
        return {
            "agent": self.agent,
            "benchmark": self.benchmark,
            "score": self.score,
            "ruling": self.ruling,
            "reason": self.reason,
            "max_drop": self.max_drop,
            "confidence": self.confidence,
            "tasks": self.differences.n,
            "baseline": finite(self.baseline),
            "candidate": finite(self.candidate),
            "difference": finite(self.candidate - self.baseline),
            "low": finite(self.bounds.low),
            "high": finite(self.bounds.high),
            "better": better,
            "worse": worse,
            "worse_tasks": list(self.worse),
            "errors": {"baseline": self.gaps.baseline_errors, "candidate": self.gaps.candidate_errors},
            "unmade": {"baseline": self.gaps.baseline_unmade, "candidate": self.gaps.candidate_unmade},
            "missing": self.gaps.missing,
            "no_agent": self.gaps.no_agent,
            "changed": self.gaps.changed,
            "above_one": self.gaps.above_one,
            "retried": {"baseline": self.retried[0].to_json(), "candidate": self.retried[1].to_json()},
            "evened": self.evened,
            "reduce": self.reduce,
            "flaky": [{"task": each.task_id, "where": each.where, "values": list(each.values)} for each in self.flaky],
            **({"other_scorers": [each.to_json() for each in self.other_scorers]} if self.other_scorers else {}),
        }


def rule(checks: Sequence[Check], *, gaps_fail: bool = True, scorers_fail: bool = True) -> list[Check]:
    """The checks with their rulings. With `gaps_fail`, one that misses attempts or tasks fails whatever its scores; with
    `scorers_fail`, one whose scores are surely of another scorer in each run."""
    # a check without a pair tests nothing, so it makes the others no less sure
    tested = [index for index, each in enumerate(checks) if each.differences.n]
    corrected = holm([checks[index].gain.reversed.surely_above(checks[index].max_drop) for index in tested])
    failing = dict(zip(tested, corrected, strict=True))
    ruled = [_ruled(each, failing.get(index, 1.0), gaps_fail) for index, each in enumerate(checks)]
    return [_with_other_scorers(each) for each in ruled] if scorers_fail else ruled


def verdict(checks: Sequence[Check], inconclusive: Literal["report", "pass", "fail"] = "report") -> Ruling:
    """The ruling of the gate: the worst of its checks. `inconclusive` is what an inconclusive check counts as."""
    rulings = {each.ruling for each in checks}
    if "fail" in rulings or (inconclusive == "fail" and "inconclusive" in rulings):
        return "fail"
    return "inconclusive" if "inconclusive" in rulings and inconclusive == "report" else "pass"


def _ruled(check: Check, p_fail: float, gaps_fail: bool) -> Check:
    alpha, allowed, found = 1 - check.confidence, f"{check.max_drop:.2%}", check.gain
    if check.gaps and gaps_fail:
        return replace(check, ruling="fail", reason=f"errors: {check.gaps}")
    if check.gaps.no_agent:
        return replace(check, ruling="pass", reason="left out: the candidate has no agent of this name")
    if found.n == 0:
        return replace(check, ruling="inconclusive", reason="no task has a score on both sides")
    if found.surely_above(-check.max_drop) < alpha:
        return replace(check, ruling="pass", reason=f"a {check.drop} of more than {allowed} is excluded")
    if p_fail < alpha:
        verb = {"drop": "the score dropped", "rise": "the score rose"}[check.drop]
        return replace(check, ruling="fail", reason=f"{verb} by more than {allowed}")
    return replace(check, ruling="inconclusive", reason=_unsure(check, allowed))


def _with_other_scorers(check: Check) -> Check:
    """The check, failed where its scores are surely of another scorer in each run."""
    known = [each.why for each in check.other_scorers if each.is_sure]
    if not known:
        return check
    before = f"{check.reason}; " if check.reason.startswith("errors:") else "errors: "
    return replace(
        check,
        ruling="fail",
        reason=f"{before}scores of a different scorer in each run ({'; '.join(known)}): give both runs scores of one, with "
        "`firsthand score --as NAME`, or say --scorers any",
    )


def _unsure(check: Check, allowed: str) -> str:
    worst = -check.bounds.low if check.drop == "drop" else check.bounds.high
    seen = (
        f"a {check.drop} of {worst:.2%} is still possible" if math.isfinite(worst) else "nothing is known of the spread"
    )
    if check.max_drop < SMALLEST_EFFECT:
        return f"{seen}, and no number of tasks excludes every {check.drop}: allow a small one"
    found = check.differences
    # the share of flips is shrunk towards one flip more, for none seen does not mean that there are none
    variance = (sum(found.counts) + 1) / (found.n + 2) if found.method == "Tango" else found.error**2 * found.n
    if not variance:
        return f"{seen}, {allowed} is allowed"
    needed = max(found.n + 1, margin_tasks_needed(check.max_drop, variance, confidence=check.confidence))
    return (
        f"{seen}, {allowed} is allowed; underpowered: {needed:,} tasks decide with 80% power, if both are equally good"
    )
