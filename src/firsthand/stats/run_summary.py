"""Summarises a run's scores with intervals from its totals: the numbers of a leaderboard, without reading a trace.

Traces are read only for a benchmark's own figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from firsthand.benchmark import Figures
from firsthand.errors import unknown
from firsthand.message import Json
from firsthand.runs.retried_attempts import NOT_RETRIED, Retried
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import Totals
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.figure_stats import figure_interval
from firsthand.stats.intervals import CONFIDENCE, Clusters, Interval, Moments, finite, interval_of, mean_interval
from firsthand.stats.power_analysis import Spread, smallest_detectable, spread
from firsthand.stats.stored_figures import first_score, stored_figures
from firsthand.stats.task_scores import harm_benchmarks, reducers_in_words, task_scores


@dataclass(frozen=True)
class SummaryRow:
    """One agent on one benchmark."""

    benchmark: str
    agent: str
    score: Interval
    spread: Spread
    """The variance of single attempts, between tasks and within them."""
    attempts: int
    errors: int
    """Attempts without a score, for they or their scoring failed. Each counts as 0; one without a verdict is left out."""
    tokens: float
    """Tokens per attempt."""
    seconds: float
    """Seconds per attempt."""
    cost_usd: float
    """Money of all attempts."""
    figures: Mapping[str, Interval] = field(default_factory=dict)
    """Figures that are not means of scores, by name."""
    reduce: str = "mean"
    """The reducer of a task's attempts, and of how many where that matters: `max of 8`."""
    retried: Retried = NOT_RETRIED
    """The attempts that were made again after an error."""
    left_out: int = 0
    """Tasks that failed and are no part of the score, where it is a figure such as a correlation, or a score of harm."""

    @property
    def detectable(self) -> float:
        """The minimum detectable effect against another agent with that spread on other tasks, with 80% power.

        A paired comparison detects more or less, as the agents agree; see `paired_difference` and `firsthand power`.
        """
        return smallest_detectable(1, sd=math.sqrt(2) * self.score.error) if self.score.error > 0 else math.nan

    def to_json(self) -> Json:
        """The line as a JSON object. `tokens`, `seconds` and `usd` are those of an attempt, `cost_usd` that of all."""
        return {
            "benchmark": self.benchmark,
            "agent": self.agent,
            "score": self.score.to_json(),
            "spread": self.spread.to_json(),
            "attempts": self.attempts,
            "errors": self.errors,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cost_usd": self.cost_usd,
            "usd": self.cost_usd / self.attempts if self.attempts else 0.0,
            "reduce": self.reduce,
            "retried": self.retried.to_json(),
            "detectable": finite(self.detectable),
            "figures": {name: interval.to_json() for name, interval in self.figures.items()},
        }


def summary(
    run: Run,
    confidence: float = CONFIDENCE,
    own: Mapping[str, Figures] | None = None,
    *,
    score: str | None = None,
    strata: str | None = None,
    reduce: str | None = None,
) -> list[SummaryRow]:
    """A line for each agent on each benchmark, with the interval of its first score, and its figures.

    `own` are the figures that benchmarks have of their own, see `own_figures`. `score` names one that was given later
    (`firsthand score`), which stands in place of the first, without figures; ConfigError if there is none of that name.
    `strata` is the key that tells the tasks' strata (`Run.clusters`), `reduce` the reducer of epochs (`Run.reducer`); where
    there are strata, a reducer or a score of harm, each task's scores are read and not only their totals.
    """
    if score is not None and score not in run.score_names():
        raise unknown("score given later", score, run.score_names(), see="firsthand show")
    clusters = run.clusters(strata)
    retried = run.retried()
    lines = [
        replace(_line(each, confidence), retried=retried.get((each.benchmark, each.agent), NOT_RETRIED))
        for each in run.totals(score)
    ]
    lines = _by_task(lines, run, clusters, confidence, score, reduce)
    if score is not None:
        return lines
    agents: dict[str, list[str]] = {}
    for line in lines:
        agents.setdefault(line.benchmark, []).append(line.agent)
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    for benchmark, names in agents.items():
        sides = {name: (run, name) for name in names}
        for name, by_agent in stored_figures(sides, benchmark, own or {}).items():
            for agent, figure in by_agent.items():
                interval = figure_interval(figure, clusters.get(benchmark), confidence)
                found.setdefault((benchmark, agent), {})[name] = interval
    return [_with_figures(line, run, found.get((line.benchmark, line.agent), {})) for line in lines]


