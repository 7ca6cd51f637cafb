"""Runs beside each other: paired statistics, then task by task, what got worse first; two attempts with their difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.runs.pairing import Comparison, Pair, compare
from firsthand.runs.run_folder import Run
from firsthand.show import heatmap
from firsthand.show.answer_diff import PairBudget, word_difference
from firsthand.show.expected import expected_answer
from firsthand.stats.agent_scores import task_values
from firsthand.stats.multiple_comparisons import difference
from firsthand.stats.paired import PairedDifference, judged
from firsthand.stats.power_analysis import paired_tasks_needed
from firsthand.studio.comparison_slices import CostPlot, cost_plots, metadata_keys, slices_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import is_part, page
from firsthand.studio.trace_difference import trace_difference
from firsthand.studio.views.query_values import number_of, text_of

CHANGES = ("changed", "worse", "better", "same", "all")
PAGE = 100
MAX_AGENTS = 24
MAX_TASKS = 2000


@dataclass(frozen=True)
class Contest:
    """A comparison, and its paired statistics by benchmark."""

    comparison: Comparison
    differences: dict[str, PairedDifference]


def routes(runs: OpenRuns) -> list[Route]:
    """The comparison of two sides, the difference of two attempts, and the grid of tasks by agents."""

    def show(request: Request) -> Response:
        chosen = request.query_params.getlist("run")[:MAX_AGENTS]
        sides = sides_of(sorted(runs.several(chosen), key=lambda run: run.created_at))  # the older run is the baseline
        if len(sides) < 2:
            return page(request, "compare", title="Compare", sides=sides, contest=None, chosen=chosen)
        a = _side(sides, text_of(request, "a"), 0)
        b = _side(sides, text_of(request, "b"), 1)
        only = text_of(request, "only") or "changed"
        if only not in CHANGES:
            raise ConfigError(f"only is {only[:40]!r}: it is one of {', '.join(CHANGES)}")
        contest = contest_of(sides[a], sides[b])
        pairs = chosen_pairs(contest.comparison, only)
        keys = metadata_keys(sides[a].run, contest.differences)
        slice_by = text_of(request, "slice")
        if slice_by and slice_by not in keys:
            raise ConfigError(
                f"the tasks have no metadata {slice_by[:40]!r} to slice by: they have {', '.join(keys) or 'none'}"
            )
        start = number_of(request, "start", 0)
        values: dict[str, Any] = {
            "chosen": chosen,
            "sides": sides,
            "a": a,
            "b": b,
            "only": only,
            "changes": CHANGES,
            "contest": contest,
            "prompts": [prompt_of(sides[each].run.config) for each in (a, b)],
            "undecided": {name: tasks_to_decide(each) for name, each in contest.differences.items() if is_open(each)},
            "pairs": pairs[start : start + PAGE],
            "num_pairs": len(pairs),
            "keys": list(keys),
            "slice_by": slice_by,
            "slices": slices_of(contest.comparison, keys[slice_by]) if slice_by else [],
            "plots": plots_of(sides),
            "next_start": start + PAGE if start + PAGE < len(pairs) else None,
        }
        if is_part(request) and start:
            return page(request, "parts/pair_rows", **values)
        return page(request, "compare", title="Compare", **values)

    def attempts(request: Request) -> Response:
        (run_a, a), (run_b, b) = (
            (run := runs.get(text_of(request, f"run_{side}")), runs.traces.get(run, text_of(request, side)).trace)
            for side in ("a", "b")
        )
        task = run_a.task(a.benchmark, a.task_id)
        return page(
            request,
            "attempt_pair",
            title=f"{a.benchmark} / {a.task_id}",
            run_a=run_a,
            run_b=run_b,
            trace_a=a,
            trace_b=b,
            question="" if task is None or task.protected is not None else task.question,
            expected=expected_answer(task),
            pieces=word_difference((a.answer or ""), (b.answer or ""), PairBudget()),
            steps=trace_difference(a, b),
        )

    def grid(request: Request) -> Response:
        chosen = request.query_params.getlist("run")[:MAX_AGENTS]
        sides = sides_of(runs.several(chosen))[:MAX_AGENTS]
        rows = grid_rows(sides)
        return page(
            request, "grid", title="Tasks by agents", chosen=chosen, sides=sides, rows=rows[:MAX_TASKS],
            num_left=len(rows[MAX_TASKS:]), heat=heatmap,
        )  # fmt: skip

    return [Route("/compare", show), Route("/compare/attempts", attempts), Route("/compare/grid", grid)]


def is_open(found: PairedDifference) -> bool:
    """True for a comparison of some tasks that ended without a verdict."""
    return found.n > 0 and found.verdict == "inconclusive"


def tasks_to_decide(found: PairedDifference) -> int | None:
    """The tasks that detect a difference as large as this one with 80% power; None if none was seen."""
    effect = abs(found.difference)
    if not effect > 0 or math.isnan(found.detectable):
        return None
    if found.method == "Tango":
        disagreement = max((found.better + found.worse + 1) / (found.n + 2), effect)
        return paired_tasks_needed(effect, min(disagreement, 1.0))
    return math.ceil(found.n * (found.detectable / effect) ** 2)


@dataclass(frozen=True)
class Side:
    """An agent of a run."""

    run: Run
    agent: str

    @property
    def key(self) -> str:
        """Its name in an address."""
        return f"{self.run.id}/{self.agent}"


def prompt_of(config: Json) -> str:
    """The prompt of a run's settings and its version in words; empty for a run that was not made with one."""
    name, version = config.get("prompt"), config.get("prompt_version")
    return f"{name[:100]}, version {version}" if isinstance(name, str) and isinstance(version, int) else ""


