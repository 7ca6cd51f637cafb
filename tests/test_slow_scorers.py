"""A scorer of received traces that is slow holds up neither alerts nor retention nor the end of the intake."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.ingest import intake as intakes
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import TraceStore
from received_spans import arrived, names, ready


def until(holds: Any) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(holds())


def test_alerts_and_retention_go_on_beside_a_scorer_and_closing_cancels_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "TICK_S", 0.05)
    monkeypatch.setattr(intakes, "RETENTION_S", 0.05)
    begun, cancelled = threading.Event(), threading.Event()

    async def slow(task: Any, trace: Any) -> float:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 1.0

    out, problems = tmp_path / "alerts", list[str]()
    settings = IntakeSettings(
        evaluation=Evaluation((("slow", slow),), settled_s=0.0), keep_s=30.0,
        alerts=parse_alerts(["traces>0/1h"]), alert_to=str(out),
    )  # fmt: skip
    intake = Intake(tmp_path, settings, on_problem=problems.append)
    intake.store.add([ready("a", "1")])
    assert until(begun.is_set) and until(out.exists)
    intake.store.add([ready("old", "1")])
    arrived(intake.store, old=time.time() - 40)
    assert until(lambda: names(intake.store) == ["a"])
    assert not cancelled.is_set()
    start = time.monotonic()
    intake.close()
    assert cancelled.is_set() and time.monotonic() - start < 4 and not intake._scorer.is_alive() and problems == []
    after = TraceStore(tmp_path)
    assert after.scores("a") == [], "it is scored by the next intake"
    after.close()


def test_closing_does_not_wait_for_a_scorer_that_cannot_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "TICK_S", 0.05)
    monkeypatch.setattr(intakes, "SCORING_ENDS_S", 0.2)
    begun, goes_on = threading.Event(), threading.Event()

    async def stuck(task: Any, trace: Any) -> float:
        begun.set()
        goes_on.wait(20)
        return 1.0

    intake = Intake(tmp_path, IntakeSettings(evaluation=Evaluation((("stuck", stuck),), settled_s=0.0)))
    intake.store.add([ready("a", "1")])
    assert until(begun.is_set)
    start = time.monotonic()
    intake.close()
    assert time.monotonic() - start < 4
    goes_on.set()
    intake._scorer.join()


def test_rounds_of_scoring_follow_each_other_and_tell_of_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "TICK_S", 0.02)

    class Broken:
        async def score_some(self, store: TraceStore, *, now_s: float) -> int:
            raise KeyError("no")

    problems = list[str]()
    intake = Intake(tmp_path, IntakeSettings(evaluation=Broken()), on_problem=problems.append)  # type: ignore[arg-type]
    assert until(lambda: len(problems) > 1)
    intake.close()
    assert set(problems) == {"KeyError: 'no'"}


def test_a_trace_that_is_removed_before_it_is_scored_ends_no_round(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, create=True)
    asked = list[str]()

    async def fit(task: Any, trace: Any) -> float:
        asked.append(task.id)
        with store.database.write() as connection:
            for table in ("spans", "traces"):
                connection.execute(f"DELETE FROM {table}")
        return 1.0

    store.add([ready("a", "1"), ready("b", "1")])
    arrived(store, a=1.0, b=2.0)
    asyncio.run(Evaluation((("fit", fit),), settled_s=1.0).score_some(store, now_s=9.0))
    assert asked == ["a"] and names(store, "scores") == []
    store.close()
