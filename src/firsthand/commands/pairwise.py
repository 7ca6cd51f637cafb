"""Compares all pairs of agents of one run, or of three and more, with multiple-comparison correction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from firsthand.benchmark import Figure, Figures
from firsthand.commands.compare_config import Config
from firsthand.commands.sides import (
    benchmarks_with,
    complain_of_directions,
    difference_cells,
    difference_header,
    unmade_text,
)
from firsthand.config import confidence
from firsthand.errors import ConfigError, unknown
from firsthand.runs import store
from firsthand.runs.pairing import scores_of
from firsthand.runs.run_folder import Run
from firsthand.runs.scored_alike import other_scorers_among
from firsthand.runs.task_groups import common_groups
from firsthand.runs.unmade_attempts import unmade
from firsthand.stats.intervals import Scores
from firsthand.stats.multiple_comparisons import all_pairs
from firsthand.stats.paired import PairedDifference
from firsthand.stats.stored_figures import first_score, own_figures, stored_figures
from firsthand.stats.task_scores import harm_benchmarks
from firsthand.system.home import data_home
from firsthand.system.terminal import complain, console, print_as_json, print_table

Pairs = dict[tuple[str, str], PairedDifference]


def compare_pairwise(config: Config) -> int:
    """Compare all pairs of the runs' agents, corrected for their number, and print."""
    opened: dict[Path, Run] = {}
    with ExitStack() as stack:
        for ref in config.runs:
            run = stack.enter_context(store.open_run(ref, data_home()))
            opened.setdefault(run.path, run)
        runs = list(opened.values())
        own = own_figures(complain, *runs)
        complain_of_directions(*runs, score=config.score)
        having = benchmarks_with(config.score, *runs, own=own)
        if config.benchmark is not None and config.benchmark not in having:
            raise unknown("benchmark", config.benchmark, having, see=f"firsthand show {runs[0].id}")
        paired_by, error_value = next(iter(having.values()), None), 0.0 if config.errors == "zero" else None
        by_benchmark = scores_of(runs, score=paired_by, error_value=error_value, reduce=config.reduce, even=True)
        for each in other_scorers_among(
            runs, [(name, config.score or first_score(name, *runs)) for name in by_benchmark]
        ):
            complain(str(each))
        unfinished = {run.id: unmade(run) for run in runs}
        missing = {
            (benchmark, _named(agent, run, runs)): count
            for run in runs
            for (benchmark, agent), count in unfinished[run.id].counts.items()
        }
        results = {
            place: pairs
            for benchmark, agents in by_benchmark.items()
            if benchmark in having and config.benchmark in (None, benchmark)
            for place, pairs in on_benchmark(config, runs, benchmark, agents, own)
        }
    if not by_benchmark and any(run.pairs() for run in runs):
        raise ConfigError(
            "nothing was scored in these runs, so there is nothing to compare: firsthand score gives scores"
        )
    if not any(results.values()):
        raise ConfigError("the runs have one agent only: name runs with several, whose pairs are compared")
    if config.json:
        body = [
            {"benchmark": benchmark, "score": name, "a": a, "b": b}
            | found.to_json()
            | {"unmade": {side: missing.get((benchmark, agent), 0) for side, agent in (("a", a), ("b", b))}}
            for (benchmark, name), pairs in results.items()
            for (a, b), found in pairs.items()
        ]
        print_as_json(body)
        return 0
    for id, found in unfinished.items():
        if found.total:
            console().print(unmade_text(found.total, id), markup=False, soft_wrap=True)
    for (benchmark, name), pairs in results.items():
        print_pairs(f"{benchmark}, {name}", pairs, config)
    return 0


def on_benchmark(
    config: Config, runs: Sequence[Run], benchmark: str, agents: Mapping[str, Scores], own: Mapping[str, Figures]
) -> Iterator[tuple[tuple[str, str], Pairs]]:
    """Differences of all pairs of agents, by (benchmark, score or figure)."""
    named = {_named(name, run, runs): (run, name) for run in runs for name in run.agents()}
    sides = {name: named[name] for name in agents}
    clusters = common_groups(*(run.clusters(config.strata) for run in reversed(runs))).get(benchmark)
    figures = stored_figures(sides, benchmark, own, tasks=agents, errors=config.errors == "zero")
    ranked = config.score or first_score(benchmark, *runs)
    wanted: dict[str, Mapping[str, Scores | Figure]] = {ranked: agents, **figures}
    lower = any(benchmark in harm_benchmarks(run, config.score) for run in runs)
    for name, values in wanted.items():
        if name == ranked or config.score is None:
            level = confidence(config.confidence)
            yield (benchmark, name), all_pairs(values, config.correct, level, clusters, lower_is_better=lower)


def _named(agent: str, run: Run, runs: Sequence[Run]) -> str:
    """The name of a run's agent among those of all runs."""
    return agent if len(runs) == 1 else f"{run.id}/{agent}"


def print_pairs(what: str, pairs: Pairs, config: Config) -> None:
    """Print a table of all pairs."""
    rows = [[b, a, str(found.n), *difference_cells(found)] for (a, b), found in pairs.items()]
    print_table(f"{what}: all pairs", ["agent", "vs.", "tasks", *difference_header(config.confidence)], rows)
    if config.correct != "none" and len(pairs) > 1:
        method = {"holm": "Holm", "bh": "Benjamini and Hochberg"}[config.correct]
        joint = {"holm": "hold jointly (Bonferroni)", "bh": "are wide enough for those found (Benjamini and Yekutieli)"}
        told = f"p-values are corrected for {len(pairs)} comparisons ({method}); {config.confidence} CIs "
        told += f"{joint[config.correct]}."
        console().print(told, markup=False, soft_wrap=True)
