"""Writes a data set as a pytest file: a model that is put to its tasks again must solve what was solved before."""

from __future__ import annotations

import re

from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.scorers.reference_answers import accepted_answers, right_choice
from firsthand.studio.task_collection import TaskCollection
from firsthand.task import Task

_LETTER = re.compile(r"(?:[^\w+#]|_)*[^\W\d_](?:[^\w+#-]|_)*|[\W_]*")
"""A letter, as `A` and `(A)`, or signs alone. An article stands in nearly every answer: such a one must be all of it."""
_NUMBER = re.compile(r"\s*-?[0-9][0-9,]*(\.[0-9]+)?\s*")

_FILE = '''"""Made from a data set of the Studio: each of its tasks must be solved as well as it was when it was collected.

FIRSTHAND_TEST_MODEL and FIRSTHAND_TEST_PATTERN name another model and pattern than SmolLM2 and `direct`.
"""

import json
import os
import subprocess
import sys

import pytest

MODEL = os.environ.get("FIRSTHAND_TEST_MODEL", "smollm2")
PATTERN = os.environ.get("FIRSTHAND_TEST_PATTERN", "direct")
TASKS = [
{tasks}]
"""Name, question, choices, what its scorer compares with, scorer, and the score to reach."""
PROTOCOLS = {{
{protocols}}}
"""Name -> messages before the question, sampling settings, and the form of the answer, where they are fixed."""
BENCHMARK = """
import json
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.task import Task


def data_set():
    lines = Path(__file__).with_name("tasks.jsonl").read_text().splitlines()
    tasks = [Task.from_json(json.loads(line)) for line in lines]
    return Benchmark("data_set", lambda seed: tasks, (), description="Tasks of a data set.")
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Name of each task -> its score."""
    from firsthand import catalog
    from firsthand.runs import store
    from firsthand.task import Task

    home = tmp_path_factory.mktemp("data-set")
    rows = (
        json.dumps({{"id": name, "prompt": question, "choices": [], **PROTOCOLS.get(name, {{}})}})
        for name, question, *_ in TASKS
    )
    (home / "tasks.jsonl").write_text("".join(f"{{row}}\\n" for row in rows))
    (home / "data_set.py").write_text(BENCHMARK)
    command = [sys.executable, "-m", "firsthand", "run", "./data_set.py", "--model", MODEL, "--pattern", PATTERN]
    made = subprocess.run(
        command, cwd=home, env={{**os.environ, "FIRSTHAND_HOME": str(home)}}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    with store.open_run("last", home) as run:
        traces = {{row.task_id: run.trace(row.place) for row in run.rows()}}
    return {{
        name: catalog.scorer(scorer)(Task(name, question, tuple(choices), secret=secret), traces[name]).value
        for name, question, choices, secret, scorer, _ in TASKS
    }}


@pytest.mark.parametrize(("name", "bar"), [(each[0], each[5]) for each in TASKS])
def test_a_task_is_solved_as_well_as_before(scores, name, bar):
    assert scores[name] >= bar
'''


def as_regression_test(collection: TaskCollection) -> str:
    """Return the file. A task of a trace, whose recorded answer is the expected one, must be answered the same.

    A task with choices is judged by the one that the answer names, a number by the last number of the answer, and any other
    by whether the answer contains its words. These give 0 to 1: a task that was given more, such as 7.5 points, must reach
    1. ConfigError for a task that none of these can judge, such as one with tests.
    """
    lines, protocols = [], []
    for number, each in enumerate(collection.tasks, start=1):
        task, bar = each.task, 1.0 if each.score is None else max(0.0, min(1.0, each.score))
        secret, scorer = _expected(task)
        values = (f"{number} {task.id}", task.question, list(task.choices), secret, scorer, bar)
        lines.append(f"    ({', '.join(map(ascii, values))}),\n")
        if fixed := _protocol(task):
            protocols.append(f"    {values[0]!a}: {fixed!a},\n")
    return _FILE.format(tasks="".join(lines), protocols="".join(protocols))


def _protocol(task: Task) -> Json:
    """Returns the non-empty fields of the task's JSON, without its question."""
    names = ("conversation", "sampling", "verbatim", "last_line")
    return {name: value for name, value in task.to_json().items() if name in names and value}


def _expected(task: Task) -> tuple[Json, str]:
    """Returns the task's secret, with the answers to compare with, and the name of the scorer."""
    try:
        if task.choices:
            gold = right_choice(task)
            return {"answers": [task.letters[gold]], "gold": gold}, "choice"
        answers = accepted_answers(task)
    except DataError as error:
        raise ConfigError(
            f"no pytest file can judge this data set, as {error}; or take that task out, and copy its attempt as a test"
        ) from None
    if all(map(_NUMBER.fullmatch, answers)):
        return {"answers": answers}, "flexible"
    has_letter = any(map(_LETTER.fullmatch, answers))
    return {"answers": answers}, "normalised" if has_letter else "contains_words"
