"""Rows of an own table that ask the same question are one cluster: copies are no further evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.message import Json

TOML = 'data = "t.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nscorer = ["exact"]\n'


def own(folder: Path, rows: list[Json], toml: str = TOML, **more: Any) -> Benchmark:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.toml").write_text(toml + "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items()))
    return catalog.benchmark(str(folder / "mine.toml"))


def clusters(made: Benchmark) -> list[str | None]:
    return [task.cluster for task in made.tasks(0)]


def test_copies_are_a_cluster_and_the_protocol_counts_questions(tmp_path: Path) -> None:
    made = own(tmp_path, [{"q": f"Q{n}", "a": "yes"} for n in (0, 1, 0, 2, 0, 1)])
    first, second = "the question of row-00000", "the question of row-00001"
    assert clusters(made) == [first, second, first, None, first, second]
    assert made.protocol == "t.jsonl, 6 rows, 3 different questions; 0-shot; '{q}'"


def test_a_table_without_copies_is_as_it_was(tmp_path: Path) -> None:
    made = own(tmp_path, [{"q": f"Q{n}", "a": "yes"} for n in range(3)])
    assert clusters(made) == [None] * 3 and [task.metadata for task in made.tasks(0)] == [{}] * 3
    assert made.protocol == "t.jsonl, 3 rows; 0-shot; '{q}'"


def test_one_question_with_two_targets_is_named(tmp_path: Path) -> None:
    made = own(
        tmp_path, [{"q": "Q", "a": "yes", "n": 1}, {"q": "Q", "a": "yes", "n": 2}, {"q": "Q", "a": "no", "n": 3}]
    )
    assert len(set(clusters(made))) == 1
    assert "3 rows, 1 different question; " in made.protocol
    told = "; CONTRADICTION: 1 row asks what an earlier row asks, with another target (line 3)"
    assert made.protocol.endswith(told)
    many = own(tmp_path, [{"q": "Q", "a": str(n)} for n in range(8)])
    assert (
        "7 rows ask what an earlier row asks, with another target (line 2, line 3, line 4, line 5, line 6 and 2 more)"
        in (many.protocol)
    )


def test_a_cluster_that_is_given_stays(tmp_path: Path) -> None:
    made = own(tmp_path, [{"q": "Q", "a": "yes", "c": "x"}, {"q": "Q", "a": "yes", "c": "y"}], cluster="{c}")
    assert clusters(made) == ["x", "y"]
    assert "2 rows, 1 different question" in made.protocol


def test_questions_of_two_strata_are_not_joined(tmp_path: Path) -> None:
    rows = [{"q": "Q", "a": "yes", "s": stratum} for stratum in "xyyx"] + [{"q": "Q", "a": "yes", "s": "z"}]
    made = own(tmp_path, rows, stratum="{s}")
    x, y = "the question of row-00000", "the question of row-00001"
    assert clusters(made) == [x, y, y, x, None]


@pytest.mark.parametrize(("other", "same"), [(["no", "yes"], False), (["yes", "no"], True)])
def test_other_choices_are_another_question(tmp_path: Path, other: list[str], same: bool) -> None:
    toml = 'data = "t.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nchoices = ["c"]\n'
    rows = [{"q": "Q", "a": "yes", "c": ["yes", "no"]}, {"q": "Q", "a": "yes", "c": other}]
    assert (clusters(own(tmp_path, rows, toml))[0] is not None) == same


@pytest.mark.parametrize("same", [True, False])
def test_other_messages_before_it_are_another_question(tmp_path: Path, same: bool) -> None:
    said = [[{"role": "user", "content": text}] for text in ("Hello", "Hello" if same else "Bye")]
    made = own(tmp_path, [{"q": "Q", "a": "yes", "m": each} for each in said], conversation="m")
    assert (clusters(made)[0] is not None) == same


def test_other_examples_before_it_are_the_same_question(tmp_path: Path) -> None:
    toml = (
        'data = "t.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nchoices = ["yes", "no"]\nshots = 1\nexamples = "t.jsonl"\n'
    )
    made = own(tmp_path, [{"q": "Q", "a": "yes"}, {"q": "Q", "a": "no"}, {"q": "R", "a": "no"}], toml)
    assert clusters(made) == ["the question of row-00000"] * 2 + [None]
