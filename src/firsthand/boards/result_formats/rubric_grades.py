"""Reads experts' grades by a rubric: blind double grading, agreement by Krippendorff's alpha, adjudication.

A table with a row for each grade: item, model, grader, criterion, grade, and a role, `grader` or `adjudicator`. An answer is
scored if on each of its criteria two graders agree within the tolerance, by their mean, or an adjudicator graded it; any
other is left out and counted (the practice of Scale's SEAL boards). In a blind sheet the model is a code that stands for one
answer.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.boards.result_formats.score_tables import number_in
from firsthand.errors import ConfigError, DataError
from firsthand.stats.rater_agreement import krippendorff_alpha
from firsthand.system.plurals import count_of

TOLERANCE = 0.25
"""Two grades on a scale from 0 to 1 that differ by more need an adjudicator."""


@dataclass
class _Grades:
    """The grades of an answer on a criterion, by grader."""

    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    """Those of adjudicators."""

    @property
    def value(self) -> float | None:
        """The adjudicators' mean, or that of graders who agree; None if there is neither."""
        if self.last or (len(self.first) > 1 and not self.are_disputed):
            grades = self.last or self.first
            return sum(grades.values()) / len(grades)
        return None

    @property
    def are_disputed(self) -> bool:
        """True if graders disagree and nobody adjudicated."""
        given = self.first.values()
        return not self.last and len(given) > 1 and max(given) - min(given) > TOLERANCE


_ByAnswer = dict[tuple[str, str], dict[str, _Grades]]
"""By item and answer: the grades of each criterion, one without a grade included."""


@dataclass(frozen=True)
class GradedAnswers:
    """The summary of experts' grades."""

    items: ItemScores
    alphas: Mapping[str, float]
    """Criterion -> Krippendorff's alpha of its independent grades, interval level."""
    answers: int
    adjudicated: int
    open: int
    """Answers with a criterion that graders disagree on and nobody adjudicated; they are left out."""
    single: int
    """Answers that only one grader saw; they are left out."""
    unfinished: int
    """Other answers with a criterion that has fewer than two grades and no adjudicator's; they are left out."""
    remarks: tuple[str, ...]


def is_grades(columns: Mapping[str, Any]) -> bool:
    """True for a table of grades."""
    return {"item", "model", "grader", "grade"} <= set(columns)


def graded_answers(
    rows: Sequence[TableRow], path: Path, codes: Mapping[str, str] | None = None, about: BoardResult | None = None
) -> GradedAnswers:
    """The scores of all answers, the graders' agreement, and what was left out; a row without a grade does not count yet.

    Args:
        rows: A row for each grade.
        path: The file or folder they come from.
        codes: The model behind each code of a blind sheet, as `blind_sheet` gives it.
        about: The benchmark's name, date and run; without, the benchmark has the name of the path.

    Raises:
        DataError: A grade that is no number from 0 to 1 (or to the column `max`), or a grader who graded an answer twice.
    """
    by_answer, empty = _by_answer(rows)
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    units: dict[str, list[list[float]]] = {}
    adjudicated = disputed = single = unfinished = 0
    for (item, answer), criteria in by_answer.items():
        for criterion, grades in criteria.items():
            units.setdefault(criterion, []).append(list(grades.first.values()))
        place = scores[item, (codes or {}).get(answer, answer)]
        values = [grades.value for grades in criteria.values()]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            adjudicated += any(grades.last for grades in criteria.values())
            place.append(sum(known) / len(known))
        elif any(grades.are_disputed for grades in criteria.values()):
            disputed += 1
        elif len({grader for grades in criteria.values() for grader in (*grades.first, *grades.last)}) < 2:
            single += 1
        else:
            unfinished += 1
    means_by_place = {place: sum(each) / len(each) for place, each in scores.items() if each}
    if not means_by_place:
        left = f"{count_of(empty, 'grade')} still to be given; " if empty else ""
        raise DataError(
            f"{path} has no answer with two grades that agree, nor an adjudicator's ({left}{count_of(single, 'answer')} "
            f"with one grade, {disputed} disputed): grade each answer twice"
        )
    alphas = {
        name: krippendorff_alpha([x for x in each if len(x) > 1], level="interval") for name, each in units.items()
    }
    by_model: dict[str, dict[str, float]] = {}
    for (item, model), value in means_by_place.items():
        by_model.setdefault(model, {})[item] = value
    about = about or BoardResult("", path.stem, 0.0, source=str(path))
    key = ColumnKey(about.benchmark, f"rubric, two blind graders, tolerance {TOLERANCE}, adjudication", "grade")
    answers = count_of(len(by_answer), "answer")
    agreement = ", ".join(f"{name} {_alpha_text(alpha)}".strip() for name, alpha in alphas.items())
    said = [f"{path.name}: {answers}, Krippendorff's alpha {agreement}, {adjudicated} adjudicated."]
    if disputed:
        told = count_of(disputed, "answer")
        said.append(f"{path.name}: {told} with disagreeing grades and no adjudicator left out.")
    if single:
        said.append(f"{path.name}: {count_of(single, 'answer')} with one grade left out.")
    if unfinished:
        told = count_of(unfinished, "answer")
        said.append(f"{path.name}: {told} without two grades on each criterion left out.")
    if empty:
        said.append(f"{path.name}: {count_of(empty, 'grade')} still to be given.")
    items = ItemScores.of(key, by_model, [about] * len(by_model))
    return GradedAnswers(items, alphas, len(by_answer), adjudicated, disputed, single, unfinished, tuple(said))


