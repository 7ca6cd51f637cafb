"""Targets of a table with choices, read as one column: texts, letters or indices from 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import refused
from firsthand.benchmarks.sources.choice_targets import Target, TargetKind, golds
from firsthand.benchmarks.sources.own import BenchmarkDescription, read_benchmark
from firsthand.errors import ConfigError, DataError

DIGITS, BLOOD, TOWNS = ("1", "2", "3", "4"), ("O", "A", "B", "AB"), ("Rome", "Paris", "Bern", "Oslo")


def column(*rows: tuple[str, tuple[str, ...]]) -> list[Target]:
    return [Target(text, choices, f"t.csv, line {at}") for at, (text, choices) in enumerate(rows, 2)]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([("0", DIGITS), ("1", DIGITS), ("2", DIGITS), ("1", TOWNS)], [0, 1, 2, 1]),  # indices: Paris has no 1
        ([("1", DIGITS), ("2", DIGITS), ("4", DIGITS)], [0, 1, 3]),  # texts: there is no choice after the fourth
        ([("1", DIGITS), ("Paris", TOWNS)], [0, 1]),  # texts
        ([("A", BLOOD), ("C", BLOOD)], [0, 2]),  # letters: C is no group
        ([("A", BLOOD), ("AB", BLOOD)], [1, 3]),  # texts
        ([("a", ("a", "the", "no")), ("the", ("the", "a", "an"))], [0, 0]),
        ([("1", ("0", "1", "2")), ("2", ("0", "1", "2"))], [1, 2]),  # the same both ways
        ([("b", TOWNS), ("D", TOWNS)], [1, 3]),
        ([("000000001", TOWNS)], [1]),
        ([("b", TOWNS), ("Oslo", TOWNS), ("0", TOWNS)], [1, 3, 0]),  # mixed, each form in one way
        (
            [("0", DIGITS), ("1", DIGITS), ("Paris", TOWNS), ("1", TOWNS)],
            [0, 1, 1, 1],
        ),  # mixed: the numbers are indices
        ([("A", BLOOD), ("D", BLOOD), ("2", TOWNS)], [0, 3, 2]),  # mixed: the letters are letters
        ([("x", ("x", "y", "x", "X")), ("B", TOWNS)], None),
        ([("A", ("A", "B", "A", "C"))], [0]),  # the text of two choices is none's
        ([("Z", ("Z", "y")), ("a", ("p", "q")), ("q", ("p", "q"))], None),
    ],
)
def test_targets_are_read_in_the_one_way_that_fits_every_row(rows: list[Any], found: list[int] | None) -> None:
    if found is None:
        assert "line" in refused(DataError, golds, column(*rows))
    else:
        assert golds(column(*rows)) == found
        assert golds(column(*reversed(rows))) == found[::-1]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [("1", DIGITS)],
            "t.csv, line 2: the target '1' is '1' as a text and '2' as an index, and all rows like it can be read both "
            'ways: say which with target_is = "text" or "index"',
        ),
        (
            [("1", TOWNS), ("B", BLOOD), ("A", BLOOD)],
            "t.csv, line 3: the target 'B' is 'B' as a text and 'A' as a letter, and all rows like it can be read both "
            'ways: say which with target_is = "text" or "letter"',
        ),
        (
            [("1", TOWNS), ("2", DIGITS), ("4", ("3", "4", "5", "6")), ("A", TOWNS)],
            "t.csv, line 4: the target '4' is not an index from 0 of its choices, as '1' is (t.csv, line 2): write all "
            "targets in one way",
        ),
        (
            [("2", DIGITS), ("4", DIGITS), ("3", TOWNS), ("Rome", TOWNS)],
            "t.csv, line 4: the target '3' is not the text of one of its choices, as '4' is (t.csv, line 3): write all "
            "targets in one way",
        ),
        ([("A", TOWNS), ("E", TOWNS)], "t.csv, line 3: the target 'E' is not a letter, index from 0, or text of 4 choices"),
    ],
)  # fmt: skip
def test_targets_that_are_read_in_two_ways_are_asked_about(rows: list[Any], told: str) -> None:
    assert refused(DataError, golds, column(*rows)) == told


@pytest.mark.parametrize("text", ["4", "E", "-1", "z", "1.0", "0000000001", "q"])
def test_a_target_that_is_no_choice_is_refused(text: str) -> None:
    told = f"t.csv, line 2: the target {text!r} is not a letter, index from 0, or text of 4 choices"
    assert refused(DataError, golds, column((text, ("p", "q", "z z", "q")))) == told


@pytest.mark.parametrize(
    ("kind", "found", "bad", "expected"),
    [
        ("text", [0, 1], ("0", DIGITS), "the text of one of 4 choices"),
        ("index", [1, 2], ("4", DIGITS), "an index from 0 of 4 choices"),
        ("letter", None, ("1", DIGITS), "the letter of one of 4 choices"),
    ],
)
def test_targets_are_of_the_kind_that_is_named(
    kind: TargetKind, found: list[int] | None, bad: tuple[str, tuple[str, ...]], expected: str
) -> None:
    if found:
        assert golds(column(("1", DIGITS), ("2", DIGITS)), kind) == found
    else:
        assert golds(column(("A", BLOOD), ("b", BLOOD)), kind) == [0, 1]
    told = f"t.csv, line 2: the target {bad[0]!r} is not {expected}"
    assert refused(DataError, golds, column(bad), kind) == told


def written(folder: Path, toml: str, *rows: dict[str, Any]) -> Path:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "t.toml"
    path.write_text(f'data = "t.jsonl"\nprompt = "{{q}}"\n{toml}')
    return path


def right(path: Path) -> list[int]:
    return [task.secret["gold"] for task in read_benchmark(path).tasks(0)]


def test_indices_of_ones_own_benchmark_stay_indices_where_a_choice_is_a_number(tmp_path: Path) -> None:
    rows = [{"q": "1 + 1", "c": list(DIGITS), "a": 1}, {"q": "France", "c": list(TOWNS), "a": 1}]
    toml = 'target = "{a}"\nchoices = ["c"]\n'
    assert right(written(tmp_path, toml, *rows)) == [1, 1]
    assert right(written(tmp_path, toml, *rows[::-1])) == [1, 1]
    said = refused(DataError, read_benchmark, written(tmp_path, toml, rows[0]))
    assert said.startswith(f"{tmp_path / 't.jsonl'}, line 1: the target '1' is '1' as a text and '2' as an index")
    assert right(written(tmp_path, toml + 'target_is = "index"\n', rows[0])) == [1]
    assert right(written(tmp_path, toml + 'target_is = "text"\n', rows[0])) == [0]


def test_a_target_that_is_the_template_of_a_choice_is_a_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'target = "{yes}"\nchoices = ["{yes}", "{no}"]\n', {"q": "Is it?", "yes": 1, "no": 0})
    assert right(path) == [0]


def test_examples_are_read_as_the_rows_are(tmp_path: Path) -> None:
    toml = 'target = "{a}"\nchoices = ["c"]\nshots = 1\nexamples = "e.jsonl"\n'
    path = written(tmp_path, toml, {"q": "France", "c": list(TOWNS), "a": 1}, {"q": "Italy", "c": list(TOWNS), "a": 0})
    example = {"q": "1 + 1", "c": list(DIGITS), "a": 1}
    (tmp_path / "e.jsonl").write_text(json.dumps(example) + "\n" + json.dumps({**example, "a": "not shown"}) + "\n")
    made = read_benchmark(path)
    assert [task.secret["gold"] for task in made.tasks(0)] == [1, 0]
    assert {task.context for task in made.tasks(0)} == {"1 + 1 2\n\nFrance", "1 + 1 2\n\nItaly"}


def test_a_kind_of_targets_needs_choices_and_is_one_of_three(tmp_path: Path) -> None:
    told = "target_is is 'index' and there are no choices: leave it out, or give the choices"
    assert refused(ConfigError, BenchmarkDescription, data="d", prompt="{q}", target="{a}", target_is="index") == told
    path = written(tmp_path, 'target = "{a}"\nchoices = ["c"]\ntarget_is = "number"\n', {"q": "q"})
    assert "target_is" in refused(ConfigError, read_benchmark, path)
