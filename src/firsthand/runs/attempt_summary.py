"""AttemptSummary: the numbers of one attempt that tables and statistics need, without its messages.

A run keeps them beside each trace, so that a board of ten thousand attempts decodes no trace. Leaves out anything that needs
words: a benchmark's own figures, reports and diffs read the traces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from firsthand.loop.critical_path import critical_seconds
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.unreported_usage import ALL_REPORTED, Unreported, unreported_in
from firsthand.trace import NOTE, Score, Trace

KEPT_DETAIL = (
    "corpus", "confidence",
    "judge", "protocol", "by", "calls", "tokens", "cost_usd", "orders", "first", "forged",
    "is_harm",
)  # fmt: skip
"""The keys of `Score.detail` that tables read: shares of figures, what a judge cost, and a score of harm."""


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)


@dataclass(frozen=True)
class AttemptSummary:
    """The numbers of one attempt."""

    id: str
    place: str
    benchmark: str
    task_id: str
    agent_name: str
    epoch: int
    stop_reason: str
    error: str | None
    """The error in one line; of a protected task its kind alone."""
    num_calls: int
    usage: Usage
    duration_s: float
    critical_s: float
    """Seconds on the critical path, see `loop.critical_path`."""
    scores: tuple[Score, ...] = field(default=())
    """Those of the whole attempt, with the keys of their details that are in KEPT_DETAIL."""
    unreported: Unreported = ALL_REPORTED
    """The calls whose tokens or cost no endpoint reported; none are known of runs that 0.28.0 or older made."""

    @staticmethod
    def of(trace: Trace) -> AttemptSummary:
        """The summary of a trace."""
        is_protected = trace.protected is not None
        return AttemptSummary(
            id=trace.id,
            place=trace.place,
            benchmark=trace.benchmark,
            task_id=trace.task_id,
            agent_name=trace.agent_name,
            epoch=trace.epoch,
            stop_reason=trace.stop_reason,
            error=error_line(trace),
            num_calls=len(trace.calls),
            usage=trace.usage,
            duration_s=float(trace.duration_s),
            critical_s=critical_seconds(trace),
            scores=tuple(without_words(score, is_protected) for score in trace.attempt_scores),
            unreported=unreported_in(trace),
        )

    @property
    def attempt_scores(self) -> tuple[Score, ...]:
        """The scores of the whole attempt, as `Trace.attempt_scores`."""
        return self.scores

    def score(self, name: str) -> Score | None:
        """The score of that name, if there is one."""
        return next((score for score in self.scores if score.name == name), None)

    def value(self, name: str | None = None) -> float | None:
        """The value of the score of that name, or of the first; None if the attempt, or the scoring of it, failed."""
        found = self.score(name) if name is not None else next(iter(self.scores), None)
        if self.error is not None or found is None or found.failed or not float("-inf") < found.value < float("inf"):
            return None
        return float(found.value)

    def is_unjudged(self, name: str | None = None) -> bool:
        """True if the judge gave no verdict for the score of that name, or for its first: no mean counts the attempt.

        Of a score that people give (`NOTE`), True if nobody rated the attempt.
        """
        found = self.score(name) if name is not None else next(iter(self.scores), None)
        if found is None:
            return name is not None and name.startswith(NOTE)
        return self.error is None and found.unjudged

    def is_harm(self, name: str | None = None) -> bool:
        """True if the score of that name, or the first, is of harm: then an attempt without it counts nowhere."""
        found = self.score(name) if name is not None else next(iter(self.scores), None)
        return found is not None and found.is_harm

    def scored(self, scores: tuple[Score, ...]) -> AttemptSummary:
        """The same summary with these scores."""
        return replace(self, scores=scores)


def summaries_of(attempts: Iterable[Trace | AttemptSummary]) -> list[AttemptSummary]:
    """The summaries of attempts, whichever of the two they came as."""
    return [each if isinstance(each, AttemptSummary) else AttemptSummary.of(each) for each in attempts]


def error_line(trace: Trace) -> str | None:
    """The error of an attempt in one line, None without one; of a protected task its kind alone, for a message may quote."""
    if trace.error is None:
        return None
    return trace.error.kind if trace.protected is not None else f"{trace.error.kind}: {trace.error.message}"


def without_words(score: Score, protected: bool = False) -> Score:
    """The score with the part of its detail that statistics read; of a protected task without a scorer's message."""
    if not score.detail and not (protected and score.failure):
        return score
    detail = {key: score.detail[key] for key in KEPT_DETAIL if key in score.detail}
    failure = score.failure.partition(":")[0] if protected and score.failure else score.failure
    return Score(score.name, score.value, detail, score.node, failure=failure, unjudged=score.unjudged)


def pack_numbers(summary: AttemptSummary) -> str:
    """The numbers that have no column of their own, as the text that a run's file keeps."""
    usage = summary.usage
    tokens = [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens]
    numbers = [tokens, summary.critical_s, [_packed(score) for score in summary.scores]]
    return _ENCODER.encode([*numbers, summary.unreported] if any(summary.unreported) else numbers)


def unpack_numbers(text: str) -> tuple[tuple[int, int, int], float, tuple[Score, ...], Unreported]:
    """Prompt, cached and completion tokens, the critical seconds, the scores and what was not reported, as `pack_numbers`
    wrote them.

    KeyError, TypeError or ValueError if the text is anything else.
    """
    (prompt, cached, completion), critical_s, scores, *rest = json.loads(text)
    if len(rest) > 1:
        raise ValueError("more numbers than there are")
    unreported = Unreported(*map(int, *rest)) if rest else ALL_REPORTED
    usage = (int(prompt), int(cached), int(completion))
    return usage, float(critical_s), tuple(_unpacked(each) for each in scores), unreported


def failures_of(attempts: Iterable[AttemptSummary], names: Iterable[str]) -> dict[str, str]:
    """The reason of the first failure, in at most 200 characters, for each score that failed wherever it was made."""
    made = tuple(attempts)
    found = {name: [score for each in made if (score := each.score(name)) is not None] for name in names}
    reasons = {
        name: str(scores[0].failure) for name, scores in found.items() if scores and all(map(_is_lacking, scores))
    }
    return {name: "".join(char if char.isprintable() else " " for char in why[:200]) for name, why in reasons.items()}


def _is_lacking(score: Score) -> bool:
    return score.failed and not score.unjudged


def pack_score(score: Score) -> str:
    """A score as text, without the words of its detail."""
    return _ENCODER.encode(_packed(score))


def unpack_score(text: str) -> Score:
    """The score that `pack_score` wrote; KeyError, TypeError or ValueError if the text is anything else."""
    return _unpacked(json.loads(text))


def _packed(score: Score) -> Json:
    return {key: value for key, value in vars(score).items() if value or key in ("name", "value")}


def _unpacked(body: Any) -> Score:
    return Score(**body)
