"""The flags of `firsthand compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.config import confidence
from firsthand.errors import ConfigError
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.show.answer_diff import Only
from firsthand.stats.multiple_comparisons import Correction


@dataclass(frozen=True)
class Config:
    """Runs or agents to compare. Differences are B minus A: positive means that B is better."""

    runs: tuple[str, ...] = field(metadata={"positional": True})
    """A and B; or one run, or three and more, whose agents are all compared with each other."""
    agent_a: str | None = None
    """The agent of A; without it, each agent in both runs."""
    agent_b: str | None = None
    """The agent of B; without it, the one named as A's."""
    benchmark: str | None = None
    """Only this benchmark."""
    score: str | None = None
    """A score or figure by name; the benchmark's first score and all its figures by default."""
    errors: Literal["zero", "drop"] = "zero"
    """Attempts without a score count as 0 (zero; no verdict: left out) or are left out (drop); their number is printed."""
    confidence: str = "95%"
    """Confidence level of intervals and verdicts."""
    strata: str | None = None
    """Key of the tasks' metadata, or column of own data, whose groups are fixed, such as subject: tests are stratified."""
    reduce: str | None = None
    """Reducer of a task's epochs: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2; by default the run's own."""
    correct: Correction = "holm"
    """Correction of all-pairs comparisons: holm (family-wise), bh (false discovery rate), or none."""
    diff: bool = False
    """Show both answers side by side with a word diff."""
    only: Only = "changed"
    """With --diff or --html: samples whose score changed, got worse, got better, or all."""
    html: Path | None = None
    """Write the samples side by side into this HTML file."""
    flaky: bool = False
    """List tasks whose repeated attempts disagree, or that differ between two runs of one agent and seed."""
    limit: int = 10
    """At most this many changed tasks, samples and flaky tasks."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if len(self.runs) != 2 and (self.agent_a or self.agent_b or self.diff or self.html or self.flaky):
            raise ConfigError(
                f"runs is {' '.join(self.runs)}: agent-a, agent-b, diff, html and flaky are for two runs, A and B"
            )
        epoch_reducer(self.reduce or "")
        confidence(self.confidence)