def _alpha_text(alpha: float) -> str:
    return "not defined where all grades are equal" if math.isnan(alpha) else f"{alpha:.2f}"


def disputed_answers(rows: Sequence[TableRow]) -> set[tuple[str, str]]:
    """Item and model, or code, of each answer with a criterion that graders disagree on and nobody adjudicated."""
    by_answer = _by_answer(rows)[0]
    return {answer for answer, criteria in by_answer.items() if any(each.are_disputed for each in criteria.values())}


def _by_answer(rows: Sequence[TableRow]) -> tuple[_ByAnswer, int]:
    """The grades by item, answer and criterion, of answers that have any; and how many rows have no grade yet."""
    by_answer: _ByAnswer = defaultdict(lambda: defaultdict(_Grades))
    empty = 0
    for row in rows:
        text = {
            name: str(row.columns.get(name) or "").strip() for name in ("item", "model", "grader", "criterion", "role")
        }
        if missing := [name for name in ("item", "model", "grader") if not text[name]]:
            raise DataError(f"{row.where}: {missing[0]} is empty: each grade names its item, model and grader")
        if text["role"] not in ("", "grader", "adjudicator"):
            raise DataError(f"{row.where}: the role is {text['role']!r:.40}: give grader or adjudicator")
        grades = by_answer[text["item"], text["model"]][text["criterion"]]
        if not str(row.columns.get("grade") if row.columns.get("grade") is not None else "").strip():
            empty += 1
            continue
        grade, top = number_in(row, "grade"), number_in(row, "max") or 1.0
        if grade is None or not 0 <= grade <= top:
            raise DataError(
                f"{row.where}: the grade is {row.columns.get('grade')!r:.40}: give a number from 0 to {top:g}"
            )
        given = grades.last if text["role"] == "adjudicator" else grades.first
        if text["grader"] in given:
            raise DataError(
                f"{row.where}: {text['grader']} graded {text['item']!r} of {text['model']} twice: keep one grade"
            )
        given[text["grader"]] = grade / top
    graded = {
        answer: criteria
        for answer, criteria in by_answer.items()
        if any(each.first or each.last for each in criteria.values())
    }
    return graded, empty


def blind_sheet(
    answers: Iterable[tuple[str, str, str]], graders: Sequence[str], criteria: Sequence[str], *, seed: int = 0
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Rows to grade, each answer for two graders, without the models' names; and the key from code to model.

    Args:
        answers: (item, model, answer) of each answer.
        graders: Two or more names, each counted once; an answer goes to two of them, as evenly as possible.
        criteria: The criteria of the rubric.
        seed: Of the codes, the pairs of graders, and the order.
    """
    graders = list(dict.fromkeys(graders))
    if len(graders) < 2 or not criteria:
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
