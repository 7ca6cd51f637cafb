"""Traces -> a Board per benchmark: what each agent scored, what it cost, and whether it differs from the first one.

A board is a query over traces and holds no state. An attempt that ended in an error, or whose scorer failed, scores 0
and is counted under errors, so that an agent cannot gain by failing loudly; one that no judge could be had for is counted
there too and has no part in the mean, since that is not the agent's doing. Left out: ratings from preferences, boards over
several benchmarks.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from firsthand.benchmark import Figure, Figures
from firsthand.errors import unknown
from firsthand.message import Json
from firsthand.show.board_words import caveats, findings
from firsthand.stats.critical_path import critical_seconds
from firsthand.stats.figure_stats import figure_interval
from firsthand.stats.figures import figures as figures_of
from firsthand.stats.pareto import frontier
from firsthand.stats.score_statistics import (
    Clusters,
    Interval,
    PairedDifference,
    Scores,
    compare_to_baseline,
    mean_interval,
)
from firsthand.trace import Trace


@dataclass(frozen=True)
class Cost:
    """What one attempt cost on average; `seconds_median` is the middle one."""

    prompt_tokens: float
    cached_tokens: float
    """Of the prompt tokens, those that were not computed again."""
    completion_tokens: float
    seconds_mean: float
    seconds_median: float
    calls: float
    usd: float
    seconds_path: float = 0.0
    """Seconds on the longest chain of calls that had to wait for each other."""

    @property
    def tokens(self) -> float:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Row:
    """One agent on one benchmark."""

    agent: str
    score: Interval
    versus: PairedDifference | None
    """Against the baseline, corrected for the number of agents; None for the baseline itself."""
    cost: Cost
    attempts: int
    errors: int
    """Attempts that ended in an error, or whose scorer failed; each scores 0."""
    stopped: int
    """Attempts that a limit ended; they are scored as they stand."""
    secondary: Mapping[str, Interval] = field(default_factory=dict)
    """The other scores' means, and the figures, by name."""

    def to_json(self) -> Json:
        """The row as a JSON object."""
        return {
            "agent": self.agent,
            "score": self.score.to_json(),
            "versus": self.versus.to_json() if self.versus else None,
            "cost": asdict(self.cost),
            "attempts": self.attempts,
            "errors": self.errors,
            "stopped": self.stopped,
            "secondary": {name: interval.to_json() for name, interval in self.secondary.items()},
        }


@dataclass(frozen=True)
class Board:
    """A benchmark's agents, best score first."""

    benchmark: str
    metric: str
    """The name of the first score; empty if nothing was scored."""
    tasks: int
    epochs: int
    baseline: str
    rows: tuple[Row, ...]
    budget: float | None = None
    """Tokens that every agent was to spend on an attempt, where they were given equal budgets."""

    @property
    def frontier(self) -> tuple[str, ...]:
        """The agents that no other one beats at their cost in tokens, the cheapest first."""
        indices = frontier([(row.cost.tokens, row.score.value) for row in self.rows])
        return tuple(self.rows[index].agent for index in indices)

    def share(self, row: Row) -> float | None:
        """How much of the budget an agent has used; None without one."""
        return row.cost.tokens / self.budget if self.budget else None

    def row(self, agent: str) -> Row | None:
        """The row of that agent, if there is one."""
        return next((row for row in self.rows if row.agent == agent), None)

    def to_json(self) -> Json:
        """The board as a JSON object, with its conclusions in words."""
        return {
            "benchmark": self.benchmark,
            "metric": self.metric,
            "tasks": self.tasks,
            "epochs": self.epochs,
            "baseline": self.baseline,
            "budget": self.budget,
            "frontier": list(self.frontier),
            "rows": [row.to_json() | {"share": self.share(row)} for row in self.rows],
            "findings": findings(self),
            "caveats": caveats(self),
        }


def leaderboard(
    traces: Iterable[Trace],
    *,
    baseline: str | None = None,
    budget: float | None = None,
    clusters: Mapping[str, Clusters] | None = None,
    figures: Mapping[str, Figures] | None = None,
) -> list[Board]:
    """A Board per benchmark, in the order they came; agents are compared to `baseline`, or else to the first one.

    With an equal `budget` of tokens they are compared to the cheapest one. A benchmark that the baseline did not attempt is
    compared to its own first agent. A baseline that attempted nothing at all is an UnknownName. `clusters` are those of each
    benchmark's tasks, as `Run.clusters` gives them. `figures` are those of each benchmark that has some.
    """
    grouped: dict[str, dict[str, list[Trace]]] = {}
    for trace in traces:
        grouped.setdefault(trace.benchmark, {}).setdefault(trace.agent_name, []).append(trace)
    names = {agent for agents in grouped.values() for agent in agents}
    if baseline is not None and baseline not in names:
        raise unknown("agent", baseline, names, see="firsthand show RUN")
    return [
        _board(benchmark, agents, baseline, budget, (clusters or {}).get(benchmark), (figures or {}).get(benchmark))
        for benchmark, agents in grouped.items()
    ]


