"""Small facts of runs: which attempts are samples, numbers that are empty, many agents, and the machine."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.runs import attempts, later_scores, score_totals
from firsthand.runs.attempts import insert_trace
from firsthand.runs.database import Database, put
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import describe_machine
from firsthand.trace import Score, Trace
from made_traces import trace


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / DATABASE, create=True)
    yield made
    made.close()


def keep(database: Database, *made: Trace) -> None:
    with database.write() as connection:
        for each in made:
            insert_trace(connection, each)


def score(database: Database, made: Trace, number: int, name: str, value: float | None) -> None:
    given = Score(name, 0.0, failure="E: no") if value is None else Score(name, value)
    with database.write() as connection:
        later_scores.insert_score(connection, "r", made, number, name, "by", given)


def test_a_sample_is_a_latest_try_with_a_value_one_for_its_own_and_one_for_each_name(database: Database) -> None:
    twice, once, own = (trace(f"{n}", place=f"p{n}", scores=()) for n in range(3))
    zero = trace("c", "t", 0.0, place="q", benchmark="c")
    keep(database, twice, twice, once, own, zero)
    for made, number, name, value in (
        (twice, 1, "early", 1.0), (twice, 2, "late", 0.0), (once, 1, "failed", None), (once, 1, "mended", None),
        (once, 1, "mended", 0.5), (own, 1, "own", 1.0), (zero, 1, "elsewhere", 1.0), (once, 1, "n\ud800", 1.0),
        (twice, 1, "both", 1.0), (once, 1, "both", 1.0),
    ):  # fmt: skip
        score(database, made, number, name, value)
    names = ["early", "late", "failed", "mended", "own", "elsewhere", "n\ud800", "both", "none"]
    assert {name: attempts.samples(database, "b", [name]) for name in names} == {
        "early": [], "late": ["p0"], "failed": [], "mended": ["p1"], "own": ["p2"], "elsewhere": [], "n\ud800": ["p1"],
        "both": ["p1"], "none": [],
    }  # fmt: skip
    assert attempts.samples(database, "b", names) == ["p0", "p1", "p2"]
    assert attempts.samples(database, "b", ["own", "both", "late", "mended"]) == ["p2", "p1", "p0"]
    assert attempts.samples(database, "b", ()) == [] == attempts.samples(database, "none", names)
    assert attempts.samples(database, "c", names) == ["q"] == attempts.samples(database, "c", ())
    keep(database, trace("3", "t", 0.5, place="p3"), trace("4", "t", None, place="p3"))
    assert attempts.samples(database, "b", ["own"]) == ["p2"], "the latest try of p3 has none of its own"
    keep(database, trace("5", "t", 0.0, place="p1"), trace("6\ud800", "t", 0.0, place="s", benchmark="d\ud800"))
    assert attempts.samples(database, "b", ["own", "both", "mended"]) == ["p1", "p2"], "p1 was tried again since"
    assert attempts.samples(database, "d\ud800", ["own"]) == ["s"]


def test_numbers_that_are_empty_are_damage_and_those_that_are_not_there_are_read_from_the_body(
    database: Database,
) -> None:
    made = trace("1", scores=())
    keep(database, made)
    score(database, made, 1, "later", 0.25)
    given = {("bta0", 1): {"later": Score("later", 0.25)}}
    assert attempts._later_scores(database) == given
    for table in ("scores", "traces"):
        kept = database.read(f"SELECT numbers FROM {table}")[0]
        for numbers in ("", "[]", "0", "null", None, *kept):
            with database.write() as connection:
                connection.execute(f"UPDATE {table} SET numbers = ?", (numbers,))
            if numbers in (None, *kept):
                [summary] = attempts.summaries(database, None, None)
                assert (summary.id, summary.scores) == ("1", (Score("later", 0.25),))
                assert attempts._later_scores(database) == given
            else:
                with pytest.raises(StoreError, match="is damaged: a record is not what was expected: "):
                    list(attempts.summaries(database, None, None))


def test_forty_benchmarks_and_agents_are_all_paired(database: Database) -> None:
    expected = [(f"b{n // 8}", f"a{n % 8}") for n in range(40)]
    keep(database, *(trace(f"{n}", agent=agent, benchmark=b) for n, (b, agent) in enumerate(reversed(expected))))
    assert score_totals.pairs(database) == expected
    assert [(each.benchmark, each.agent, each.tasks) for each in score_totals.totals(database)] == [
        (benchmark, agent, 1) for benchmark, agent in expected
    ]
    with database.write() as connection:
        for name in ("a9", "a5", "a1"):  # in the order in which the run met them, those that it did not at the end
            connection.execute("INSERT INTO agents VALUES (?, ?)", (name, put(connection, {})))
    order = ["a5", "a1", "a0", "a2", "a3", "a4", "a6", "a7"]
    assert score_totals.pairs(database) == [(f"b{n}", agent) for n in range(5) for agent in order]


def test_a_machine_is_told_by_its_processor_or_else_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "platform", lambda: "Some-System-1.2")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
    for processor, cores, told in (("Fast Chip 9", 7, "Fast Chip 9"), ("", None, "x86_64"), ("x86_64", 1, "x86_64")):
        monkeypatch.setattr(platform, "processor", lambda processor=processor: processor)
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert describe_machine() == {
            "system": "Some-System-1.2", "processor": told, "cores": cores, "python": "3.99.1",
            "sqlite": sqlite3.sqlite_version,
        }  # fmt: skip
