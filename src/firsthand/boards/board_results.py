"""The results that boards are made of: one number of one model on one benchmark, with where it comes from.

A number is `verified` if it was computed here from scores of single items (a run, or a log with its samples), and
`reported` if a file only states it. Different protocols, metrics or versions of a benchmark are different columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from firsthand.boards.item_scores import MAX_CELLS as MAX_CELLS
from firsthand.boards.item_scores import BoardResult as BoardResult
from firsthand.boards.item_scores import ColumnKey as ColumnKey
from firsthand.boards.item_scores import Floats as Floats
from firsthand.boards.item_scores import ItemScores as ItemScores
from firsthand.boards.item_scores import empty_scores as empty_scores
from firsthand.boards.item_scores import expect_cells as expect_cells
from firsthand.errors import DataError

MOST_TOLD = 5
"""Cells with different numbers that are told one by one."""
MAX_ALL_CELLS = 100_000_000
"""Models times items of all columns together: 400 MB, and twice that where their covariances are wanted."""
_AGREE = 0.001 + 1e-12
"""Two numbers of one cell that differ by no more agree: 0.1 points, and what floats add to it."""


@dataclass(frozen=True)
class ResultSet:
    """All results that a board reads, and what had to be said about them."""

    results: tuple[BoardResult, ...] = ()
    items: tuple[ItemScores, ...] = ()
    duplicates: int = 0
    """Results that were read more than once; each counts once."""
    remarks: tuple[str, ...] = field(default=())
    """Sentences about what was left out or looks wrong."""

    @property
    def models(self) -> list[str]:
        """All models, in the order they came."""
        return list(dict.fromkeys(each.model for each in self.results))

    def columns(self) -> dict[ColumnKey, dict[str, BoardResult]]:
        """Column -> model -> result, in the order they came."""
        found: dict[ColumnKey, dict[str, BoardResult]] = {}
        for each in self.results:
            found.setdefault(each.key, {})[each.model] = each
        return found

    @staticmethod
    def of(results: Iterable[BoardResult], items: Sequence[ItemScores] = (), remarks: Iterable[str] = ()) -> ResultSet:
        """Joins results and item scores: repeated ones count once; of two different numbers for one cell neither is used.

        A model's scores on further items of a column are joined, if no item has two different ones. A number that was
        computed from items stands in place of a reported one that agrees with it to 0.1 points.
        """
        said = list(remarks)
        tables, own, again = _joined(items)
        every = [*own, *results]
        distinct: dict[tuple[object, ...], BoardResult] = {}
        for each in every:
            distinct.setdefault(each.identity, each)
        cells: dict[tuple[ColumnKey, str], list[BoardResult]] = {}
        for each in distinct.values():
            check_result(each)
            cells.setdefault((each.key, each.model), []).append(each)
        kept: list[BoardResult] = []
        repeated = again + len(every) - len(distinct)
        differing = 0
        told: list[str] = []
        for (key, model), found in cells.items():
            values = [each.value for each in found]
            if len(found) > 1 and max(values) - min(values) <= _AGREE:
                repeated += len(found) - 1
                kept.append(sorted(found, key=lambda each: not each.verified)[0])
            elif len(found) > 1 and (differing := differing + 1) <= MOST_TOLD:
                shown = " and ".join(f"{each.value:.4g} ({each.source or 'no source'})" for each in found[:3])
                told.append(f"{model} has {len(found)} different numbers on {key.benchmark}, {shown}: none is used.")
            elif len(found) == 1:
                kept.append(found[0])
        if differing > MOST_TOLD:
            told.append(f"And {differing - MOST_TOLD:,} more cells have different numbers: none is used.")
        said += told
        ahead = [each for each in kept if _is_ahead(each.when)]
        if ahead:
            said.append(
                f"{len(ahead)} results are dated after now, {ahead[0].model} on {ahead[0].benchmark} for example "
                f"({ahead[0].when}): is a clock wrong?"
            )
        used = {(each.key, each.model) for each in kept if each.verified}
        return ResultSet(tuple(kept), tuple(_only(tables, used)), repeated, tuple(said))


def _only(tables: Iterable[ItemScores], used: set[tuple[ColumnKey, str]]) -> Iterator[ItemScores]:
    """The tables with the rows whose means are used, so that a file of results holds no others."""
    for table in tables:
        rows = [i for i, model in enumerate(table.models) if (table.key, model) in used]
        if len(rows) == len(table.models):
            yield table
        elif rows:
            told = tuple(table.abouts[i] for i in rows) if table.abouts else ()
            models = tuple(table.models[i] for i in rows)
            yield replace(table, models=models, scores=table.scores[rows], abouts=told)


def _joined(items: Sequence[ItemScores]) -> tuple[list[ItemScores], list[BoardResult], int]:
    """The merged tables, the means of their rows, and how many rows repeat scores that others have.

    A model with two different scores for one item has the mean of each of its tables instead.
    """
    merged = _merged(items)
    means = {(table.key, each.model): each for table, apart in merged for each in table.results()
             if each.model not in apart}  # fmt: skip
    counts: Counter[tuple[ColumnKey, str]] = Counter()
    own: list[BoardResult] = []
    again = 0
    for each in (result for item in items for result in item.results()):
        place = (each.key, each.model)
        if place not in means:
            own.append(each)
            continue
        own += [] if counts[place] else [means[place]]
        counts[place] += each.n
        again += counts[place] > means[place].n
    return [table for table, _ in merged], own, again


def merged_items(items: Iterable[ItemScores]) -> list[ItemScores]:
    """The item scores with those of one column in one table, so that models of different files are paired by item.

    An empty cell takes another file's score; a model with two different scores for one item keeps those of its first file.
    """
    return [table for table, _ in _merged(items)]


def _merged(items: Iterable[ItemScores]) -> list[tuple[ItemScores, set[str]]]:
    """The table of each column, and its models with two different scores for one item."""
    by_key: dict[ColumnKey, list[ItemScores]] = {}
    for each in items:
        by_key.setdefault(each.key, []).append(each)
    merged: list[tuple[ItemScores, set[str]]] = []
    total = 0
    for key, parts in by_key.items():
        if len(parts) == 1:
            merged.append((parts[0], set()))
            continue
        tasks = {task: i for i, task in enumerate(dict.fromkeys(task for part in parts for task in part.tasks))}
        models = {model: i for i, model in enumerate(dict.fromkeys(name for part in parts for name in part.models))}
        if (total := total + len(models) * len(tasks)) > MAX_ALL_CELLS:
            raise DataError(
                f"the item scores of all columns, joined, have more than {MAX_ALL_CELLS:,} cells: make a board of fewer "
                "files"
            )
        scores = empty_scores(len(models), len(tasks), key.benchmark)
        clusters: dict[str, str] = {}
        digests: dict[str, str] = {}
        abouts: dict[str, list[tuple[BoardResult, int]]] = {}
        first: dict[str, tuple[list[int], NDArray[np.float32]]] = {}
        blank = BoardResult("", key.benchmark, 0.0)
        apart: set[str] = set()
        for part in parts:
            columns = [tasks[task] for task in part.tasks]
            there = scores[np.ix_([models[name] for name in part.models], columns)]
            known = np.isfinite(there)
            differ = (known & np.isfinite(part.scores) & (there != part.scores)).any(1)
            apart |= {name for name, two in zip(part.models, differ, strict=True) if two}
            for i, name in enumerate(part.models):
                if count := int(np.isfinite(part.scores[i]).sum()):
                    first.setdefault(name, (columns, part.scores[i]))
                    abouts.setdefault(name, []).append((part.abouts[i] if part.abouts else blank, count))
                scores[models[name], columns] = np.where(known[i], there[i], part.scores[i])
            clusters = dict(zip(part.tasks, part.clusters, strict=False)) | clusters
            digests = dict(zip(part.tasks, part.problems, strict=False)) | digests
        for name in apart:
            own, found = first[name]
            scores[models[name]] = np.nan
            scores[models[name], own] = found
        named = tuple(clusters.get(task, task) for task in tasks) if clusters else ()
        told = [abouts.get(name, [(blank, 0)]) for name in models]
        about = tuple(each[0][0] if name in apart else _of_all(each) for name, each in zip(models, told, strict=True))
        problems = tuple(digests.get(task, "") for task in tasks) if digests else ()
        merged.append((ItemScores(key, tuple(models), tuple(tasks), scores, named, about, problems), apart))
    return merged


def _of_all(parts: Sequence[tuple[BoardResult, int]]) -> BoardResult:
    """The origin of scores from several files, each with its number of items: all that differ, and costs by item."""
    abouts = [each for each, _ in parts]
    if all(each == abouts[0] for each in abouts):
        return abouts[0]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        counts = [count for _, count in parts]
        return float(np.average(known, weights=counts)) if len(known) == len(values) else None

    def every(texts: Iterable[str]) -> str:
        return "; ".join(dict.fromkeys(filter(None, texts)))

    return replace(
        abouts[0],
        source=every(each.source for each in abouts),
        run=every(each.run for each in abouts),
        commit=every(each.commit for each in abouts),
        data_hash=every(each.data_hash for each in abouts),
        when=min(filter(None, (each.when for each in abouts)), default=""),
        cost_usd=mean([each.cost_usd for each in abouts]),
        seconds=mean([each.seconds for each in abouts]),
        repeats=abouts[0].repeats if len({each.repeats for each in abouts}) == 1 else 1,
        of_run=all(each.of_run for each in abouts),
        lower_is_better=any(each.lower_is_better for each in abouts),
    )


def check_result(result: BoardResult) -> None:
    """DataError for a result that no board can rank: a value that is no number, or no name."""
    if result.repeats < 1:
        raise DataError(
            f"{result.source}: {result.model} has {result.repeats} repeats of each item: 1 or more was expected"
        )
    if not result.model.strip() or not result.benchmark.strip():
        raise DataError(f"{result.source}: a result names no model or no benchmark: give both")
    if not math.isfinite(result.value):
        raise DataError(
            f"{result.source}: {result.model} on {result.benchmark} is {result.value}: give a number, or leave it out"
        )
    if result.error is not None and not result.error >= 0:
        raise DataError(
            f"{result.source}: the standard error of {result.model} on {result.benchmark} is {result.error}: "
            "give a number of 0 or more"
        )


def utc_of(text: object, where: str) -> str:
    """A date as UTC in ISO 8601; a date without a zone is taken as UTC. Empty for None or an empty text."""
    if text in (None, ""):
        return ""
    try:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return datetime.fromtimestamp(text, UTC).isoformat(timespec="seconds")
        found = datetime.fromisoformat(str(text).strip().replace("Z", "+00:00").replace("/", "-"))
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(f"{where}: the date is {text!r:.60}: write ISO 8601, such as 2026-01-31") from None
    return found.isoformat(timespec="seconds")


def _is_ahead(when: str) -> bool:
    return bool(when) and datetime.fromisoformat(when) > datetime.now(UTC)
