"""Makes a Board for each benchmark: every agent's score, its cost, and its difference from the baseline.

A board is a query over the numbers of attempts and holds no state. An attempt that ended in an error, or whose scorer
failed, scores 0 and is counted under errors, so that an agent cannot gain by failing loudly. One whose judge was not
available is counted there too and left out of the mean, since that is not the agent's doing; one that nobody rated is no
part of the mean of people's scores. Leaves out ratings from preferences, and boards over several benchmarks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from firsthand.benchmark import Figure, Figures
from firsthand.errors import unknown
from firsthand.message import Json
from firsthand.runs.attempt_summary import AttemptSummary, failures_of, summaries_of
from firsthand.runs.epoch_reducer import reduced
from firsthand.runs.retried_attempts import NOT_RETRIED, Retried, retried_text
from firsthand.runs.run_folder import Run
from firsthand.runs.unreported_usage import ALL_REPORTED, Unreported, total_unreported
from firsthand.show.agent_cost import Cost, cost_of
from firsthand.show.board_words import error_notes, p_text, value_text
from firsthand.show.unreported_words import unreported_notes
from firsthand.stats.figure_stats import figure_interval
from firsthand.stats.figures import figures as figures_of
from firsthand.stats.metric_names import unstated_direction
from firsthand.stats.pareto import frontier
from firsthand.stats.score_statistics import (
    Clusters,
    Interval,
    PairedDifference,
    Scores,
    compare_to_baseline,
    finite,
    mean_interval,
)
from firsthand.system.plurals import count_of
from firsthand.trace import NOTE, Score, Trace

EVERY_K = 8
"""Up to so many attempts at a task pass@k is shown for every k."""


@dataclass(frozen=True)
class Row:
    """One agent on one benchmark."""

    agent: str
    score: Interval
    versus: PairedDifference | None
    """The difference from the baseline, corrected for the number of agents; None for the baseline itself."""
    cost: Cost
    attempts: int
    errors: int
    """Attempts that ended in an error, or whose scorer failed; each scores 0."""
    stopped: int
    """Attempts that a limit ended; they are scored as they are."""
    secondary: Mapping[str, Interval] = field(default_factory=dict)
    """The means of the other scores, and the figures, by name."""
    unscored: Mapping[str, str] = field(default_factory=dict)
    """The reason for each other score that failed at every attempt: it has no mean."""
    left_out: int = 0
    """Tasks that failed and are no part of the score, as of a correlation or of a score of harm."""
    unreported: Unreported = ALL_REPORTED
    """The calls whose tokens or cost no endpoint reported."""
    retried: Retried = NOT_RETRIED
    """The attempts that were made again after an error."""

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
            "retried": self.retried.to_json(),
            "secondary": {name: interval.to_json() for name, interval in self.secondary.items()},
        }


@dataclass(frozen=True)
class Board:
    """The agents of a benchmark, best score first."""

    benchmark: str
    metric: str
    """The name of the first score; empty if nothing was scored."""
    tasks: int
    epochs: int
    baseline: str
    rows: tuple[Row, ...]
    budget: float | None = None
    """Tokens for each attempt of every agent, where they had equal budgets."""
    protocol: str = ""
    """Prompt and scoring of the benchmark, and warnings about its data; empty if not recorded."""
    reduce: str = "mean"
    """The reducer of the attempts at a task (`runs.epoch_reducer`)."""
    lower_is_better: bool = False
    """True for a score of harm, or a figure such as an error: then the lowest score is the best."""
    other_names: Mapping[str, int] = field(default_factory=dict)
    """The attempts that have no score named `metric`, by the name of their first one: they count as 0."""
    unstated: str = ""
    """A sentence on a metric whose direction its name says and no score of it (`stats.metric_names`)."""

    @property
    def frontier(self) -> tuple[str, ...]:
        """The agents on the Pareto frontier of score against tokens, the cheapest first; none whose tokens are unknown."""
        sign = -1 if self.lower_is_better else 1
        known = [row for row in self.rows if row.cost.tokens or not row.unreported.silent]
        indices = frontier([(row.cost.tokens, sign * row.score.value) for row in known])
        return tuple(known[index].agent for index in indices)

    def share(self, row: Row) -> float | None:
        """The share of the budget that an agent used; None without a budget."""
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
            "protocol": self.protocol,
            "reduce": self.reduce,
            "lower_is_better": self.lower_is_better,
            "other_names": dict(self.other_names),
        }


def leaderboard(
    attempts: Iterable[Trace | AttemptSummary],
    *,
    baseline: str | None = None,
    budget: float | None = None,
    clusters: Mapping[str, Clusters] | None = None,
    figures: Mapping[str, Figures] | None = None,
    order: Iterable[str] = (),
    protocols: Mapping[str, str] | None = None,
    reducers: Mapping[str, str] | None = None,
    retried: Mapping[tuple[str, str], Retried] | None = None,
) -> list[Board]:
    """A Board for each benchmark, in the order they came; agents are compared to `baseline`, by default the first.

    With an equal `budget` of tokens they are compared to the cheapest one. On a benchmark that the baseline did not attempt,
    agents are compared to the first of theirs. A baseline that attempted nothing at all is an UnknownName.

    Args:
        attempts: Summaries (`Run.summaries`, which decodes no trace), or traces. The boards of both are the same.
        clusters: The clusters of each benchmark's tasks, as `Run.clusters` gives them.
        figures: The figures of each benchmark that has some of its own. They read traces, so they get what `attempts` had:
            give traces for such a benchmark.
        order: The agents as they were named; others follow as they came.
        protocols: The protocol of each benchmark, as `Run.protocols` gives it.
        reducers: The reducer of the epochs of each benchmark, as `reducers_of` gives it; the mean where there is none.
        retried: The attempts that were made again, as `Run.retried` gives them.
    """
    grouped: dict[str, dict[str, list[Trace | AttemptSummary]]] = {}
    for each in attempts:
        grouped.setdefault(each.benchmark, {}).setdefault(each.agent_name, []).append(each)
    for benchmark, made in grouped.items():
        grouped[benchmark] = {agent: made[agent] for agent in dict.fromkeys([*order, *made]) if agent in made}
    names = {agent for agents in grouped.values() for agent in agents}
    if baseline is not None and baseline not in names:
        raise unknown("agent", baseline, names, see="firsthand show RUN")
    return [
        replace(
            _board(
                benchmark,
                agents,
                baseline,
                budget,
                (clusters or {}).get(benchmark),
                (figures or {}).get(benchmark),
                (reducers or {}).get(benchmark, "mean"),
                {agent: each for (name, agent), each in (retried or {}).items() if name == benchmark},
            ),
            protocol=(protocols or {}).get(benchmark, ""),
        )
        for benchmark, agents in grouped.items()
    ]


def _epochs(attempts: Iterable[AttemptSummary]) -> int:
    """The most epochs of one task: an arena numbers its battles through all prompts."""
    found: dict[str, set[int]] = {}
    for each in attempts:
        found.setdefault(each.task_id, set()).add(each.epoch)
    return max(map(len, found.values()))


def reducers_of(run: Run, asked: str | None = None) -> dict[str, str]:
    """The reducer of the epochs of each benchmark of a run for `leaderboard`; `asked` is one for all."""
    return {benchmark: run.reducer(benchmark, asked) for benchmark in run.benchmarks()}


def attempts_of(run: Run, figures: Mapping[str, Figures] | None = None) -> list[Trace | AttemptSummary]:
    """The attempts of a run for `leaderboard`, in the order they were finished.

    They are summaries, but for the benchmarks that have `figures` of their own, which read traces.
    """
    return [run.trace(each.id) if each.benchmark in (figures or ()) else each for each in run.summaries()]


def _board(
    benchmark: str,
    attempts: Mapping[str, Sequence[Trace | AttemptSummary]],
    baseline: str | None,
    budget: float | None,
    clusters: Clusters | None,
    figures: Figures | None,
    reduce: str,
    retried: Mapping[str, Retried] | None = None,
) -> Board:
    agents = {agent: summaries_of(made) for agent, made in attempts.items()}
    everything = [each for made in agents.values() for each in made]
    names = list(dict.fromkeys(score.name for each in everything for score in each.scores))
    metric = _first_name(everything)
    cheapest = min(agents, key=lambda agent: cost_of(agents[agent]).tokens) if budget else next(iter(agents))
    first = baseline if baseline is not None and baseline in agents else cheapest
    found = figures_of(attempts if figures is not None else agents, figures)
    single = {name: scores_of(agents, name) for name in names}
    measured: dict[str, Mapping[str, Scores | Figure]] = {
        name: {agent: reduced(each, reduce) for agent, each in by_agent.items()} for name, by_agent in single.items()
    }
    measured |= found
    unscored: dict[str, Scores | Figure] = {agent: {} for agent in agents}  # nothing was scored: no figure, and not 0
    values = measured.pop(metric) if metric else unscored
    attempted = {} if metric in found else single.get(metric, {})
    others = {agent: each for agent, each in values.items() if agent != first}
    ranking = [each for each in values.values() if isinstance(each, Figure)]
    lower = any(each.lower_is_better for each in ranking) if ranking else _is_harm(agents, metric)
    versus = compare_to_baseline(others, values[first], clusters=clusters, lower_is_better=lower) if metric else {}
    rows = [
        _row(
            agent,
            made,
            values[agent],
            versus.get(agent),
            {
                name: each[agent]
                for name, each in measured.items()
                if agent in each and not _is_unrated(name, each[agent])
            },
            _passes(attempted.get(agent, {}), clusters),
            clusters,
        )
        for agent, made in agents.items()
    ]
    return Board(
        benchmark=benchmark,
        metric=metric,
        tasks=len({each.task_id for each in everything}),
        epochs=_epochs(everything),
        baseline=first,
        rows=tuple(
            replace(row, retried=(retried or {}).get(row.agent, NOT_RETRIED))
            for row in sorted(rows, key=lambda row: _rank(row, lower))
        ),
        budget=budget,
        reduce=reduce,
        lower_is_better=lower,
        other_names=other_names(everything, metric) if metric not in found else {},
        unstated=unstated_direction(metric, _details(everything, metric)) if metric not in found else "",
    )


def _rank(row: Row, lower_is_better: bool) -> tuple[bool, float]:
    """The place of a row, the best first; what has no score is last."""
    if not row.score.n or math.isnan(row.score.value):
        return True, 0.0
    return False, row.score.value if lower_is_better else -row.score.value


def _first_name(attempts: Sequence[Trace | AttemptSummary]) -> str:
    """The name of the first score of the attempts, which agents are ranked by; empty if there is none.

    A scorer that failed may have given its score a name that its others do not have: its others go before it.
    """
    firsts = [each.scores[0] for each in attempts if each.scores]
    return next((score.name for score in firsts if not score.failed), firsts[0].name if firsts else "")


def other_names(attempts: Sequence[Trace | AttemptSummary], metric: str) -> dict[str, int]:
    """The attempts that have scores of which none is named `metric`, by the first one's name.

    Scores of harm and people's are left out of means, and what could not be scored is told of elsewhere.
    """
    firsts = [each.scores[0] for each in attempts if each.scores and all(score.name != metric for score in each.scores)]
    return Counter(first.name for first in firsts if not (first.failed or first.is_harm or first.name.startswith(NOTE)))


def other_names_of(attempts: Sequence[AttemptSummary]) -> dict[str, dict[str, int]]:
    """The result of `other_names` for each benchmark that has any, by the name of the benchmark's first score."""
    made: dict[str, list[AttemptSummary]] = {}
    for each in attempts:
        made.setdefault(each.benchmark, []).append(each)
    firsts = {name: _first_name(found) for name, found in made.items()}
    names = ((firsts[name], other_names(found, firsts[name])) for name, found in made.items())
    return {metric: others for metric, others in names if others}


