"""Power and false alarms of `firsthand board --cross-reference`, on simulated tables with and without a planted score.

    python bench/cross_reference.py --tables 100

A table has an ability for each model and a difficulty, a slope and a deviation of .35 log odds for each benchmark. One score
is raised by 4, 6 or 8 such deviations; 6 of them lift a score of 50 % to 89 %. `3x8` are three scores of different models
and benchmarks raised by 8, counted if all three are found.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.board_spec import BenchmarkEntry
from firsthand.boards.cross_reference import cross_reference
from firsthand.stats.intervals import proportion_interval

DEVIATION = 0.35
SHAPES = (
    (12, 6, "normal", 0.0),
    (30, 10, "normal", 0.0),
    (30, 10, "normal", 0.2),
    (30, 10, "laplace", 0.0),
    (30, 10, "t5", 0.0),
    (30, 10, "t3", 0.0),
    (12, 6, "t5", 0.0),
    (100, 40, "normal", 0.0),
)


def table(
    seed: int, models: int, columns: int, tails: str, missing: float, raised: float, scores: int = 1
) -> list[BoardColumn]:
    """A table whose model m3 is raised on benchmark b2, and m4 on b3 and so on if there are more scores."""
    draw = np.random.default_rng(seed)
    ability, slope, ease = draw.normal(0, 1, models), draw.uniform(0.5, 1.2, columns), draw.normal(0, 0.8, columns)
    noise = draw.normal(size=(models, columns))
    if tails == "laplace":
        noise = draw.laplace(size=(models, columns)) / np.sqrt(2)
    elif tails != "normal":
        degrees = int(tails.removeprefix("t"))
        noise = draw.standard_t(degrees, (models, columns)) / np.sqrt(degrees / (degrees - 2))
    odds = ease + ability[:, None] * slope + DEVIATION * noise
    gone = draw.random((models, columns)) < missing
    for each in range(scores):
        odds[3 + each, 2 + each] += raised * DEVIATION
        gone[3 + each, 2 + each] = False
    shares = 1 / (1 + np.exp(-odds))
    made = []
    for j in range(columns):
        cells = {
            f"m{i}": BoardResult(f"m{i}", f"b{j}", float(shares[i, j]), n=1000) for i in range(models) if not gone[i, j]
        }
        made.append(BoardColumn(f"b{j}", ColumnKey(f"b{j}", "", ""), BenchmarkEntry(), cells, None, 1.0))
    return made


def main() -> None:
    """Print a row for each shape of table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", type=int, default=100, help="clean tables of each shape; a quarter of them with planted scores"
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first table")
    parser.add_argument("--simulated", type=int, default=199, help="simulated tables behind each report")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only the first N shapes")
    given = parser.parse_args()
    for models, columns, tails, missing in SHAPES[: given.shapes]:
        began = time.process_time()
        told, made_of = [], 0
        for raised, scores in ((0.0, 1), (4.0, 1), (6.0, 1), (8.0, 1), (8.0, 3)):
            hits = heavy = 0
            planted = {(f"m{3 + each}", f"b{2 + each}") for each in range(scores)}
            count = max(1, given.tables // 4) if raised else given.tables
            made_of += count
            for seed in range(given.first, given.first + count):
                made = table(seed, models, columns, tails, missing, raised, scores)
                found = cross_reference(made, tables=given.simulated)
                heavy += found.heavy_tailed
                names = {(each.model, each.benchmark) for each in found.flagged}
                claimed = bool(names) and not found.heavy_tailed  # a report that claims no rate raises no false alarm
                hits += claimed if not raised else planted <= names
            low, high = proportion_interval(hits, count)
            name = "clean" if not raised else f"+{raised:.0f}" if scores == 1 else f"{scores}x{raised:.0f}"
            told.append(f"{name} {hits / count:.2f} [{low:.2f}, {high:.2f}]")
            if not raised:
                told.append(f"no rate claimed {heavy / count:.2f}")
        spent = (time.process_time() - began) / made_of
        print(
            f"{models} x {columns}, {tails}, {missing:.0%} missing: {'; '.join(told)}; {spent:.2f} processor seconds a "
            f"report (load {os.getloadavg()[0]:.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
