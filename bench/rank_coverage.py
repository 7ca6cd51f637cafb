"""Coverage of every rating's and every board's 95 % intervals, and of their joint ranks, over data of known truth.

    python bench/rank_coverage.py --runs 300            # about a minute of one processor
    python bench/rank_coverage.py --runs 300 davidson borda

"intervals" is the mean share of a table's intervals that hold the truth; "ranks" is the share of tables in which the rank
ranges of all models hold at once. There are eight models: two are equal, two more nearly so; then all are equal, so that
every pair told apart is an error. A rate r of R runs has a standard error of sqrt(r (1 - r) / R), or less for the intervals,
of which each run has eight. The tests run fewer.
"""

# M models, C columns, I items

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.pair_likelihoods import bradley_terry_terms, davidson_terms, rao_kupper_terms
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import CENTRE, ELO, Method, rate
from firsthand.boards.aggregates import borda_counts, column_win_rates
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import make_board

Floats = NDArray[np.float64]
Line = tuple[float, float, float, int, int]
"""The truth, the ends of its interval, and the ends of the range of its rank."""
STRENGTHS = np.array([-0.9, -0.5, -0.1, 0.0, 0.0, 0.1, 0.5, 0.9])
EQUAL = np.zeros(len(STRENGTHS))
"""Of models that are all equal, so that every pair told apart is an error."""
NAMES = tuple(f"m{i}" for i in range(len(STRENGTHS)))
TERMS = {"bradley-terry": bradley_terry_terms, "davidson": davidson_terms, "rao-kupper": rao_kupper_terms}
COLUMNS = 12
VOTES = 1500
BENCHMARKS = 400_000
MANY_VOTES = 2_000_000
"""Drawn for the truth of a population of benchmarks, and of one of voters."""
TASTE = 0.5
"""Standard deviation of a voter's taste for a model, in log-odds."""