def misnamed_text(metric: str, others: Mapping[str, int]) -> str:
    """A sentence on attempts that have other scores than the one that agents are ranked by."""
    names = ", ".join(f"{name} ({number})" for name, number in others.items())
    return (
        f"{count_of(sum(others.values()), 'attempt')} without a score named {metric} counted as 0, with another one first: "
        f"{names}; a scorer gives its Score one name, whatever the task and the answer"
    )


def _is_harm(agents: Mapping[str, Sequence[Trace | AttemptSummary]], name: str) -> bool:
    return any(score.is_harm for made in agents.values() for each in made if (score := each.score(name)) is not None)


def _details(attempts: Iterable[AttemptSummary], name: str) -> Iterator[Json]:
    return (score.detail for each in attempts if (score := each.score(name)) is not None)


def scores_of(agents: Mapping[str, Sequence[Trace | AttemptSummary]], name: str) -> dict[str, Scores]:
    """The scores of that name by agent and task. An attempt without it counts as 0, of harm or of people's not at all."""
    is_harm = _is_harm(agents, name)
    return {
        agent: _values([each for each in made if each.value(name) is not None or not is_harm], name)
        for agent, made in agents.items()
    }


def _is_unrated(name: str, values: Scores | Figure) -> bool:
    """True for a score that people give, where they rated none of the agent's attempts."""
    return name.startswith(NOTE) and not isinstance(values, Figure) and not values


