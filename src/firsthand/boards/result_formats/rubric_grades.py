"""Reads experts' grades by a rubric: blind double grading, agreement by Krippendorff's alpha, adjudication.

A table with a row for each grade: item, model, grader, criterion, grade, and a role, `grader` or `adjudicator`. An answer is
scored if two graders agree on it within the tolerance, by their mean, or if an adjudicator graded it; any other is left out
and counted (the practice of Scale's SEAL boards).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.boards.result_formats.score_tables import number_in
from firsthand.errors import ConfigError, DataError
from firsthand.stats.rater_agreement import krippendorff_alpha
from firsthand.system.plurals import count_of

TOLERANCE = 0.25
"""Two grades on a scale from 0 to 1 that differ by more need an adjudicator."""


@dataclass(frozen=True)
class GradedAnswers:
    """The summary of experts' grades."""

    items: ItemScores
    alpha: float
    """Krippendorff's alpha of the independent grades, interval level."""
    answers: int
    adjudicated: int
    open: int
    """Answers that graders disagree on and nobody adjudicated; they are left out."""
    single: int
    """Answers that only one grader saw; they are left out."""
    remarks: tuple[str, ...]


def is_grades(columns: Mapping[str, Any]) -> bool:
    """True for a table of grades."""
    return {"item", "model", "grader", "grade"} <= set(columns)


def graded_answers(rows: list[TableRow], path: Path) -> GradedAnswers:
    """The scores of all answers, the graders' agreement, and what was left out.

    Raises:
        DataError: A grade that is no number from 0 to 1 (or to the column `max`), or a grader who graded an answer twice.
    """
    by_answer: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    adjudicators: set[str] = set()
    for row in rows:
        text = {
            name: str(row.columns.get(name) or "").strip() for name in ("item", "model", "grader", "criterion", "role")
        }
        if missing := [name for name in ("item", "model", "grader") if not text[name]]:
            raise DataError(f"{row.where}: {missing[0]} is empty: each grade names its item, model and grader")
        grade, top = number_in(row, "grade"), number_in(row, "max") or 1.0
        if grade is None or not 0 <= grade <= top:
            raise DataError(
                f"{row.where}: the grade is {row.columns.get('grade')!r:.40}: give a number from 0 to {top:g}"
            )
        if text["role"] not in ("", "grader", "adjudicator"):
            raise DataError(f"{row.where}: the role is {text['role']!r:.40}: give grader or adjudicator")
        if text["role"] == "adjudicator":
            adjudicators.add(text["grader"])
        given = by_answer[text["item"], text["model"]][text["grader"]]
        if text["criterion"] in given:
            raise DataError(
                f"{row.where}: {text['grader']} graded {text['item']!r} of {text['model']} twice: keep one grade"
            )
        given[text["criterion"]] = grade / top
    totals = {
        answer: {grader: sum(given.values()) / len(given) for grader, given in grades.items()}
        for answer, grades in by_answer.items()
    }
    scores: dict[tuple[str, str], float] = {}
    adjudicated = disputed = single = 0
    for answer, grades in totals.items():
        last = [value for grader, value in grades.items() if grader in adjudicators]
        first = [value for grader, value in grades.items() if grader not in adjudicators]
        if last:
            adjudicated += 1
            scores[answer] = sum(last) / len(last)
        elif len(first) < 2:
            single += 1
        elif max(first) - min(first) > TOLERANCE:
            disputed += 1
        else:
            scores[answer] = sum(first) / len(first)
    if not scores:
        raise DataError(
            f"{path} has no answer with two grades that agree, nor an adjudicator's: grade each answer twice"
        )
    units = [[v for g, v in grades.items() if g not in adjudicators] for grades in totals.values()]
    alpha = krippendorff_alpha([each for each in units if len(each) > 1], level="interval")
    tasks = list(dict.fromkeys(item for item, _ in scores))
    models = list(dict.fromkeys(model for _, model in scores))
    table = np.full((len(models), len(tasks)), np.nan, np.float32)
    for (item, model), value in scores.items():
        table[models.index(model), tasks.index(item)] = value
    key = ColumnKey(path.stem, f"rubric, two blind graders, tolerance {TOLERANCE}, adjudication", "grade")
    said = [
        f"{path.name}: {count_of(len(totals), 'answer')}, Krippendorff's alpha {alpha:.2f}, {adjudicated} adjudicated."
    ]
    if disputed:
        said.append(f"{path.name}: {count_of(disputed, 'answer')} with disagreeing grades and no adjudicator left out.")
    if single:
        said.append(f"{path.name}: {count_of(single, 'answer')} with one grade left out.")
    about = BoardResult("", key.benchmark, 0.0, source=str(path))
    items = ItemScores(key, tuple(models), tuple(tasks), table, abouts=(about,) * len(models))
    return GradedAnswers(items, alpha, len(totals), adjudicated, disputed, single, tuple(said))


def blind_sheet(
    answers: Iterable[tuple[str, str, str]], graders: Sequence[str], criteria: Sequence[str], *, seed: int = 0
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Rows to grade, each answer for two graders, without the models' names; and the key from code to model.

    Args:
        answers: (item, model, answer) of each answer.
        graders: Two or more names; each answer goes to two of them, as evenly as possible.
        criteria: The criteria of the rubric.
        seed: Of the codes, the pairs of graders, and the order.
    """
    if len(set(graders)) < 2 or not criteria:
        raise ConfigError("blind double grading needs two graders and a criterion: name them")
    draw = random.Random(seed)
    given = list(answers)
    draw.shuffle(given)
    codes: dict[str, str] = {}
    load = dict.fromkeys(graders, 0)
    rows = []
    for number, (item, model, answer) in enumerate(given):
        code = f"answer-{number + 1:04d}"
        codes[code] = model
        pair = sorted(graders, key=lambda each: (load[each], draw.random()))[:2]
        for grader in pair:
            load[grader] += 1
            rows += [
                {"item": item, "model": code, "grader": grader, "criterion": each, "answer": answer, "grade": ""}
                for each in criteria
            ]
    return rows, codes
