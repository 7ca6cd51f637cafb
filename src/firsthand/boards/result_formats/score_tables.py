"""Reads tables of scores: one row a score, one row a model, one row an item, or the Open LLM Leaderboard's rows.

The layout is told by the columns: `model`, `benchmark` and `score`; `model` and a column for each benchmark; `question_id`,
`task_id` or `item` and a column for each model; the Open LLM Leaderboard's own names.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, empty_scores, utc_of
from firsthand.errors import DataError
from firsthand.stats.metric_names import is_lower_better

MODELS = ("model", "Model", "fullname", "model_name", "name")
ITEMS = ("question_id", "task_id", "item", "item_id", "instance_id")
OPEN_LLM = {
    "IFEval": "IFEval",
    "BBH": "BBH",
    "MATH Lvl 5": "MATH lvl 5",
    "GPQA": "GPQA",
    "MUSR": "MuSR",
    "MMLU-PRO": "MMLU-Pro",
}
ABOUT = {
    "category", "date", "when", "creation_date", "ci", "licence", "license", "type", "revision", "sha", "organisation",
    "organization", "url", "precision", "architecture", "params", "tokens", "cluster",
}  # fmt: skip
"""Columns of a table of models or items that are no scores."""
_YES, _NO = frozenset({"true", "yes", "1", "1.0"}), frozenset({"false", "no", "0", "0.0"})
_GROUPED = re.compile(r"[+\-−]?[\d.,][\d.,'’_ \u00a0\u202f]*%?")
_MISSING = ("", "na", "n/a", "nan", "none", "null", "-", "—")


def open_llm_rows(rows: list[TableRow], path: Path) -> Iterator[BoardResult]:
    """The normalised scores of the Open LLM Leaderboard v2, which are percents."""
    name = next(each for each in ("fullname", "Model", "model") if each in rows[0].columns)
    for row in rows:
        for column, benchmark in OPEN_LLM.items():
            value = number_in(row, column)
            if value is None:
                continue
            if not 0 <= value <= 100:
                raise DataError(f"{row.where}: {column} is {value:g}: the board's rows hold percents from 0 to 100")
            yield BoardResult(
                model=str(row.columns[name]).strip(),
                benchmark=benchmark,
                value=value / 100,
                protocol="Open LLM Leaderboard v2, normalised",
                when=utc_of(row.columns.get("Submission Date") or row.columns.get("date"), row.where),
                source=str(path),
                commit=str(row.columns.get("Model sha") or ""),
            )


def is_open_llm(columns: Mapping[str, Any]) -> bool:
    """True for rows of the Open LLM Leaderboard v2."""
    return set(OPEN_LLM) <= set(columns) and any(each in columns for each in ("fullname", "Model", "model"))


def is_long(columns: Mapping[str, Any]) -> bool:
    """True for a table with a score in each row."""
    return {"model", "benchmark"} <= set(columns) and ("score" in columns or "value" in columns)


def long_rows(rows: list[TableRow], path: Path) -> Iterator[BoardResult]:
    """One result a row; the columns protocol, metric, n, error, date, cost_usd and others are read too.

    `lower_is_better` is true or false; where it is empty, the name of the metric or else of the benchmark decides.
    """
    score = "score" if "score" in rows[0].columns else "value"
    for row in rows:
        value = number_in(row, score)
        if value is None:
            continue
        names = ("protocol", "metric", "run", "commit", "data_hash")
        text = {name: str(row.columns.get(name) or "").strip() for name in names}
        n = number_in(row, "n") or 0
        if n < 0 or n != int(n):
            raise DataError(f"{row.where}: n is {n:g}: give the number of items, or leave it empty")
        yield BoardResult(
            model=str(row.columns["model"] or "").strip(),
            benchmark=str(row.columns["benchmark"] or "").strip(),
            value=value,
            error=number_in(row, "error"),
            n=int(n),
            lower_is_better=_is_lower(row, text["metric"] or str(row.columns["benchmark"])),
            group=str(row.columns.get("category") or row.columns.get("type") or ""),
            cost_usd=number_in(row, "cost_usd"),
            when=utc_of(row.columns.get("date") or row.columns.get("when"), row.where),
            source=row.where,
            protocol=text["protocol"],
            metric=text["metric"],
            run=text["run"],
            commit=text["commit"],
            data_hash=text["data_hash"],
        )


def _is_lower(row: TableRow, name: str) -> bool:
    """The cell `lower_is_better`; where it is empty, what the name says."""
    cell = row.columns.get("lower_is_better")
    if _is_missing(cell):
        return is_lower_better(name)
    said = str(cell).strip().casefold()
    if said not in _YES | _NO:
        raise DataError(f"{row.where}: lower_is_better is {cell!r:.60}: true or false was expected")
    return said in _YES


def is_item_table(columns: Mapping[str, Any]) -> bool:
    """True for a table with an item in each row and a model in each further column."""
    return next(iter(columns), "") in ITEMS and "model" not in columns and len(columns) > 1


def item_rows(rows: list[TableRow], path: Path) -> Iterator[ItemScores]:
    """The scores of all models on each item; a negative score means that the model gave no answer, and counts as 0."""
    columns = list(rows[0].columns)
    models = [name for name in columns[1:] if name.casefold() not in ABOUT]
    if not models:
        raise DataError(f"{path} has no column of a model: it has {', '.join(columns)[:200]}")
    scores, low = empty_scores(len(models), len(rows), path.name), 0.0
    for place, row in enumerate(rows):
        for i, name in enumerate(models):
            value = number_in(row, name)
            if value is not None:
                scores[i, place] = value = max(value, 0.0) if value == -1 else value
                low = min(low, value)
    if low < 0:
        raise DataError(f"{path} has the score {low:g}: item scores are 0 or more, or -1 for no answer")
    tasks = tuple(str(row.columns[columns[0]]) for row in rows)
    if (twice := next((task for task, count in Counter(tasks).items() if count > 1), None)) is not None:
        raise DataError(f"{path} has the item {twice!r} more than once: give each item one row")
    stem = path.name.partition(".")[0]
    key = ColumnKey(stem.removesuffix("_item_results"), "", "")
    about = BoardResult("", key.benchmark, 0.0, source=str(path), lower_is_better=is_lower_better(key.benchmark))
    clusters = tuple(str(row.columns["cluster"]) for row in rows) if "cluster" in columns else ()
    yield ItemScores(key, tuple(models), tasks, scores, clusters, (about,) * len(models))


def is_wide(columns: Mapping[str, Any]) -> bool:
    """True for a table with a model in each row."""
    return any(name in columns for name in MODELS)


def wide_rows(rows: list[TableRow], path: Path, remarks: list[str]) -> Iterator[BoardResult]:
    """A result for each cell under a heading whose cells are all numbers or empty; `date` dates the row.

    `remarks` gets a sentence for each other column of which most cells are numbers, `0,95` and `1,234` too: it looks like a
    benchmark.
    """
    columns = rows[0].columns
    name = next(each for each in MODELS if each in columns)
    scores = []
    for each in columns:
        if each in MODELS or each.casefold() in ABOUT:
            continue
        others = [row for row in rows if not _is_score(row, each)]
        if not others:
            scores.append(each)
        filled = sum(not _is_missing(row.columns.get(each)) for row in rows)
        if others and 2 * sum(not _is_grouped(row, each) for row in others) < filled:
            cell, where = others[0].columns.get(each), others[0].where
            remarks.append(
                f"{each} is left out: {others[0].columns[name]!r:.60} has {cell!r:.60}, which is no number ({where})."
            )
    if not scores:
        raise DataError(f"{path} has no column of numbers beside {name!r}: a column for each benchmark was expected")
    for row in rows:
        for column in scores:
            value = number_in(row, column)
            if value is not None:
                yield BoardResult(
                    model=str(row.columns[name] or "").strip(),
                    benchmark=column,
                    value=value,
                    lower_is_better=is_lower_better(column),
                    when=_date(row),
                    source=row.where,
                )


def _date(row: TableRow) -> str:
    return utc_of(row.columns.get("date") or row.columns.get("when"), row.where)


def _is_score(row: TableRow, column: str) -> bool:
    cell = row.columns.get(column)
    return _is_missing(cell) or math.isfinite(_value(cell))


def _is_grouped(row: TableRow, column: str) -> bool:
    """True for a number with another decimal sign, or with its digits in groups, which is not read."""
    cell = row.columns.get(column)
    return isinstance(cell, str) and _GROUPED.fullmatch(cell.strip()[:60]) is not None


def number_in(row: TableRow, column: str) -> float | None:
    """The number in a cell, percents as fractions; None for an empty one. DataError for any other, and above 100%."""
    cell = row.columns.get(column)
    if _is_missing(cell):
        return None
    value = _value(cell)
    if not math.isfinite(value):
        raise DataError(f"{row.where}: {column} is {cell!r:.60}: a number was expected, or nothing for a missing score")
    if value > 1 and isinstance(cell, str) and cell.strip().endswith("%"):
        raise DataError(
            f"{row.where}: {column} is {cell!r:.60}: a percentage is at most 100%, so correct it, or leave out %"
        )
    return value


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().casefold() in _MISSING)


def _value(cell: Any) -> float:
    """The number; NaN if it is none."""
    try:
        if isinstance(cell, bool):
            raise ValueError
        text = cell.strip() if isinstance(cell, str) else cell
        if isinstance(text, str) and "_" in text:  # digits grouped as in Python's source
            raise ValueError
        return float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError, OverflowError):
        return math.nan