def _interval(values: Scores | Figure, clusters: Clusters | None) -> Interval:
    return figure_interval(values, clusters) if isinstance(values, Figure) else mean_interval(values, clusters=clusters)


def _values(attempts: Iterable[Trace | AttemptSummary], name: str) -> dict[str, list[float]]:
    """Task -> the values of its attempts in the order of their epochs, tasks in the order they came."""
    values: dict[str, list[tuple[int, float]]] = {}
    for each in attempts:
        if not each.is_unjudged(name):
            values.setdefault(each.task_id, []).append((each.epoch, each.value(name) or 0.0))
    return {task: [value for _, value in sorted(made)] for task, made in values.items()}


def _row(
    agent: str,
    attempts: Sequence[AttemptSummary],
    values: Scores | Figure,
    versus: PairedDifference | None,
    others: Mapping[str, Scores | Figure],
    passes: Mapping[str, Interval],
    clusters: Clusters | None,
) -> Row:
    unscored = failures_of(attempts, (name for name, each in others.items() if not isinstance(each, Figure)))
    return Row(
        agent=agent,
        score=_interval(values, clusters),
        versus=versus,
        cost=cost_of(attempts),
        attempts=len(attempts),
        errors=sum(each.error is not None or any(score.failed for score in each.scores) for each in attempts),
        stopped=sum(each.error is None and each.stop_reason not in ("done", "error") for each in attempts),
        secondary={name: _interval(each, clusters) for name, each in others.items() if name not in unscored}
        | dict(passes),
        unscored=unscored,
        left_out=_left_out(attempts, values),
        unreported=total_unreported(each.unreported for each in attempts),
    )


