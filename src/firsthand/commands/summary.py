"""Print what a run scored, with intervals and the spread between and within tasks: a million attempts take a second."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from firsthand.config import confidence
from firsthand.evals.leaderboard import amount, seconds
from firsthand.evals.summary import Line, summary
from firsthand.home import data_home
from firsthand.runs import store
from firsthand.terminal import console, print_table

EXAMPLES = """
firsthand summary last
firsthand summary 2026-11-25-0148 --confidence 99%
firsthand summary last --json
"""

LEGEND = """\
An attempt without a score is an error and counts as 0. sd: between tasks, and of attempts at one task.
sees: a difference to another agent, on other tasks, that would be found 4 times in 5; `firsthand power` knows more."""


@dataclass(frozen=True)
class Config:
    """What to sum up."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    confidence: str = "95%"
    """How sure the intervals are."""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print it."""
    level = confidence(config.confidence)
    with store.open_run(config.run, data_home()) as run:
        lines = summary(run, level)
    if config.json:
        print(json.dumps([line.to_json() for line in lines], indent=2, ensure_ascii=False))
        return 0
    for benchmark in dict.fromkeys(line.benchmark for line in lines):
        print_lines(benchmark, [line for line in lines if line.benchmark == benchmark], config.confidence)
    if not lines:
        console().print("No attempt has finished.")
    return 0


def print_lines(benchmark: str, lines: list[Line], level: str) -> None:
    """A table of the agents, and what its columns mean."""
    header = ["agent", f"score ({level})", "interval", "tasks", "attempts", "errors", "sd", "sees", "tokens", "time"]
    print_table(benchmark, header, [_cells(line) for line in lines])
    out = console()
    out.print(LEGEND, soft_wrap=True, markup=False)
    for line in lines:
        if line.score.clusters:
            out.print(
                f"{line.agent}: {line.score.n} tasks in {line.score.clusters} clusters, which make the standard error "
                f"{line.score.inflation:.2f} times what it would be without them",
                markup=False,
                soft_wrap=True,
            )


def _cells(line: Line) -> list[str]:
    digits = 4 if line.score.n >= 2000 else 3
    known = math.isfinite(line.score.low) and math.isfinite(line.score.high)
    bounds = f"[{line.score.low:.{digits}f}, {line.score.high:.{digits}f}]" if known else "unknown"
    parts = (line.spread.between, line.spread.within)
    return [
        line.agent,
        f"{line.score.value:.{digits}f}\n{bounds}",
        line.score.method,
        str(line.score.n),
        str(line.attempts),
        str(line.errors),
        "\n".join("?" if math.isnan(part) else f"{math.sqrt(part):.3f}" for part in parts),
        "?" if math.isnan(line.detectable) else f"{line.detectable:.3f}",
        amount(line.tokens),
        seconds(line.seconds),
    ]