def _with_figures(line: SummaryRow, run: Run, found: dict[str, Interval]) -> SummaryRow:
    """The line with its figures, one of which may stand in place of its mean."""
    score = found.pop(first_score(line.benchmark, run), line.score) if found else line.score
    line = line if score is line.score else replace(line, reduce="mean")  # a figure is of all attempts
    left_out = max(0, min(line.score.n - score.n, line.errors))  # a figure may be of a part of the tasks by its nature
    return replace(line, score=score, figures=found, left_out=max(left_out, line.left_out))


def _by_task(
    lines: list[SummaryRow],
    run: Run,
    clusters: Mapping[str, Clusters],
    confidence: float,
    score: str | None,
    reduce: str | None,
) -> list[SummaryRow]:
    """The lines, with intervals from the tasks' scores where totals are not enough: for strata, reducers, scores of harm."""
    fixed = {name for name, each in clusters.items() if isinstance(each, TaskGroups)}
    harms = harm_benchmarks(run, score)
    reducers = reducers_in_words(run, reduce)
    wanted = fixed | reducers.keys() | harms
    if not wanted:
        return lines
    scores = task_scores(run, wanted, score=score, reduce=reduce)
    attempts = task_scores(run, harms, score=score, reduce="mean") if harms else {}
    found = []
    for line in lines:
        values = scores.get((line.benchmark, line.agent), {})
        if values or line.benchmark in harms:
            made = mean_interval(values, confidence, clusters=clusters.get(line.benchmark))
            left_out = line.score.n - made.n if line.benchmark in harms else 0
            line = replace(line, score=made, left_out=left_out)
        if line.benchmark in reducers:
            line = replace(line, reduce=reducers[line.benchmark])
        if line.benchmark in harms:  # totals count a failed attempt as 0
            line = replace(line, spread=spread(attempts.get((line.benchmark, line.agent), {})))
        found.append(line)
    return found


def _line(each: Totals, confidence: float) -> SummaryRow:
    mean = math.nan if each.sum_means is None else each.sum_means / each.tasks
    variance = max(0.0, each.squares_between) / max(each.tasks - 1, 1)
    moments = Moments(each.tasks, mean, variance, each.lowest, each.highest, each.fractions == 0, each.clusters)
    moments = replace(moments, repeats=_repeats(each))
    return SummaryRow(
        each.benchmark,
        each.agent,
        interval_of(moments, confidence),
        _spread(each, variance),
        each.attempts,
        each.errors,
        each.tokens / each.attempts,
        each.seconds / each.attempts,
        each.cost_usd,
    )


def _repeats(each: Totals) -> int:
    """The attempts at each task if they are equally many and each is 0 or 1, else 1."""
    epochs, over = divmod(each.counted, max(1, each.tasks))
    equally = not over and abs(each.inverse_epochs * epochs - each.tasks) < 1e-9 * each.tasks
    return epochs if equally and each.others == 0 else 1


def _spread(each: Totals, variance: float) -> Spread:
    freedom = each.counted - each.tasks
    if each.tasks < 2 or freedom == 0:
        return Spread(math.nan, math.nan, each.tasks, each.counted)
    within = max(0.0, each.squares_within) / freedom
    return Spread(max(0.0, variance - within * each.inverse_epochs / each.tasks), within, each.tasks, each.counted)
