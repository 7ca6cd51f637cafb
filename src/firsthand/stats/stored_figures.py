"""Computes the figures of stored runs from the numbers kept with their attempts; a run without figures is not read.

A benchmark's own figures (an adapter's macro average) need the benchmark, which is made again from the spec in the run, and
the traces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from firsthand import catalog
from firsthand.benchmark import Benchmark, Figure, Figures
from firsthand.errors import DataError, FirsthandError
from firsthand.message import canonical
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.run_folder import Run
from firsthand.stats.figures import figures, has_figures
from firsthand.system.address_secrets import with_secrets
from firsthand.system.home_seal import is_ours
from firsthand.system.option_spec import parse_spec
from firsthand.trace import Trace

Side = tuple[Run, str]
"""A run, and one of its agents."""


def own_figures(tell: Callable[[str], None], *runs: Run) -> dict[str, Figures]:
    """Benchmark -> its own figures. `tell` receives a sentence for a benchmark that cannot be made again."""
    found: dict[str, Figures] = {}
    for name, text, is_own in {each for run in runs for each in _specs(run)}:
        try:
            if not is_own and _names_files(text):
                raise DataError(
                    f"the run names {text!r} for them, and it was not made in this data home: a file may hold any program, "
                    "so it is not loaded"
                )
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


def names_of_figures(run: Run) -> set[str]:
    """The benchmarks of a run that have figures of their own, computable here or not."""
    return {name for name, _, _ in _specs(run)}


def _specs(run: Run) -> list[tuple[str, str, bool]]:
    """Name and spec of each benchmark with figures of its own, and whether the run was made in this data home."""
    given = run.about.get("figures", {})
    if not isinstance(given, dict) or not all(isinstance(each, str) for each in given.values()):
        raise run.database.damaged("its figures are not specs of benchmarks")
    is_own = is_ours(canonical(given), run.about.get("figures_seal"), "figures")
    return [(name, text, is_own) for name, text in given.items()]


def _names_files(text: str) -> bool:
    """True unless the spec is a benchmark of this package or of an installed one, with options that name no file."""
    spec = parse_spec(text)
    words = [spec.name, *(part for value in spec.options.values() for part in (value, value.partition("@")[0]))]
    return bool({"trust", "include"} & spec.options.keys()) or any(
        _FILE.search(word) or Path(word).exists() for word in words
    )


_FILE = re.compile(r"\.(py|toml|ya?ml|jsonl?)\b|^[/~.]|\.\.", re.IGNORECASE)


@cache
def _made(text: str) -> Benchmark:
    """The benchmark of a spec; a secret that is not in the environment is made up, since figures ask no server."""
    return catalog.benchmark(with_secrets(text, default="unknown"))
