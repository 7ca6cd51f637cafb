"""Boards from the numbers that a run keeps are those of its traces, bit for bit, in new files and in old ones."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import make_run
from firsthand.errors import StoreError
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.database import MIGRATIONS, Database
from firsthand.runs.execute import execute
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create, open_run
from firsthand.show.board import attempts_of, leaderboard
from firsthand.show.html_report import report_html
from firsthand.stats.stored_figures import stored_figures
from firsthand.trace import Call, Failure, Score, Trace

OLD = Path(__file__).parent / "data" / "run_schema_3"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run that firsthand 0.6.0 made, in a folder of its own."""
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(OLD / DATABASE, folder / DATABASE)
    (folder / "lock").touch()
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The same experiment, run now."""
    return make_run.make(tmp_path / "home")


def boards(run: Run, attempts: Sequence[Trace | AttemptSummary]) -> str:
    order = {name: index for index, name in enumerate(run.agents())}
    attempts = sorted(attempts, key=lambda each: order[each.agent_name])
    made = [asdict(board) for board in leaderboard(attempts, clusters=run.clusters())]
    assert [board.pop("protocol") for board in made] == [""] * len(made)  # no run of that schema kept one
    assert not any(
        row.pop("left_out") for board in made for row in board["rows"]
    )  # nor had a figure that leaves tasks out
    assert not any(board.pop("lower_is_better") for board in made)  # nor told of scores of harm
    assert not any(board.pop("other_names") for board in made)  # nor of scores of other names
    assert not any(board.pop("unstated") for board in made)  # nor of a direction that a score does not state
    rows = [row for board in made for row in board["rows"]]
    assert not any(any(row.pop("unreported")) for row in rows)  # nor counted what is not reported
    assert not any(any(row.pop("retried")) for row in rows)  # nor attempts made again
    assert all(row.pop("unscored") in ({}, {"fails": "ValueError: no verdict"}) for row in rows)
    return json.dumps(made, indent=1)


@pytest.mark.slow
def test_boards_of_a_run_of_schema_3_are_those_that_its_firsthand_made(old: Path) -> None:
    """But for intervals that were wrong then: of figures with equal draws, of unequal clusters, of several at once."""
    with open_run(old, old.parent) as run:
        expected = json.loads((OLD / "boards.json").read_text())
        zeros = [row["secondary"].pop("fails", None) for board in expected for row in board["rows"]]
        assert {each and each["value"] for each in zeros} == {None, 0.0}, "a score that failed throughout was 0 then"
        assert json.loads(boards(run, list(run.summaries()))) == expected == json.loads(boards(run, list(run.traces())))
        traces = list(run.traces())
        assert {trace.version for trace in traces} == {3} and all(trace.place == trace.id for trace in traces)
        assert run.done() == {trace.place for trace in traces}
        assert run.database.read("SELECT count(*) FROM traces WHERE numbers IS NOT NULL") == [(0,)]


@pytest.mark.slow
def test_boards_from_summaries_are_those_from_traces_and_decode_no_body(new: Path) -> None:
    with open_run(new, new.parent) as run:
        expected = boards(run, list(run.traces()))
        with run.database.write() as connection:
            connection.execute("DELETE FROM bodies WHERE sha256 IN (SELECT body FROM traces)")
        assert boards(run, attempts_of(run)) == expected
        with pytest.raises(StoreError):
            list(run.traces())


@pytest.mark.slow
def test_figures_and_reports_from_summaries_are_those_from_traces(new: Path) -> None:
    with open_run(new, new.parent) as run:
        sides = {agent: (run, agent) for agent in run.agents()}
        found = stored_figures(sides, "sums", {})
        assert {"length", "rms_calibration_error"} <= found.keys()
        made = leaderboard(run.traces())
        told: dict[str, Any] = {"title": "t", "command": "c", "machine": {}, "run_path": "p"}
        whole = report_html(made, traces=run.traces(), **told)
        assert report_html(made, traces=run.summaries(), read=run.trace, **told) == whole


def test_a_summary_is_the_same_from_a_trace_and_from_the_file(tmp_path: Path) -> None:
    calls = tuple(
        Call(id, "generate", None, 0.0, seconds, "") for id, seconds in ((":0", 0.1), ("0.0:0", 0.2), ("0.1:0", 0.7))
    )
    trace = Trace(
        "01", "b", "t", {"name": "a"}, 2, 0, "", 3, calls=calls, stop_reason="tokens", place="ff",
        scores=(Score("x", float("nan"), {"corpus": {"figure": "bleu", "sums": [1.5]}, "why": "words"}), Score("y", 0.1)),
    )  # fmt: skip
    failed = replace(trace, id="02", place="ee", error=Failure("ModelError", "gone"), scores=())
    with create(tmp_path, {}, "one") as run:
        for each in (trace, failed):
            run.append(each)
        first, second = run.summaries()
        assert repr(first) == repr(AttemptSummary.of(trace)) and second == AttemptSummary.of(failed)
        assert first.scores[0].detail == {"corpus": {"figure": "bleu", "sums": [1.5]}}
        assert first.critical_s == pytest.approx(0.8) and first.value() is None and first.value("y") == 0.1
        run.add_score(trace, 1, "later", "judge", Score("later", 0.5, {"by": "text", "trace": {"long": "words"}}))
        run.add_score(trace, 1, "later", "judge", Score("later", 0.25))
        assert [score.value for score in next(run.summaries()).scores[1:]] == [0.1, 0.25]
        assert [each.id for each in run.summaries(agent="nobody")] == []
        with run.database.write() as connection:
            connection.execute("UPDATE traces SET numbers = '[[1, 2], 0, []]' WHERE id = '02'")
        with pytest.raises(StoreError, match="damaged"):
            list(run.summaries())


@pytest.mark.slow
def test_an_old_run_goes_on_and_keeps_its_places(old: Path) -> None:
    places = make_run.places()
    with open_run(old, old.parent) as run:
        before = run.done()
        assert before == {place.id for place in places}
        asyncio.run(execute(run, places, seed=3))
        assert run.done() == before and run.database.read("SELECT count(*) FROM traces") == [(86,)]
        retried = run.database.read("SELECT attempt FROM traces WHERE try = 2 LIMIT 1")[0][0]
        asyncio.run(execute(run, places, seed=3, redo_errors=True))
        first, second, third = run.tries(retried)
        assert first.id == second.id == retried and third.place == retried and len(third.id) == 26
        assert run.trace(third.id) == run.trace(retried) == third


def test_an_old_file_opened_twice_at_once_is_brought_up_to_date_once(old: Path) -> None:
    one, other = Database(old / DATABASE), Database(old / DATABASE)
    assert one.read("PRAGMA user_version") == other.read("PRAGMA user_version") == [(len(MIGRATIONS),)]


def test_the_summary_of_a_protected_attempt_has_no_words_of_a_failed_scorer() -> None:
    from firsthand.runs.attempt_summary import without_words
    from firsthand.trace import Score

    failed = Score("judge", 0.0, failure="ValueError: the secret answer")
    assert without_words(failed, protected=True).failure == "ValueError"
    assert without_words(failed).failure == "ValueError: the secret answer"


def test_only_scores_of_0_and_1_are_binary_though_others_may_have_the_sum_of_their_squares(tmp_path: Path) -> None:
    def attempt(task: str, epoch: int, value: float) -> Trace:
        scores = (Score("s", value),)
        return Trace(f"{task}{epoch}", "b", task, {"name": "a"}, epoch, 0, "2026-11-25T00:00:00", 1.0, scores=scores)

    with create(tmp_path, {}, "binary") as run:
        for task, values in (("bits", (1.0, 0.0)), ("squares", (1.2, 0.6)), ("halves", (0.5, 0.5))):
            for epoch, value in enumerate(values):
                run.append(attempt(task, epoch, value))
        assert {each.task: each.binary for each in run.task_means()} == {
            "bits": True,
            "squares": False,
            "halves": False,
        }
