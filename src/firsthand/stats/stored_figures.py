"""The figures of stored runs, from what lies with their attempts; a run without figures is not read for them.

What a benchmark itself computes of its attempts (an adapter's macro average) needs the benchmark: it is made again, by the
words that the run keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache

from firsthand import catalog
from firsthand.benchmark import Benchmark, Figure, Figures
from firsthand.errors import FirsthandError
from firsthand.runs.store import Run
from firsthand.stats.figures import figures, has_figures

Side = tuple[Run, str]
"""A run, and one of its agents."""


def own_figures(tell: Callable[[str], None], *runs: Run) -> dict[str, Figures]:
    """Benchmark -> the figures that it has of its own. `tell` is given a sentence where it cannot be made again."""
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
    """Name -> side -> Figure, of the sides' attempts at one benchmark, or at these tasks of each side; see `figures`."""
    runs = {run.path: run for run, _ in sides.values()}.values()
    if benchmark not in own and not any(has_figures(run.samples(benchmark)) for run in runs):
        return {}
    traces = {
        side: [t for t in run.traces(benchmark=benchmark, agent=agent) if tasks is None or t.task_id in tasks[side]]
        for side, (run, agent) in sides.items()
    }
    return figures(traces, own.get(benchmark), errors=errors)


def first_score(benchmark: str, *runs: Run) -> str:
    """The name of the score that the benchmark's agents are ranked by; empty if nothing was scored."""
    return next(
        (trace.attempt_scores[0].name for run in runs for trace in run.samples(benchmark) if trace.attempt_scores), ""
    )


@cache
def _made(text: str) -> Benchmark:
    return catalog.benchmark(text)