def _left_out(attempts: Sequence[AttemptSummary], values: Scores | Figure) -> int:
    """The number of tasks with a failed attempt that a figure, or the mean of a score of harm, does not cover."""
    if not isinstance(values, Figure):
        lacking = (each for each in attempts if each.error is not None or any(_is_lacking(one) for one in each.scores))
        return len({each.task_id for each in lacking} - {*values})
    failed = {each.task_id for each in attempts if each.error is not None or any(score.failed for score in each.scores)}
    return len(failed - {*values.tasks})


def _is_lacking(score: Score) -> bool:
    return score.failed and not score.unjudged


def _passes(values: Scores, clusters: Clusters | None) -> dict[str, Interval]:
    """pass@k and pass^k: the chance that any, and that all, of k attempts at a task are right, for k up to the attempts.

    Of more than EVERY_K attempts, k doubles up to their number.
    """
    from firsthand.scorers.code import pass_at_k, pass_hat_k

    if not all(value in (0, 1) for each in values.values() for value in each):
        return {}
    most = min(map(len, values.values()), default=0)
    doubling = sorted({*(2**power for power in range(1, most.bit_length()) if 2**power <= most), most})
    return {
        f"pass{sign}{k}": mean_interval(
            {task: [rate(len(each), int(sum(each)), k)] for task, each in values.items()}, clusters=clusters
        )
        for sign, rate in (("@", pass_at_k), ("^", pass_hat_k))
        for k in (range(2, most + 1) if most <= EVERY_K else doubling)
    }