def sides_of(runs: list[Run]) -> list[Side]:
    """All agents of the runs, in their order."""
    return [Side(run, agent) for run in dict.fromkeys(runs) for agent in run.agents()]


def plots_of(sides: list[Side]) -> list[CostPlot]:
    """For each benchmark that two agents or more have attempted: its name, the points, and the unit of cost."""
    runs = list(dict.fromkeys(side.run for side in sides))
    several = len(runs) > 1
    benchmarks = dict.fromkeys(benchmark for run in runs for benchmark, _ in run.pairs())
    named = [(side.run, side.agent, side.key if several else side.agent) for side in sides]
    return [plot for plot in cost_plots(named, benchmarks) if len(plot[1]) >= 2]


def _side(sides: list[Side], key: str, default: int) -> int:
    if not key:
        first = sides[0]
        same = [n for n, each in enumerate(sides) if n and each.agent == first.agent]
        return default if default == 0 else (same[0] if same else 1)
    for number, side in enumerate(sides):
        if side.key == key:
            return number
    raise ConfigError(f"no agent {key[:80]!r} in the runs that are compared")


def contest_of(a: Side, b: Side) -> Contest:
    """Side `b` against side `a`, with a paired difference for each benchmark; errors count 0, or no harm at all."""
    comparison = compare(a.run, b.run, agent_a=a.agent, agent_b=b.agent, error_value=0.0)
    found = {}
    for benchmark in dict.fromkeys(pair.benchmark for pair in comparison.pairs):
        pairs = [pair for pair in comparison.pairs if pair.benchmark == benchmark]
        values = {p.task_id: p.b.drawn for p in pairs}, {p.task_id: p.a.drawn for p in pairs}
        clusters, lower = comparison.clusters.get(benchmark), benchmark in comparison.harms
        found[benchmark] = judged(difference(*values, clusters, lower_is_better=lower), 0.95)
    return Contest(comparison, found)


def chosen_pairs(comparison: Comparison, only: str) -> list[Pair]:
    """The tasks of a kind of change, those that got worse first, the largest difference first."""
    wanted = {"changed": ("worse", "better"), "all": ("worse", "better", "same")}.get(only, (only,))
    return [pair for change in ("worse", "better", "same") if change in wanted for pair in comparison.tasks(change)]


@dataclass(frozen=True)
class GridRow:
    """A task with the score of each side, its epochs reduced as in its run; None where it has none."""

    benchmark: str
    task: str
    values: tuple[float | None, ...]

    @property
    def spread(self) -> float:
        """The largest difference of two scores."""
        known = [each for each in self.values if each is not None]
        return max(known) - min(known) if known else 0.0


def grid_rows(sides: list[Side]) -> list[GridRow]:
    """A row for each task, those that tell agents apart first."""
    means: dict[tuple[str, str], dict[int, float | None]] = {}
    known: dict[Run, dict[tuple[str, str], dict[str, float]]] = {}
    for number, side in enumerate(sides):
        if side.run not in known:
            known[side.run] = task_values(side.run, so_far=True)
        for (benchmark, agent), values in known[side.run].items():
            for task, value in values.items() if agent == side.agent else ():
                means.setdefault((benchmark, task), {})[number] = value
    rows = [
        GridRow(benchmark, task, tuple(found.get(number) for number in range(len(sides))))
        for (benchmark, task), found in means.items()
    ]
    return sorted(rows, key=lambda row: -row.spread)
