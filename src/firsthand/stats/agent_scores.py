"""The score of each agent of a run, as the run's table has it: what lists, plots, grids and boards show.

Epochs are reduced as in the run, a figure such as BLEU of a corpus stands in place of the mean, an attempt without a score
counts as 0, and one without a score of harm, or whose judge gave no verdict, is left out. Leaves out intervals:
`run_summary.py` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from firsthand.benchmark import Figures
from firsthand.errors import ConfigError
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import ScoreMean, Totals, score_means
from firsthand.stats.figure_stats import figure_value
from firsthand.stats.intervals import Scores, task_means
from firsthand.stats.stored_figures import first_score, own_figures, stored_figures
from firsthand.stats.task_scores import harm_benchmarks, reduced_benchmarks, task_scores


def agent_scores(
    run: Run, own: Mapping[str, Figures] | None = None, *, totals: Sequence[Totals] | None = None
) -> tuple[ScoreMean, ...]:
    """The score of each agent on each benchmark that was scored; without those that have none, such as a NaN.

    `own` are the figures that benchmarks have of their own, by default as `own_figures` finds them; where they cannot be
    computed the mean stands. `totals` are those of the run, where they are known. A benchmark with too few attempts for its
    reducer, so far, has no scores.
    """
    found = {(each.benchmark, each.agent): each for each in score_means(run.totals() if totals is None else totals)}
    reduced = reduced_benchmarks(run) | harm_benchmarks(run)
    by_task = _reduced_scores(run)
    for pair in [pair for pair in found if pair[0] in reduced]:
        means = task_means(by_task.get(pair, {}))
        found[pair] = ScoreMean(*pair, math.fsum(means) / len(means) if means else math.nan, len(means))
    figures_of = own_figures(lambda text: None, run) if own is None else own
    for benchmark in dict.fromkeys(name for name, _ in found):
        sides = {agent: (run, agent) for name, agent in run.pairs() if name == benchmark}
        figures = stored_figures(sides, benchmark, figures_of).get(first_score(benchmark, run), {})
        for agent, figure in figures.items():
            found[benchmark, agent] = ScoreMean(benchmark, agent, figure_value(figure), len({*figure.tasks}))
    return tuple(each for each in found.values() if each.mean is not None and not math.isnan(each.mean))


def task_values(run: Run, *, so_far: bool = False) -> dict[tuple[str, str], dict[str, float]]:
    """Benchmark and agent -> task -> its score: the mean of its attempts, or what the run's reducer makes of them.

    A benchmark with too few attempts for its reducer is a ConfigError; `so_far` leaves it without scores, as in a run that
    goes on.
    """
    found: dict[tuple[str, str], dict[str, float]] = {pair: {} for pair in run.pairs()}
    reduced = reduced_benchmarks(run) | harm_benchmarks(run)
    for mean in run.task_means():
        if mean.benchmark not in reduced and mean.mean is not None:
            found[mean.benchmark, mean.agent][mean.task] = mean.mean
    for pair, scores in (_reduced_scores(run) if so_far else task_scores(run, reduced)).items():
        found[pair] = {task: math.fsum(each) / len(each) for task, each in scores.items() if each}
    return found


def _reduced_scores(run: Run) -> dict[tuple[str, str], Scores]:
    """The scores of the benchmarks with a reducer, but for those whose attempts are too few for it so far."""
    found: dict[tuple[str, str], Scores] = {}
    for benchmark in reduced_benchmarks(run) | harm_benchmarks(run):
        try:
            found |= task_scores(run, {benchmark})
        except ConfigError:
            continue
    return found
