"""Computes the figures of stored runs from the numbers kept with their attempts; a run without figures is not read.

A benchmark's own figures (an adapter's macro average) need the benchmark, which is made again from the spec in the run, and
the traces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

from firsthand import catalog
from firsthand.benchmark import Benchmark, Figure, Figures
from firsthand.errors import FirsthandError
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.store import Run
from firsthand.stats.figures import figures, has_figures
from firsthand.trace import Trace

Side = tuple[Run, str]
"""A run, and one of its agents."""


def own_figures(tell: Callable[[str], None], *runs: Run) -> dict[str, Figures]:
    """Benchmark -> its own figures. `tell` receives a sentence for a benchmark that cannot be made again."""
    found: dict[str, Figures] = {}
    for name, text in {each for run in runs for each in run.about.get("figures", {}).items()}:
        try:
            made = _made(text)
        except FirsthandError as error:
            tell(f"{name} has figures of its own, which cannot be computed here: {error}")
            continue
        if made.name == name and made.figures is not None:
            found[name] = made.figures
    return found


def stored_figures(
    sides: Mapping[str, Side],
    benchmark: str,
    own: Mapping[str, Figures],
    *,
    tasks: Mapping[str, Collection[str]] | None = None,
    errors: bool = True,
) -> dict[str, dict[str, Figure]]:
    """Name -> side -> Figure, of the sides' attempts at one benchmark, or at these `tasks` of each side; see `figures`."""
    runs = {run.path: run for run, _ in sides.values()}.values()
    if benchmark not in own and not any(has_figures(run.samples(benchmark)) for run in runs):
        return {}
    attempts: dict[str, list[Trace | AttemptSummary]] = {}
    for side, (run, agent) in sides.items():
        made: Iterable[Trace | AttemptSummary] = (
            run.traces(benchmark=benchmark, agent=agent)
            if benchmark in own
            else run.summaries(benchmark=benchmark, agent=agent)
        )
        attempts[side] = [each for each in made if tasks is None or each.task_id in tasks[side]]
    return figures(attempts, own.get(benchmark), errors=errors)


def first_score(benchmark: str, *runs: Run) -> str:
    """The name of the score that the benchmark's agents are ranked by; empty if nothing was scored."""
    return next(
        (trace.attempt_scores[0].name for run in runs for trace in run.samples(benchmark) if trace.attempt_scores), ""
    )


@cache
def _made(text: str) -> Benchmark:
    return catalog.benchmark(text)