def findings(board: Board) -> list[str]:
    """Each agent's difference from the baseline and its cost, a sentence each."""
    first = board.row(board.baseline)
    return [finding(row, first) for row in board.rows if row.versus and first]


def caveats(board: Board) -> list[str]:
    """The limits of the numbers, in a few sentences."""
    versus = [row.versus for row in board.rows if row.versus]
    off = [
        f"{row.agent} ({share:.0%})"
        for row in board.rows
        if (share := board.share(row)) is not None and abs(share - 1) > 0.1
    ]
    spent = f"More than 10% off the budget, by share used: {', '.join(off)}." if off else ""
    tasks = count_of(board.tasks, "task")
    if not board.metric:
        return ["Nothing was scored."]
    shared = max((row.score.clusters for row in board.rows), default=0)
    wider = [f"Its tasks fall into {count_of(shared, 'cluster')}, which CIs and tests account for."] if shared else []
    if any(row.score.method.startswith("stratified") for row in board.rows):
        wider.append("Its tasks are of fixed strata: CIs and tests have the variance within them.")
    if board.reduce != "mean":
        wider.append(f"The attempts at a task are reduced by {board.reduce}.")
    if is_figure := any("bootstrap" in row.score.method for row in board.rows):
        wider.append(f"{board.metric} is a corpus-level figure, with bootstrap CIs.")
    if board.unstated:
        wider.append(f"{board.unstated}.")
    if board.other_names:
        wider.append(f"{misnamed_text(board.metric, board.other_names)}.")
    silent = [row.agent for row in board.rows if not row.cost.tokens]
    if silent and (len(silent) < len(board.rows) or any(row.cost.calls for row in board.rows)):
        wider.append(f"No tokens were reported of {', '.join(silent)}: where a model was asked, the cost is unknown.")
    wider += unreported_notes({row.agent: row.unreported for row in board.rows}, silent)
    lacking = {row.agent: row.left_out for row in board.rows if row.left_out}
    wider += error_notes(sum(row.errors for row in board.rows), board.metric, lacking, is_figure=is_figure)
    wider += filter(None, [retried_text({row.agent: row.retried for row in board.rows})])
    wider.extend(f"No {name} of {row.agent}: {why}." for row in board.rows for name, why in row.unscored.items())
    if not versus:
        alike = "this one" if board.tasks == 1 else "these"
        return [*wider, f"Brackets are 95% CIs of the true score on tasks like {alike}."]
    largest = max((each.detectable for each in versus if finite(each.detectable) is not None), default=1.0)
    lines = [
        *wider,
        f"Minimum detectable effect with {tasks}: {largest:.2f} (80% power)."
        if largest < 1
        else f"Underpowered: with {tasks} no difference is detectable with 80% power; run more.",
    ]
    paired = f"Each agent is compared to the baseline {board.baseline} on the tasks both attempted, with 95% CIs"
    if len(versus) > 1:
        lines.append(
            f"{paired}, which hold jointly (Bonferroni). P-values are Holm-corrected for {len(versus)} comparisons."
        )
    else:
        lines.append(f"{paired}.")
    return [*lines, *([spent] if spent else [])]


def finding(row: Row, first: Row) -> str:
    """One agent's difference from the baseline and its cost, in a sentence."""
    assert row.versus is not None, "the baseline is not compared to itself"
    found, spent, base = row.versus, row.cost.tokens, first.cost.tokens
    silent = [each.agent for each in (row, first) if not each.cost.tokens]
    price = f", for {spent / base:.1f}x its tokens" if not silent else ""
    if len(silent) == 1:
        price = f"; {silent[0]} reports no tokens"
    scores = f"({value_text(row.score.value)} vs. {value_text(first.score.value)}, {p_text(found.p_value)})"
    if found.n and math.isnan(found.difference):
        return f"{row.agent}: unknown vs. {first.agent}{price}."
    if found.verdict == "inconclusive":
        return f"{row.agent}: inconclusive vs. {first.agent} {scores}{price}."
    return f"{row.agent}: {found.verdict} than {first.agent} by {abs(found.difference):.2f} {scores}{price}."