def pairs(rng: np.random.Generator, votes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two different models for each vote."""
    a = rng.integers(0, len(NAMES), votes)
    return a, (a + rng.integers(1, len(NAMES), votes)) % len(NAMES)


def battles(rng: np.random.Generator, a: Any, b: Any, method: Method, odds: Floats) -> dict[str, Any]:
    """Columns of votes of the method's own model; `odds` are the log-odds of each first model."""
    chances = np.exp(TERMS[method](odds, 0.4).value)
    if method == "bradley-terry":
        chances[1] = 0
    bounds = (chances / chances.sum(0)).cumsum(0)
    outcome = (rng.random(len(a)) > bounds).sum(0)
    names = np.array(NAMES)
    return {"model_a": names[a], "model_b": names[b], "winner": np.array(["a", "tie", "b"])[outcome], "models": NAMES}


def of_ratings(
    rng: np.random.Generator,
    strengths: Floats,
    method: Method,
    *,
    voters: int = 0,
    style: bool = False,
    anchor: str = "",
) -> list[Line]:
    """An arena of 1,500 votes. With `voters`, each has a taste for every model; with `style`, length sways the votes."""
    a, b = pairs(rng, VOTES)
    columns: dict[str, Any] = {}
    odds, truth = strengths[a] - strengths[b], strengths
    if style:
        length = rng.normal(0, 1, VOTES)
        columns["covariates"], odds = {"length": length}, odds + 0.5 * length
    if voters:
        voter, tastes = rng.integers(0, voters, VOTES), rng.normal(0, TASTE, (voters, len(NAMES)))
        columns["voters"], odds = [str(each) for each in voter], odds + tastes[voter, a] - tastes[voter, b]
        truth = over_tastes(tuple(strengths))
    table = BattleTable.from_columns(**battles(rng, a, b, method, odds), **columns)
    own = CENTRE + ELO * (truth - (truth[NAMES.index(anchor)] if anchor else 0))
    rows = {row.model: row for row in ranked(rate(table, method), anchor=anchor or None)}
    kept = [(own[i], rows[name]) for i, name in enumerate(NAMES) if name != anchor]
    return [(value, row.low, row.high, row.rank_low, row.rank_high) for value, row in kept]


@cache
def over_tastes(strengths: tuple[float, ...]) -> Floats:
    """Shape (M): the ratings that votes of ever more voters with tastes tend to, by a fit to two million voters' votes."""
    rng = np.random.default_rng(1)
    a, b = pairs(rng, MANY_VOTES)
    odds = np.array(strengths)[a] - np.array(strengths)[b] + rng.normal(0, TASTE * np.sqrt(2), len(a))
    return _equal_where(strengths, rate(BattleTable.from_columns(**battles(rng, a, b, "bradley-terry", odds))).theta)


def _equal_where(strengths: tuple[float, ...], values: Floats) -> Floats:
    """The values, with their mean where strengths are equal."""
    return np.array([values[np.array(strengths) == each].mean() for each in strengths])


def item_scores(
    rng: np.random.Generator, strengths: Floats, name: str, items: int, chance: float = 0.0
) -> tuple[ItemScores, Floats]:
    """Right and wrong answers to items of one difficulty for all models, and each model's share over all items there are."""
    shares = 1 / (1 + np.exp(-1.5 * strengths))
    shares = chance + (1 - chance) * shares
    common = rng.random(items)  # half of a model's luck is the item's, so that models are alike item by item
    alike = rng.random((len(NAMES), items)) < 0.5
    drawn = np.where(alike, common, rng.random((len(NAMES), items)))
    scores = (drawn < shares[:, None]).astype(np.float32)
    return ItemScores(ColumnKey(name, "p", "acc"), NAMES, tuple(map(str, range(items))), scores), shares


def of_board(results: ResultSet, spec: BoardSpec, truth: Floats) -> list[Line]:
    """The lines of a board's only table."""
    (section,) = make_board(results, spec).sections
    lines = {line.model: line for line in section.lines}
    return [(truth[i], *_ends(lines[name])) for i, name in enumerate(NAMES)]


def _ends(line: Any) -> tuple[float, float, int, int]:
    return line.low, line.high, line.rank_low, line.rank_high


def one_benchmark(rng: np.random.Generator, strengths: Floats, *, stated: bool = False) -> list[Line]:
    """A table of one benchmark of 200 items; `stated` gives the board the means alone, which are then not paired."""
    found, truth = item_scores(rng, strengths, "b", 200)
    if not stated:
        return of_board(ResultSet.of([], [found]), BoardSpec(), truth)
    means = [BoardResult(name, "b", float(mean), n=200) for name, mean in zip(NAMES, found.means(), strict=True)]
    return of_board(ResultSet.of(means), BoardSpec(), truth)


def weighted(rng: np.random.Generator, strengths: Floats, chance: float = 0.0) -> list[Line]:
    """Three benchmarks of 100, 200 and 50 items in two categories with weights 2 and 1; `chance` is what guessing gives."""
    parts = [item_scores(rng, strengths, name, items, chance) for name, items in (("x", 100), ("y", 200), ("z", 50))]
    entries = {name: BenchmarkEntry(group, chance=chance) for name, group in (("x", "g"), ("y", "g"), ("z", "h"))}
    spec = BoardSpec(rule="weighted", benchmarks=entries, categories={"g": 2, "h": 1})
    return of_board(ResultSet.of([], [each for each, _ in parts]), spec, (parts[0][1] - chance) / (1 - chance))


def columns(rng: np.random.Generator, strengths: Floats, number: int) -> Floats:
    """Shape (M, C): scores on benchmarks drawn from a population, each of which likes models of its own."""
    return 1 / (1 + np.exp(-(strengths[:, None] + rng.normal(0, 0.7, (len(NAMES), number)))))


@cache
def expected(rule: str, strengths: tuple[float, ...]) -> Floats:
    """Shape (M): the mean over the population of benchmarks; equal models get equal ones."""
    values = columns(np.random.default_rng(3), np.array(strengths), BENCHMARKS)
    return _equal_where(strengths, (column_win_rates(values) if rule == "win-rate" else borda_counts(values)).mean(1))


def over_columns(rng: np.random.Generator, strengths: Floats, rule: Any, number: int) -> list[Line]:
    """A board of benchmarks that are a sample of benchmarks."""
    values = columns(rng, strengths, number)
    stated = [
        BoardResult(name, f"b{c}", float(values[i, c]), n=100_000)
        for c in range(number)
        for i, name in enumerate(NAMES)
    ]
    scale = 1 if rule == "win-rate" else number
    return of_board(
        ResultSet.of(stated), BoardSpec(rule=rule, reported="together"), expected(rule, tuple(strengths)) * scale
    )


KINDS: dict[str, Callable[[np.random.Generator, Floats], list[Line]]] = {
    "bradley-terry": partial(of_ratings, method="bradley-terry"),
    "davidson": partial(of_ratings, method="davidson"),
    "rao-kupper": partial(of_ratings, method="rao-kupper"),
    "style control": partial(of_ratings, method="bradley-terry", style=True),
    "40 voters": partial(of_ratings, method="bradley-terry", voters=40),
    "distance to an anchor": partial(of_ratings, method="bradley-terry", anchor="m2"),
    "each, item scores": one_benchmark,
    "each, stated means": partial(one_benchmark, stated=True),
    "weighted": weighted,
    "weighted, above chance": partial(weighted, chance=0.25),
    "win-rate": partial(over_columns, rule="win-rate", number=COLUMNS),
    "win-rate, 5 columns": partial(over_columns, rule="win-rate", number=5),
    "borda": partial(over_columns, rule="borda", number=COLUMNS),
    "borda, 5 columns": partial(over_columns, rule="borda", number=5),
}
"""Every kind of rating that has an interval, and every rule of a board. Online Elo has none."""


def coverage(kind: str, seeds: Iterable[int], strengths: Floats = STRENGTHS) -> tuple[float, float]:
    """The share of intervals that hold the truth, and the share of tables whose rank ranges all hold."""
    held, together = [], []
    for seed in seeds:
        lines = KINDS[kind](np.random.default_rng(seed), strengths)
        truth = np.array([line[0] for line in lines])
        held.append(np.mean([low <= value <= high for value, low, high, *_ in lines]))
        size = max(line[4] for line in lines)
        absent = size - len(lines)  # the anchor has a rank and no interval
        together.append(
            all(
                low <= 1 + (truth > value).sum() + absent and size - (truth < value).sum() - absent <= high
                for value, _, _, low, high in lines
            )
        )
    return float(np.mean(held)), float(np.mean(together))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--runs", type=int, default=300)
    given = parser.parse_args()
    print(f"{given.runs} runs, seeds 0 to {given.runs - 1}")
    for kind in given.kinds:
        held, together = coverage(kind, range(given.runs))
        equal = coverage(kind, range(given.runs), EQUAL)
        told = f"{kind:24s} intervals {held:.3f}   ranks {together:.3f}"
        print(f"{told}   of equal models {equal[0]:.3f} and {equal[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
