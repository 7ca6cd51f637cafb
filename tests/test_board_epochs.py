"""A board gives 0/1 scores of several epochs, or of clusters, the interval that the run's own table has."""

from __future__ import annotations

from pathlib import Path
from statistics import stdev

import pytest

from firsthand.boards.board_results import BoardResult, ItemScores, ResultSet
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results, run_results
from firsthand.boards.result_file import write_result_file
from firsthand.errors import DataError
from firsthand.runs.store import Run, create
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

TRIES = [(1, 1, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 1, 1), (0, 0, 1)]


def stored(home: Path, tries: list[tuple[float | None, ...]], *, is_harm: bool = False, cluster: bool = False,
           reduce: str = "") -> Run:  # fmt: skip
    run = create(home, {"reduce": reduce} if reduce else {}, "r")
    run.add_tasks("b", [Task(f"t{n}", "?", metadata={"cluster": f"c{n // 2}"} if cluster else {}) for n in range(6)])
    run.add_agent("a", {"name": "a"})
    for n, each in enumerate(tries):
        for epoch, value in enumerate(each):
            scores = () if value is None else (Score("ok", value, {"is_harm": True} if is_harm else {}),)
            failed = Failure("ModelError", "gone") if value is None else None
            run.append(
                Trace(f"{n}-{epoch}", "b", f"t{n}", {"name": "a"}, epoch, 0, "", 1.0, scores=scores, error=failed)
            )
    return run


def bounds(results: ResultSet) -> tuple[float, float]:
    ((line,),) = [section.lines for section in make_board(results, BoardSpec()).sections]
    return line.low, line.high


def repeats(run: Run) -> int:
    (items,) = [each for each in run_results(run, print) if isinstance(each, ItemScores)]
    return items.abouts[0].repeats


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("is_harm", [False, True])
def test_the_interval_of_epochs_is_the_runs_own(tmp_path: Path, is_harm: bool, cluster: bool) -> None:
    run = stored(tmp_path, [*TRIES], is_harm=is_harm, cluster=cluster)
    found = read_results([run.path], tmp_path)
    (line,) = summary(run)
    assert line.score.method == "clustered Wilson" and repeats(run) == 3
    assert bounds(found) == pytest.approx((line.score.low, line.score.high), abs=1e-6)
    write_result_file(tmp_path / "kept.results", found)
    assert bounds(read_results([tmp_path / "kept.results"], tmp_path)) == bounds(found)


def test_other_scores_have_no_repeats(tmp_path: Path) -> None:
    for number, (tries, more, expected) in enumerate((
        ([*TRIES[:5], (1, 0)], {}, 1), ([*TRIES[:5], (1, 0, 0.5)], {}, 1), (TRIES, {"reduce": "max"}, 1),
        ([*TRIES[:5], (1, 0, None)], {}, 3), ([*TRIES[:5], (1, 0, None)], {"is_harm": True}, 1),
        ([(1,), (0,), (1,)], {}, 1),
    )):  # fmt: skip
        assert repeats(stored(tmp_path / str(number), tries, **more)) == expected  # type: ignore[arg-type]


def test_single_attempts_keep_the_interval_of_their_standard_error(tmp_path: Path) -> None:
    values = (0.0, 0.25, 0.5, 0.75, 1.0, 0.5)
    run = stored(tmp_path, [(each,) for each in values])
    half = 1.96 * stdev(values) / len(values) ** 0.5
    assert bounds(read_results([run.path], tmp_path)) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-3)


TENTHS, POINTS = (0.5, 0.6, 0.55, 0.6, 0.5, 0.55), (0, 2, 5, 7, 10, 5)


@pytest.mark.parametrize("values", [(0,) * 6, (1, 1, 0, 1, 0, 0), (1,) * 6, TENTHS, POINTS])
def test_the_interval_of_single_attempts_in_clusters_is_the_runs_own(tmp_path: Path, values: tuple[float, ...]) -> None:
    run = stored(tmp_path, [(float(each),) for each in values], cluster=True)
    found = read_results([run.path], tmp_path)
    (line,) = summary(run)
    assert line.score.method.startswith("clustered") and repeats(run) == 1
    assert bounds(found) == pytest.approx((line.score.low, line.score.high), abs=1e-6)
    assert values == TENTHS or line.score.high - line.score.low > 0.6, "three clusters say little"
    write_result_file(tmp_path / "kept.results", found)
    assert bounds(read_results([tmp_path / "kept.results"], tmp_path)) == bounds(found)


def test_repeats_of_a_file_are_1_or_more() -> None:
    with pytest.raises(DataError, match="f: m has 0 repeats of each item: 1 or more was expected"):
        ResultSet.of([BoardResult("m", "b", 0.5, source="f", repeats=0)])
