"""Writes a data set as a pytest file: a model that is put to its tasks again must solve what was solved before."""

from __future__ import annotations

import re

from firsthand.studio.task_collection import TaskCollection

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
SCORER = {scorer!a}
TASKS = [
{tasks}]
"""Name, question, expected answer, and the score to reach."""
BENCHMARK = """data = "tasks.jsonl"
prompt = "{{question}}"
target = "{{answer}}"
id = "{{id}}"
scorer = [%s]
""" % json.dumps(SCORER)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Name of each task -> its score."""
    from firsthand.runs import store

    home = tmp_path_factory.mktemp("data-set")
    rows = (json.dumps({{"id": name, "question": question, "answer": answer}}) for name, question, answer, _ in TASKS)
    (home / "tasks.jsonl").write_text("".join(f"{{row}}\\n" for row in rows))
    (home / "tasks.toml").write_text(BENCHMARK)
    command = [sys.executable, "-m", "firsthand", "run", "./tasks.toml", "--model", MODEL, "--pattern", PATTERN]
    made = subprocess.run(
        command, cwd=home, env={{**os.environ, "FIRSTHAND_HOME": str(home)}}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    with store.open_run("last", home) as run:
        return {{each.task: each.mean for each in run.task_means()}}


@pytest.mark.parametrize(("name", "bar"), [(each[0], each[3]) for each in TASKS])
def test_a_task_is_solved_as_well_as_before(scores, name, bar):
    assert scores[name] is not None and scores[name] >= bar
'''


def as_regression_test(collection: TaskCollection) -> str:
    """The file. A task of a trace, whose recorded answer is the expected one, must be answered the same."""
    lines, answers = [], []
    for number, each in enumerate(collection.tasks, start=1):
        bar = 1.0 if each.score is None else each.score
        answers.append(str(each.task.secret.get("answer", "")))
        lines.append(f"    ({f'{number} {each.task.id}'!a}, {each.task.question!a}, {answers[-1]!a}, {bar!r}),\n")
    scorer = "flexible" if all(map(_NUMBER.fullmatch, answers)) else "contains_words"
    return _FILE.format(scorer=scorer, tasks="".join(lines))
