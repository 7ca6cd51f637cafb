"""Writes and reads the folder of a blind double grading: a sheet for each grader, and the models behind the codes.

`FOLDER/ann.csv` holds the answers that ann grades, under codes in place of the models' names; `FOLDER/codes.json` holds the
models and is for nobody who grades. An adjudicator's sheet holds the answers that two graders disagree on.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from firsthand.benchmarks.sources.tables import TableRow, read_table
from firsthand.boards.board_results import BoardResult
from firsthand.boards.result_formats.rubric_grades import (
    GradedAnswers,
    blind_sheet,
    disputed_answers,
    graded_answers,
    is_grades,
)
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.runs.run_folder import Run
from firsthand.system.given_folder import files_below
from firsthand.system.new_file import write_new
from firsthand.system.own_file import read_own_json
from firsthand.system.spreadsheet_cells import plain_cell

CODES = "codes.json"
COLUMNS = ("item", "model", "grader", "role", "criterion", "prompt", "answer", "grade")


def write_sheets(
    run: Run, folder: Path, graders: Sequence[str], criteria: Sequence[str], *, seed: int = 0
) -> dict[str, int]:
    """Write a sheet for each grader of a run's answers, each answer in two of them; the number of answers of each.

    Attempts without an answer are left out: they have nothing to grade.

    Raises:
        ConfigError: Fewer than two graders, a name that is no file name, no answer, or a folder that exists.
    """
    for name in graders:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"the grader is {name!r:.60}: give a name of letters, digits, dots and hyphens")
    if folder.exists():
        raise ConfigError(f"{folder} exists: grading would overwrite it; name a new folder")
    prompts: dict[str, str] = {}
    answers = []
    several = len(run.benchmarks()) > 1
    for trace in run.traces():
        if trace.answer is None:
            continue
        item = f"{trace.benchmark}/{trace.task_id}" if several else trace.task_id
        task = run.task(trace.benchmark, trace.task_id)
        prompts[item] = task.prompt if task is not None else ""
        answers.append((item, trace.agent_name, trace.answer))
    if not answers:
        raise ConfigError(f"run {run.id} has no answer to grade: name a run with finished attempts")
    rows, codes = blind_sheet(answers, graders, criteria, seed=seed)
    by_grader: dict[str, list[Json]] = {name: [] for name in graders}
    for row in rows:
        by_grader[row["grader"]].append({**row, "role": "grader", "prompt": prompts[row["item"]]})
    _make(folder)
    when = run.created_at[:19] + "+00:00" if run.created_at else ""
    commit = str(run.about.get("commit") or "")
    _write_json(folder / CODES, {"run": run.id, "when": when, "commit": commit, "models": codes})
    for name, given in by_grader.items():
        _write_sheet(folder / f"{name}.csv", given)
    return {name: len({row["model"] for row in given}) for name, given in by_grader.items()}


def write_adjudication(folder: Path, adjudicator: str) -> int:
    """Write a sheet of the answers that graders disagree on, both grades beside them; the number of answers.

    Raises:
        ConfigError: A name that has a sheet already, or no disagreement.
    """
    path = folder / f"{adjudicator}.csv"
    has_sheet = os.path.lexists(path)  # a link to nothing too
    if has_sheet or not re.fullmatch(r"\w[\w.-]*", adjudicator):
        told = "has a sheet already" if has_sheet else "is no name of letters, digits, dots and hyphens"
        raise ConfigError(f"the adjudicator {adjudicator!r:.60} {told}: name somebody else")
    graded = _rows(folder)
    disputed = disputed_answers(graded)
    if not disputed:
        raise ConfigError(f"{folder} has no answer that two graders disagree on: there is nothing to adjudicate")
    rows: dict[tuple[str, str, str], Json] = {}
    for row in graded:
        columns = row.columns
        if (columns["item"], columns["model"]) not in disputed:
            continue
        criterion = str(columns.get("criterion") or "")
        place = rows.setdefault(
            (columns["item"], columns["model"], criterion),
            {**columns, "grader": adjudicator, "role": "adjudicator", "grade": "", "given": ""},
        )
        place["given"] = "; ".join(filter(None, [place["given"], f"{columns['grader']} {columns['grade']}"]))
    _write_sheet(path, list(rows.values()), (*COLUMNS[:-1], "given", "grade"))
    return len(disputed)


def is_grading(folder: Path) -> bool:
    """True for a folder that `write_sheets` made."""
    return (folder / CODES).is_file()


def read_sheets(folder: Path) -> GradedAnswers:
    """The grades of all sheets of the folder, by the models behind the codes."""
    codes, run, when, commit = _codes(folder)
    about = BoardResult("", folder.name, 0.0, when=when, source=str(folder), run=run, commit=commit)
    return graded_answers(_rows(folder), folder, codes, about)


def _rows(folder: Path) -> list[TableRow]:
    rows: list[TableRow] = []
    for path in (each for each in files_below(folder, "*.csv") if each.parent == folder):
        read = read_table(path)
        if not is_grades(read[0].columns):
            raise DataError(f"{path} is no grading sheet: it lacks the columns item, model, grader and grade")
        rows += read
    if not rows:
        raise DataError(f"{folder} has no grading sheets beside {CODES}: put the graders' .csv files back")
    codes = _codes(folder).models
    if strange := next((row for row in rows if row.columns["model"] not in codes), None):
        raise DataError(f"{strange.where}: {str(strange.columns['model'])[:60]!r} is no code of {folder / CODES}")
    return rows


class _Codes(NamedTuple):
    models: dict[str, str]
    run: str
    when: str
    commit: str


def _codes(folder: Path) -> _Codes:
    path = folder / CODES
    try:
        body = read_own_json(path)
        found = _Codes(body["models"], body["run"], body["when"], body["commit"])
        if not all(isinstance(each, str) for each in (*found[1:], *found.models.values())):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} does not hold the models of codes: restore the file as it was written") from None
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}") from None


def _write_json(path: Path, body: Json) -> None:
    write_new(path, json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def _write_sheet(path: Path, rows: Sequence[Json], columns: Sequence[str] = COLUMNS) -> None:
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(columns)
    table.writerows([plain_cell(row.get(name, "")) for name in columns] for row in rows)
    write_new(path, text.getvalue())
