"""Traces -> a Board per benchmark: what each agent scored, what it cost, and whether it differs from the first one.

A board is a query over traces and holds no state. An attempt that ended in an error, or whose scorer failed, scores 0
and is counted under errors, so that an agent cannot gain by failing loudly; one that no judge could be had for is counted
there too and has no part in the mean, since that is not the agent's doing. Left out: ratings from preferences, boards over
several benchmarks.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from firsthand.benchmark import Figure, Figures
from firsthand.errors import unknown
from firsthand.evals.critical_path import critical_seconds
from firsthand.evals.figure_stats import figure_interval
from firsthand.evals.figures import figures as figures_of
from firsthand.evals.frontier import frontier
from firsthand.evals.stats import (
    Clusters,
    Interval,
    PairedDifference,
    Scores,
    compare_to_baseline,
    finite,
    mean_interval,
)
from firsthand.message import Json
from firsthand.trace import Trace

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType


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


def findings(board: Board) -> list[str]:
    """What each agent bought and what it cost against the baseline, a sentence each."""
    first = board.row(board.baseline)
    return [finding(row, first) for row in board.rows if row.versus and first]


def caveats(board: Board) -> list[str]:
    """What the numbers cannot tell, in a few sentences."""
    versus = [row.versus for row in board.rows if row.versus]
    off = [f"{row.agent} ({share:.0%})" for row in board.rows if (share := board.share(row)) and abs(share - 1) > 0.1]
    spent = f"Not within a tenth of the budget, but at this share of it: {', '.join(off)}." if off else ""
    tasks = f"{board.tasks} task" + ("s" if board.tasks != 1 else "")
    if not board.metric:
        return ["Nothing was scored."]
    shared = max((row.score.clusters for row in board.rows), default=0)
    wider = [f"Its tasks fall into {shared} clusters, for which intervals and tests allow."] if shared else []
    if any("bootstrap" in row.score.method for row in board.rows):
        wider.append(f"{board.metric} is the figure of the whole corpus, with bootstrap intervals.")
    if errors := sum(row.errors for row in board.rows):
        wider.append(
            f"Under errors: {errors} attempts that failed or could not be scored. Each counts as 0; one that had no judge "
            "is left out."
        )
    if not versus:
        return [*wider, f"Intervals hold the true score with 95 % confidence, for tasks like these {tasks}."]
    largest = max((each.detectable for each in versus if finite(each.detectable) is not None), default=1.0)
    lines = [
        *wider,
        f"With {tasks} a true difference below {largest:.2f} would often have been missed (power under 80 %)."
        if largest < 1
        else f"With {tasks} hardly any difference could have been seen: run more.",
    ]
    paired = f"Each agent is compared to {board.baseline} on the tasks both attempted; intervals are 95 %"
    if len(versus) > 1:
        lines.append(f"{paired}. Differences and p-values are Holm-corrected for {len(versus)} comparisons.")
    else:
        lines.append(f"{paired}.")
    return [*lines, *([spent] if spent else [])]


def render(boards: Sequence[Board]) -> RenderableType:
    """The boards as tables for a terminal, with fewer columns where it is narrower than 100; see `Rendered`."""
    return Rendered(tuple(boards))


@dataclass(frozen=True)
class Rendered:
    """Boards that rich can print; it leaves colours out where there is no terminal."""

    boards: tuple[Board, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for board in self.boards:
            yield from _render_board(board, options.max_width)


def render_text(boards: Sequence[Board], *, width: int = 100) -> str:
    """The boards as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(render(boards))
    return out.getvalue()


def amount(value: float) -> str:
    """A count in few characters: 7.5, 340, 1.2k, 3.4M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.5 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == round(value) else f"{value:.1f}"


def seconds(value: float) -> str:
    """A duration in few characters: 12 ms, 1.4 s, 3.1 min."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def money(value: float) -> str:
    """Dollars in few characters; a dash for none."""
    return "-" if value == 0 else f"${value:.2f}" if value >= 0.1 else f"${value:.2g}"


def span(low: float, high: float, *, signed: bool = False) -> str:
    """An interval in brackets; `unknown` where it is not finite."""
    if finite(low) is None or finite(high) is None:
        return "unknown"
    return f"[{low + 0.0:+.2f}, {high + 0.0:+.2f}]" if signed else f"[{low:.2f}, {high:.2f}]"


def p_text(p_value: float) -> str:
    """A p-value that is never rounded across 0.05."""
    if p_value < 0.001:
        return "p<0.001"
    return f"p={p_value:.3f}" if f"{p_value:.3f}" != "0.050" else f"p={p_value:.6f}"


def value_text(value: float) -> str:
    """A score with two decimals; a dash for none."""
    return "-" if finite(value) is None else f"{value:.2f}"


