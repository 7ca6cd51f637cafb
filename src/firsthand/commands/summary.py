"""Print a run's scores with intervals and spread, over all tasks or by length, depth or any key of their metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from firsthand.commands.print_run import print_protocols
from firsthand.commands.sides import complain_of_directions, unmade_text
from firsthand.config import confidence, share
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.runs.retried_attempts import retried_text
from firsthand.runs.unmade_attempts import unmade
from firsthand.show.board_words import amount, figure_text, seconds
from firsthand.show.heatmap import heat, score_cells, shown
from firsthand.stats.breakdown import cells, grids
from firsthand.stats.effective_length import effective
from firsthand.stats.run_summary import SummaryRow, summary
from firsthand.stats.stored_figures import own_figures
from firsthand.stats.task_scores import reducers_in_words
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, print_as_json, print_prose, print_table, printable

EXAMPLES = """
firsthand summary last
firsthand summary 2026-11-25-0148 --confidence 99%
firsthand summary last --by depth,length                       # a grid, with an interval in each cell
firsthand summary last --by length --threshold 85.6%           # the effective length
firsthand summary last --score rubric                          # scores given later by a judge
firsthand summary last --json
"""

LEGEND = """\
An attempt without a score is an error and counts as 0, or is left out where its judge gave no verdict.
Of ratings (note.NAME), an attempt that nobody rated is left out.
sd: between tasks, and of attempts at one task.
MDE: minimum detectable effect against another agent on other tasks, with 80% power; `firsthand power` plans for one."""

CELLS_LEGEND = "Each cell: mean score, its {level} CI, number of tasks. An attempt without a score counts as 0."


@dataclass(frozen=True)
class Config:
    """The run to summarise, and how."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    confidence: str = "95%"
    """Confidence level of the intervals."""
    by: tuple[str, ...] = ()
    """Group scores by these keys of the tasks' metadata or columns of own data: length, or depth,length for a grid."""
    threshold: str | None = None
    """With --by and one key: print its last value that reaches this score, as in 85.6%."""
    score: str | None = None
    """Summarise a score given later, by its name (see firsthand score)."""
    strata: str | None = None
    """Key of the tasks' metadata, or column of own data, whose groups are fixed, such as subject: CIs are stratified."""
    reduce: str | None = None
    """Reducer of a task's epochs: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2; by default the run's own."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.threshold is not None and len(self.by) != 1:
            raise ConfigError("threshold needs exactly one key, as in --by length --threshold 85.6%")
        for name in ("score", "strata", "reduce"):
            if self.by and getattr(self, name) is not None:
                raise ConfigError(f"{name} and by do not go together: leave out one of them")
        epoch_reducer(self.reduce or "")


def main(config: Config) -> int:
    """Print the summary."""
    level = confidence(config.confidence)
    if config.by:
        return print_cells(config, level)
    with store.open_run(config.run, data_home()) as run:
        own, protocols = own_figures(complain, run), run.protocols
        lines = summary(run, level, own, score=config.score, strata=config.strata, reduce=config.reduce)
        missing = unmade(run)
        complain_of_directions(run, score=config.score)
    if config.json:
        body = [
            line.to_json()
            | {
                "protocol": protocols.get(line.benchmark, ""),
                "unmade": missing.counts.get((line.benchmark, line.agent), 0),
                "run_unmade": missing.total,  # of agents and benchmarks without a line too
            }
            for line in lines
        ]
        print_as_json(body)
        return 0
    for benchmark in dict.fromkeys(line.benchmark for line in lines):
        print_lines(benchmark, [line for line in lines if line.benchmark == benchmark], config.confidence)
    if not lines:
        console().print("No attempt has finished.")
    print_unmade(missing.total, run.id)
    print_protocols(protocols)
    return 0


def print_unmade(count: int, run_id: str) -> None:
    """Print the number of attempts that the run has not made yet, if there are any."""
    if count:
        console().print(unmade_text(count, run_id), markup=False, soft_wrap=True)


def print_cells(config: Config, level: float) -> int:
    """Print the scores by key: a grid for one or two keys, a table for more."""
    with store.open_run(config.run, data_home()) as run:
        found, protocols, reducers = cells(run, config.by, level), run.protocols, reducers_in_words(run)
        missing = unmade(run).total
    limit = None if config.threshold is None else share(config.threshold, "threshold")
    reached = [] if limit is None else effective(found, limit)
    if config.json:
        body = {
            "cells": [cell.to_json(config.by) for cell in found],
            "effective": [each.to_json() for each in reached],
            "protocols": protocols,
            "reducers": reducers,
            "run_unmade": missing,
        }
        print_as_json(body)
        return 0
    out = console()
    if len(config.by) <= 2:
        for grid in grids(found, config.by):
            out.print(heat(grid))
        print_prose(CELLS_LEGEND.format(level=config.confidence))
    else:
        header = ["benchmark", "agent", *config.by, "score", f"{config.confidence} (tasks)"]
        rows = [[cell.benchmark, cell.agent, *map(shown, cell.values), *score_cells(cell)] for cell in found]
        print_table("", header, rows)
    for name, told in reducers.items():
        out.print(printable(f"{name}: the attempts at a task are reduced by {told}."), soft_wrap=True, markup=False)
    for each in reached:
        out.print(printable(each.sentence(config.by[0])), soft_wrap=True, markup=False)
    print_unmade(missing, run.id)
    print_protocols(protocols)
    return 0


def print_lines(benchmark: str, lines: list[SummaryRow], level: str) -> None:
    """Print a table of the agents, its legend, and figures and clusters of each."""
    header = ["agent", f"score ({level} CI)", "interval", "tasks", "attempts", "errors", "sd", "MDE", "tokens", "time"]
    print_table(benchmark, header, [_cells(line) for line in lines])
    out = console()
    print_prose(LEGEND)
    if text := retried_text({line.agent: line.retried for line in lines}):
        out.print(printable(text), markup=False, soft_wrap=True)
    for told in dict.fromkeys(line.reduce for line in lines if line.reduce != "mean"):
        out.print(f"The attempts at a task are reduced by {told}.", markup=False)
    if not any(line.score.n for line in lines):
        out.print("No attempt here counts: nothing was scored, judged or rated.")
    for line in lines:
        if line.left_out:
            told = f"{line.agent}: the score leaves out {count_of(line.left_out, 'task')} that failed"
            out.print(printable(told), soft_wrap=True, markup=False)
        if line.figures:
            told = ", ".join(figure_text(name, x) for name, x in line.figures.items())
            out.print(printable(f"{line.agent}: {told}"), soft_wrap=True, markup=False)
        if line.score.method.startswith("stratified"):
            told = (
                f"{line.agent}: the standard error is the one within strata, {line.score.inflation:.2f} of that without"
            )
            out.print(told, markup=False, soft_wrap=True)
        elif line.score.clusters:
            out.print(
                f"{line.agent}: {count_of(line.score.n, 'task')} in {count_of(line.score.clusters, 'cluster')}: "
                "the standard error is multiplied by "
                f"{line.score.inflation:.2f}",
                markup=False,
                soft_wrap=True,
            )


def _cells(line: SummaryRow) -> list[str]:
    digits = 4 if line.score.n >= 2000 else 3
    known = math.isfinite(line.score.low) and math.isfinite(line.score.high)
    bounds = f"[{line.score.low:.{digits}f}, {line.score.high:.{digits}f}]" if known else "unknown"
    parts = (line.spread.between, line.spread.within)
    return [
        line.agent,
        f"{line.score.value:.{digits}f}\n{bounds}" if line.score.n else "-",
        line.score.method,
        str(line.score.n),
        str(line.attempts),
        str(line.errors),
        "\n".join("?" if math.isnan(part) else f"{math.sqrt(part):.3f}" for part in parts),
        "?" if math.isnan(line.detectable) else f"{line.detectable:.3f}",
        amount(line.tokens),
        seconds(line.seconds),
    ]
