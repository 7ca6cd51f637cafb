"""A board does not rank runs of other tasks under the same ids as if the tasks were one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import MadeBoard, make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import write_result_file
from firsthand.boards.task_sets import TaskSets, problems_of, tasks_hash
from firsthand.errors import ConfigError, DataError
from firsthand.runs.store import Run, create
from firsthand.runs.task_groups import problem_digest, same_problem
from firsthand.task import Task
from firsthand.trace import Score, Trace

SIZE = 40


def plain(n: int) -> Task:
    return Task(f"row-{n}", f"question {n}", secret={"target": "yes"})


def stored(home: Path, name: str, num_right: int, task: Callable[[int], Task] = plain, size: int = SIZE) -> Run:
    run = create(home, {}, name)
    run.add_tasks("mine", [task(n) for n in range(size)])
    run.add_agent(name, {"name": name})
    for n in range(size):
        score = Score("exact", float(n < num_right))
        run.append(Trace(f"{name}-{n}", "mine", f"row-{n}", {"name": name}, 0, 0, "", 1.0, scores=(score,)))
    return run


def board(home: Path, *runs: Run, rule: str = "each") -> MadeBoard:
    return make_board(read_results([run.path for run in runs], home), BoardSpec(rule=rule))  # type: ignore[arg-type]


def models(made: MadeBoard) -> list[list[str]]:
    return [[line.model for line in section.lines] for section in made.sections]


def test_runs_without_a_task_in_common_have_tables_of_their_own(tmp_path: Path) -> None:
    easy = stored(tmp_path, "weak", SIZE)
    hard = stored(tmp_path, "strong", 0, lambda n: Task(f"row-{n}", f"hard {n}", secret={"target": "yes"}))
    again = stored(tmp_path, "third", 1, lambda n: Task(f"row-{n}", f"hard {n}", secret={"target": "yes"}))
    made = board(tmp_path, easy, hard, again)
    assert models(made) == [["weak"], ["third", "strong"]]
    assert hard.id in made.sections[1].title and hard.id not in made.sections[0].title
    told = f"mine: 40 of the 40 tasks that {easy.id} and {hard.id} both have by id are other tasks: the two are in"
    assert any(each.startswith(told) for each in made.remarks)
    with pytest.raises(ConfigError, match=r"2 protocols, .*the tasks of .*choose one with --protocol"):
        board(tmp_path, easy, hard, rule="weighted")


def test_another_reference_answer_is_another_task_and_another_cluster_is_not(tmp_path: Path) -> None:
    one = stored(tmp_path, "one", SIZE)
    other = stored(tmp_path, "two", 0, lambda n: Task(f"row-{n}", f"question {n}", secret={"target": "no"}))
    assert models(board(tmp_path, one, other)) == [["one"], ["two"]]
    grouped = stored(tmp_path, "three", 0, lambda n: Task(**vars(plain(n)) | {"metadata": {"cluster": f"c{n // 2}"}}))
    made = board(tmp_path, one, grouped)
    assert models(made) == [["one", "three"]] and not made.remarks


def test_few_changed_tasks_count_as_different_items(tmp_path: Path) -> None:
    one = stored(tmp_path, "one", 20)
    two = stored(tmp_path, "two", 20, lambda n: plain(n) if n else Task("row-0", "mended", secret={"target": "yes"}))
    three = stored(
        tmp_path, "three", 20, lambda n: plain(n) if n else Task("row-0", "mended", secret={"target": "yes"})
    )
    made = board(tmp_path, one, two, three)
    assert [sorted(each) for each in models(made)] == [["one", "three", "two"]]
    told = (
        f"mine: 1 of the 40 tasks that {one.id} and {two.id} both have by id is another task: these count as different"
    )
    assert any(each.startswith(told) for each in made.remarks)
    assert sum("has no score on 1 of the 41 items" in each for each in made.remarks) == 3


def test_a_figure_has_a_column_of_its_own_where_one_task_is_another(tmp_path: Path) -> None:
    runs = [
        stored(tmp_path, "one", 1),
        stored(tmp_path, "two", 1, lambda n: plain(n) if n else Task("row-0", "mended")),
    ]
    sets = TaskSets()
    found = [
        sets.place(BoardResult("m", "mine", 0.5, "5-shot", "bleu"), run.id, run.id, problems_of(run)) for run in runs
    ]
    assert [each.key.protocol for each in found] == ["5-shot", f"5-shot; the tasks of {runs[1].id}"]
    assert sets.place(
        BoardResult("m", "mine", 0.5, "5-shot", "rouge"), "file", "file", problems_of(runs[1])
    ).key == ColumnKey("mine", "5-shot", "rouge")


def test_a_part_of_the_tasks_is_in_the_same_table(tmp_path: Path) -> None:
    made = board(tmp_path, stored(tmp_path, "whole", 30), stored(tmp_path, "part", 9, size=9))
    assert models(made) == [["part", "whole"]]
    assert [each for each in made.remarks if "other task" in each] == []


def test_tasks_that_the_second_run_brings_are_known_to_the_third(tmp_path: Path) -> None:
    part, whole = stored(tmp_path, "part", 5, size=9), stored(tmp_path, "whole", 5)
    other = stored(tmp_path, "other", 5, lambda n: plain(n) if n < 9 else Task(f"row-{n}", f"hard {n}"))
    made = board(tmp_path, part, whole, other)
    assert any("31 of the 40 tasks" in each and each.endswith("count as different items.") for each in made.remarks)


def test_the_hash_of_tasks_is_of_their_content(tmp_path: Path) -> None:
    def hashed(run: Run) -> str:
        return read_results([run.path], tmp_path).results[0].data_hash

    one, same = stored(tmp_path, "one", 1), stored(tmp_path, "same", 2)
    other = stored(tmp_path, "two", 0, lambda n: Task(f"row-{n}", f"hard {n}"))
    assert hashed(one) == hashed(same) != hashed(other)
    assert tasks_hash(["a", "b"], {}) == tasks_hash(["b", "a"], {}) != tasks_hash(["a"], {})


def test_equal_digests_are_of_the_same_problem() -> None:
    tasks = [
        plain(0), plain(1), Task("row-0", "question 0", secret={"target": "no"}),
        Task("row-0", "question 0", ("a",), secret={"target": "yes"}),
        Task("row-0", "question 0", metadata={"stratum": "s", "cluster": "c"}, secret={"target": "yes"}),
    ]  # fmt: skip
    for one in tasks:
        for other in tasks:
            assert (problem_digest(one) == problem_digest(other)) == same_problem(one, other)


def test_a_file_of_results_holds_what_the_tasks_were(tmp_path: Path) -> None:
    easy, again = stored(tmp_path, "weak", SIZE), stored(tmp_path, "same", 1)
    hard = stored(tmp_path, "strong", 0, lambda n: Task(f"row-{n}", f"hard {n}", secret={"target": "yes"}))
    files = []
    for run in (easy, hard):
        files.append(tmp_path / f"{run.id}.results")
        write_result_file(files[-1], read_results([run.path], tmp_path))
    for sources in (files, [files[0], hard.path], [easy.path, files[1]]):
        made = make_board(read_results(sources, tmp_path), BoardSpec())
        assert models(made) == [["weak"], ["strong"]] and hard.id in made.sections[1].title
    merged = tmp_path / "merged.results"
    write_result_file(merged, read_results([easy.path, again.path], tmp_path))
    assert models(make_board(read_results([merged, hard.path], tmp_path), BoardSpec())) == [
        ["weak", "same"],
        ["strong"],
    ]
    both = tmp_path / "both.results"
    write_result_file(both, read_results([easy.path, hard.path], tmp_path))
    made = make_board(read_results([both, hard.path, again.path], tmp_path), BoardSpec())
    assert models(made) == [["weak", "same"], ["strong"]]


def test_a_file_with_too_few_digests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.results"
    write_result_file(path, read_results([stored(tmp_path, "one", 1).path], tmp_path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE item_columns SET problems = '[\"a\"]'")
    with pytest.raises(DataError, match="another number of digests than there are items"):
        read_results([path], tmp_path)


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    run, path = stored(tmp_path, "one", 1), tmp_path / "old.results"
    write_result_file(path, read_results([run.path], tmp_path))
    with closing(sqlite3.connect(path)) as connection, connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'item_columns'").fetchone()
        connection.execute("ALTER TABLE item_columns RENAME TO new")
        connection.execute(sql.replace(", problems TEXT NOT NULL", ""))
        connection.execute("INSERT INTO item_columns SELECT id, key, tasks, clusters, abouts FROM new")
        connection.execute("DROP TABLE new")
        connection.execute("PRAGMA user_version = 1")
    other = stored(tmp_path, "two", 0, lambda n: Task(f"row-{n}", f"hard {n}"))
    assert models(make_board(read_results([path, other.path], tmp_path), BoardSpec())) == [["one", "two"]]