def _board(
    benchmark: str,
    agents: Mapping[str, list[Trace]],
    baseline: str | None,
    budget: float | None,
    clusters: Clusters | None,
    figures: Figures | None,
) -> Board:
    everything = [trace for traces in agents.values() for trace in traces]
    names = list(dict.fromkeys(score.name for trace in everything for score in trace.scores))
    metric = next((trace.scores[0].name for trace in everything if trace.scores), "")
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
    from firsthand.evals.code import pass_at_k, pass_hat_k

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


def finding(row: Row, first: Row) -> str:
    """What one agent bought and what it cost against the first, in a sentence."""
    assert row.versus is not None, "the baseline is not compared to itself"
    found, ratio = row.versus, row.cost.tokens / first.cost.tokens if first.cost.tokens else None
    price = "" if ratio is None else f" for {ratio:.1f}x its tokens"
    scores = f"({value_text(row.score.value)} against {value_text(first.score.value)}, {p_text(found.p_value)})"
    if found.verdict == "cannot tell":
        return f"{row.agent}: cannot be told apart from {first.agent} {scores},{price or ' at the same cost'}."
    return f"{row.agent}: {found.verdict} than {first.agent} by {abs(found.difference):.2f} {scores},{price}."


def _render_board(board: Board, width: int) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    epochs = f", {board.epochs} epochs" if board.epochs > 1 else ""
    budget = f", {board.budget:,.0f} tokens each" if board.budget else ""
    what = f"{_plain(board.benchmark)}: {_plain(board.metric) or 'not scored'}, {board.tasks} tasks{epochs}{budget}"
    title = Text(what, "bold")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, leading=1)
    names = [_plain(row.agent) for row in board.rows]
    names = [name if len(name) <= 20 else re.sub(r"(?=:)|(?<=[(,])", "\n", name) for name in names]
    room = 16 if not any(row.cost.usd for row in board.rows) else 8
    widest = max(len(line) for name in names for line in name.split("\n"))
    table.add_column("agent", overflow="fold", min_width=min(max(widest, 8), room), max_width=26)
    against = "vs cheapest" if board.budget else "against first"
    columns = ["score", against, "verdict", "tokens/task", "seconds", "calls", "cost", "errors"]
    if not any(row.cost.usd for row in board.rows):
        columns.remove("cost")
    if width < 100:
        columns.remove("calls")
    if width < 90:
        columns.remove("seconds")
    for column in columns:
        table.add_column(column, justify="left" if column == "verdict" else "right", no_wrap=True)
    for name, row in zip(names, board.rows, strict=True):
        cells = _cells(row, board)
        mark = "\n◆ frontier" if board.budget and row.agent in board.frontier else ""
        table.add_row(Text(name + mark), *(Text(cells[column]) for column in columns))
    also = [Text(f"{_plain(row.agent)}: {_others(row)}") for row in board.rows if row.secondary]
    notes = [Text(_plain(line)) for line in [*findings(board), *caveats(board)]]
    return [
        title,
        table,
        Text(""),
        *([Text("Also measured", "bold"), *also, Text("")] if also else []),
        *notes,
        Text(""),
    ]


def _cells(row: Row, board: Board) -> dict[str, str]:
    """Each column's cell, mostly of two or three lines: the figure, and under it its interval or its parts."""
    found, cost = row.versus, row.cost
    cached = f"\n{amount(cost.cached_tokens)} cached" if cost.cached_tokens else ""
    share = board.share(row)
    used = "" if share is None else f"\n{share:.0%} used"
    path = "" if share is None else f"\npath {seconds(cost.seconds_path)}"
    difference = f"{found.difference:+.2f}\n{span(found.low, found.high, signed=True)}" if found else ""
    return {
        "score": f"{value_text(row.score.value)}\n{span(row.score.low, row.score.high)}",
        "against first": difference or "(first)",
        "vs cheapest": difference or "(cheapest)",
        "verdict": f"{found.verdict}\n{p_text(found.p_value)}" if found else "",
        "tokens/task": f"{amount(cost.tokens)}\n{amount(cost.prompt_tokens)} in{cached}{used}",
        "seconds": f"{seconds(cost.seconds_median)}\navg {seconds(cost.seconds_mean)}{path}",
        "calls": amount(cost.calls),
        "cost": money(cost.usd),
        "errors": str(row.errors) + (f"\n{row.stopped} limit" if row.stopped else ""),
    }


def _others(row: Row) -> str:
    return ", ".join(
        f"{_plain(name)} {value_text(each.value)} {span(each.low, each.high)}" for name, each in row.secondary.items()
    )


def _plain(text: str) -> str:
    """The text without characters that could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
