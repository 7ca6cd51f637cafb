"""The entry of a run in the list of runs: what it counts, and which calls keep it up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.trace import Score
from made_traces import trace


class Told:
    """An index of runs that writes down what it is told."""

    def __init__(self) -> None:
        self.kept: list[RunInfo] = []

    def keep(self, infos: list[RunInfo]) -> None:
        self.kept += [replace(each, updated_at=0.0) for each in infos]


def info(run: Run) -> RunInfo:
    return replace(run.info, updated_at=0.0)


def test_an_entry_counts_attempts_plans_and_steps_and_none_is_not_zero(tmp_path: Path) -> None:
    with store.create(tmp_path, {"seed": 1}, "made", command=["run", "x"]) as run:
        empty = RunInfo(
            id=run.id, path=run.path, created_at=run.created_at, status="interrupted", command=("run", "x"),
            config={"seed": 1}, num_traces=0, num_errors=0, num_planned=None, tokens=0, scores=info(run).scores,
            updated_at=0.0, num_steps=0,
        )  # fmt: skip
        assert info(run) == empty
        run.plan(0)
        assert info(run) == replace(empty, num_planned=0)
        run.plan(7)
        assert info(run) == replace(empty, num_planned=7)
        track = Track(run)
        track.log({"loss": 2.0}, step=0)
        track.flush()
        assert run.info.num_steps == 1
        track.log({"loss": 1.0}, step=4)
        track.log({"loss": 1.5}, step=2)
        track.flush()
        assert run.info.num_steps == 5
        run.append(trace("1", "t1", 0.5, place="p"))
        run.append(trace("2", "t1", 0.5, place="p"))
        run.append(trace("3", "t2", 1.0, place="q"))
        run.finish("done")
        found = info(run)
        assert (found.num_traces, found.num_errors, found.num_planned, found.num_steps) == (2, 0, 7, 5)
        assert found.status == "done"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.plan(4),
        lambda run: run.finish("done"),
        lambda run: run.append(trace("2", "t2", 1.0, place="q")),
        lambda run: run.add_score(trace("1", "t1", 0.5, place="p"), 1, "late", "by hand", Score("late", 0.25)),
        lambda run: Track(run).log({"loss": 2.0}, step=0),
        lambda run: Track(run).flush(),
        lambda run: Track(run).text("said", "x", step=0),
        lambda run: Track(run).artifact(Path(__file__)),
        lambda run: Track(run).rewind(0),
        lambda run: run.touch(),
    ],
    ids=["plan", "finish", "append", "add_score", "log", "flush", "text", "artifact", "rewind", "touch"],
)
def test_each_change_is_told_to_the_list_at_once_and_again_as_the_run_is_closed(
    tmp_path: Path, change: Callable[[Run], Any]
) -> None:
    made = store.create(tmp_path, {"seed": 1}, "made", command=["run"])
    made.append(trace("1", "t1", 0.5, place="p"))
    index: Any = Told()
    run = Run(made.path, made.database, index=index)
    change(run)
    assert index.kept == [info(run)]
    run.append(trace("9", "t9", 0.0, place="z"))
    assert len(index.kept) == 1, "told a moment ago"
    last = info(run)
    run.close()
    assert index.kept[1:] == [last]
    again: Any = Told()
    unchanged = Run(made.path, store.open_run(made.path, tmp_path).database, index=again)
    assert unchanged.info.num_traces >= 2
    unchanged.close()
    assert again.kept == [], "nothing was changed"