def _board(
    benchmark: str,
    agents: Mapping[str, list[Trace]],
    baseline: str | None,
    budget: float | None,
    clusters: Clusters | None,
    figures: Figures | None,
) -> Board:
    everything = [trace for traces in agents.values() for trace in traces]
    names = list(dict.fromkeys(score.name for trace in everything for score in trace.attempt_scores))
    metric = next((trace.attempt_scores[0].name for trace in everything if trace.attempt_scores), "")
    cheapest = min(agents, key=lambda agent: _cost(agents[agent]).tokens) if budget else next(iter(agents))
    first = baseline if baseline is not None and baseline in agents else cheapest
    found = figures_of(agents, figures)
    measured: dict[str, Mapping[str, Scores | Figure]] = {name: scores_of(agents, name) for name in names}
    measured |= found
    values = measured.pop(metric) if metric else scores_of(agents, "")
    others = {agent: each for agent, each in values.items() if agent != first}
    versus = compare_to_baseline(others, values[first], clusters=clusters) if metric else {}
    rows = [
        _row(
            agent,
            traces,
            values[agent],
            versus.get(agent),
            {name: each[agent] for name, each in measured.items() if agent in each},
            clusters,
        )
        for agent, traces in agents.items()
    ]
    return Board(
        benchmark=benchmark,
        metric=metric,
        tasks=len({trace.task_id for trace in everything}),
        epochs=len({trace.epoch for trace in everything}),
        baseline=first,
        rows=tuple(sorted(rows, key=lambda row: _rank(row, versus.values()))),
        budget=budget,
    )


def _rank(row: Row, versus: Iterable[PairedDifference]) -> float:
    sign = 1 if any(each.lower_is_better for each in versus) else -1
    return sign * row.score.value if row.score.n else 0.0


def scores_of(agents: Mapping[str, Sequence[Trace]], name: str) -> dict[str, Scores]:
    """Of each agent the scores of that name, task by task."""
    return {agent: _values(traces, name) for agent, traces in agents.items()}


def _interval(values: Scores | Figure, clusters: Clusters | None) -> Interval:
    return figure_interval(values, clusters) if isinstance(values, Figure) else mean_interval(values, clusters=clusters)


def _values(traces: Iterable[Trace], name: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for trace in traces:
        found = trace.score(name)
        if trace.error is None and found is not None and found.unjudged:
            continue
        values.setdefault(trace.task_id, []).append(trace.value(name) or 0.0)
    return values


def _row(
    agent: str,
    traces: Sequence[Trace],
    values: Scores | Figure,
    versus: PairedDifference | None,
    others: Mapping[str, Scores | Figure],
    clusters: Clusters | None,
) -> Row:
    return Row(
        agent=agent,
        score=_interval(values, clusters),
        versus=versus,
        cost=_cost(traces),
        attempts=len(traces),
        errors=sum(trace.error is not None or any(score.failed for score in trace.scores) for trace in traces),
        stopped=sum(trace.error is None and trace.stop_reason not in ("done", "error") for trace in traces),
        secondary={name: _interval(each, clusters) for name, each in others.items()} | _passes(values, clusters),
    )


def _passes(values: Scores | Figure, clusters: Clusters | None) -> dict[str, Interval]:
    """The chance that any, and that all, of k attempts at a task are right; k is how many each task has, from 2 on."""
    from firsthand.scorers.code import pass_at_k, pass_hat_k

    if isinstance(values, Figure) or not all(value in (0, 1) for each in values.values() for value in each):
        return {}
    k = min(map(len, values.values()), default=0)
    rates = {f"pass@{k}": pass_at_k, f"pass^{k}": pass_hat_k} if k > 1 else {}
    return {
        name: mean_interval({t: [rate(len(each), int(sum(each)), k)] for t, each in values.items()}, clusters=clusters)
        for name, rate in rates.items()
    }


def _cost(traces: Sequence[Trace]) -> Cost:
    usages = [trace.usage for trace in traces]
    durations = [trace.duration_s for trace in traces]
    return Cost(
        prompt_tokens=statistics.fmean(usage.prompt_tokens for usage in usages),
        cached_tokens=statistics.fmean(usage.cached_tokens for usage in usages),
        completion_tokens=statistics.fmean(usage.completion_tokens for usage in usages),
        seconds_mean=statistics.fmean(durations),
        seconds_median=statistics.median(durations),
        calls=statistics.fmean(len(trace.calls) for trace in traces),
        usd=statistics.fmean(usage.cost_usd for usage in usages),
        seconds_path=statistics.fmean(critical_seconds(trace) for trace in traces),
    )
