"""Edges of received traces: spans that never ended, sessions on children, room given back, literals, the intake."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.errors import ConfigError
from firsthand.ingest import intake as intakes
from firsthand.ingest import retention
from firsthand.ingest.as_trace import trace_of
from firsthand.ingest.incoming_span import IncomingSpan, StoredSpan
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.literal_search import literal_search
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.retention import give_back, remove_beyond, used_bytes
from firsthand.ingest.task_rows import task_row
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.ingest.trace_summary import TraceSummary, summaries_of
from firsthand.trace import Score

SECOND, START = otlp.SECOND, otlp.START


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


def add(store: TraceStore, *spans: dict[str, Any], at_s: float | None = None) -> None:
    decoded, _ = decode_json(otlp.as_json(*spans))
    store.add(SpanPreparer(Redactor()).prepared(decoded))
    if at_s is not None:
        with store.database.write() as connection:
            for trace in {each.trace_id for each in decoded}:
                connection.execute("UPDATE traces SET arrived_s = ? WHERE trace = ?", (at_s, trace))


def ids(store: TraceStore) -> list[int]:
    return [int(trace, 16) for (trace,) in store.database.read("SELECT trace FROM traces ORDER BY trace")]


def stored(number: int, what: Any, parent: int, begin_s: float, end_s: float | None, **attributes: Any) -> StoredSpan:
    end = 0 if end_s is None else START + int(end_s * SECOND)
    span = IncomingSpan("a" * 32, f"{number:016x}", f"{parent:016x}" if parent else "", f"n{number}",
                        START + int(begin_s * SECOND), end, attributes)  # fmt: skip
    return StoredSpan(number, span, what)


# -- as a record --


def test_a_trace_lasts_until_its_last_start_where_spans_never_ended() -> None:
    ended, open_ = stored(1, "chain", 0, 0, 10), stored(2, "chain", 1, 20, None)
    assert trace_of("t", [ended, open_]).duration_s == 20.0 == trace_of("t", [open_, ended]).duration_s
    assert trace_of("t", [stored(1, "chain", 0, 5, None), stored(2, "chain", 1, 8, None)]).duration_s == 3.0
    assert trace_of("t", [stored(1, "chain", 0, 5, None)]).duration_s == 0.0
    assert trace_of("t", [stored(1, "chain", 0, 0, 30), stored(2, "chain", 1, 20, 25)]).duration_s == 30.0
    took = [event.data["took_s"] for event in trace_of("t", [ended, open_]).events]
    assert took == [10.0, 0.0]


def test_a_row_is_of_the_session_that_any_span_names_and_of_the_root_wherever_it_stands() -> None:
    child, other = stored(2, "chain", 1, 1, 2, **{"session.id": 7}), stored(3, "chain", 1, 2, 3, **{"session.id": "s3"})
    root = stored(1, "chain", 0, 0, 5, **{"session.id": ""})
    assert [task_row("t", spans)["cluster"] for spans in ([root, child, other], [other, child, root], [root])] == [
        "7", "s3", "t",
    ]  # fmt: skip
    assert [task_row("t", spans)["name"] for spans in ([child, root], [root, child], [other, child])] == [
        "n1", "n1", "n3",
    ]  # fmt: skip
    said = json.dumps([{"role": role, "content": text} for role, text in
                       (("system", "be"), ("user", "a"), ("tool", "x"), ("system", "so"), ("assistant", "b"),
                        ("user", "why?"))])  # fmt: skip
    asks = stored(4, "generate", 1, 1, 2, **{"gen_ai.operation.name": "chat", "gen_ai.input.messages": said})
    row = task_row("t", [root, asks])
    assert row == {
        "id": "t", "question": "why?", "answer": "", "system": "be\n\nso", "history": "user: a\nassistant: b",
        "cluster": "t", "name": "n1", "error": "", "conversation": row["conversation"],
    }  # fmt: skip
    assert [(each["role"], each["content"]) for each in row["conversation"]] == [
        ("system", "be"), ("user", "a"), ("tool", "x"), ("system", "so"), ("assistant", "b"),
    ]  # fmt: skip
    failed = root._replace(span=replace(root.span, error="down"))
    assert task_row("t", [asks, failed])["error"] == "down"
    child_fails = asks._replace(span=replace(asks.span, error="cut"))
    assert task_row("t", [root, child_fails])["error"] == ""


def test_a_summary_has_a_row_of_its_columns() -> None:
    made = TraceSummary("t", 5, 9, 3, name="n", changed=7, arrived_s=1.5)
    assert summaries_of([made.row(), TraceSummary("u").row()]) == [made, TraceSummary("u")]
    assert made.row()[:4] == ("t", 5, 9, 3) and made.row()[-3:] == (7, 1.5, "")


# -- literals --


def test_literals_are_found_wherever_they_stand_and_nothing_else_is() -> None:
    literals = ["sk-", "xox", "k-l", "zz", "a.b", "xoxb"]
    contains = literal_search(literals, "xk")
    texts = ["".join(each) for size in range(5) for each in itertools.product("skx-o", repeat=size)]
    texts += [
        "a.b",
        "aXb",
        "a..b",
        "z",
        "zz",
        "azza",
        "k-l",
        "sk",
        "k-",
        "Xk-l",
        "SK-",
        "xxox",
        "oxo",
        "\nsk-\n",
        "é sk-é",
    ]
    for text in texts:
        assert contains(text) is any(each in text for each in literals), text
    assert not literal_search([], "x")("anything") and literal_search(["x"], "x")("axb")


# -- room --


@pytest.mark.slow
def test_room_is_given_back_where_more_than_half_of_the_file_is_free(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    noise = random.Random(1)
    for n in range(1, 9):
        add(store, otlp.span(n, 1, text=f"{noise.getrandbits(2_000_000):x}"), at_s=float(n))
    store.database.read("PRAGMA wal_checkpoint(TRUNCATE)")
    path = store.folder / "traces.sqlite"
    before = path.stat().st_size
    assert not give_back(store), "nothing is free"
    monkeypatch.setattr(retention, "_PART", 1)
    used = used_bytes(store)
    assert remove_beyond(store, used // 3) == 7 and ids(store)[-1] == 8 and used_bytes(store) <= used // 3
    assert not give_back(store), "too little for the work"
    monkeypatch.setattr(retention, "_FREE_BYTES", 1)
    assert give_back(store) and path.stat().st_size < before / 2 and not give_back(store)
    assert store.spans(f"{8:032x}")[0].span.name == "work"
    assert remove_beyond(store, 0) == 1 and ids(store) == []


# -- the intake --


def quiet(home: Path, settings: IntakeSettings, problems: list[str]) -> Intake:
    """An intake whose own rounds have ended."""
    made = Intake(home, settings, on_problem=problems.append)
    made._end.set()
    made._keeper.join()
    return made


def test_settings_of_alerts_go_together(tmp_path: Path) -> None:
    for settings in ({"alerts": parse_alerts(["cost>1/1h"])}, {"alert_to": str(tmp_path / "a")}):
        with pytest.raises(ConfigError, match="alert and alert_to go together: give rules, and the file or webhook"):
            IntakeSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give a file in a folder that is there"):
        IntakeSettings(alerts=parse_alerts(["cost>1/1h"]), alert_to=str(tmp_path / "none" / "a"))


def test_a_round_scores_what_is_complete_and_a_longer_one_keeps_to_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(task: Any, trace: Any) -> Score:
        return Score("short", float(len(task.prompt)))

    problems: list[str] = []
    intake = quiet(
        tmp_path, IntakeSettings(keep_bytes=0, evaluation=Evaluation((("short", short),), settled_s=10)), problems
    )
    given: list[Any] = []
    monkeypatch.setattr(intakes, "give_back", lambda store: given.append(store))
    try:
        chain = {"openinference__span__kind": "CHAIN", "input__value": "why?"}
        add(intake.store, otlp.span(1, 1, **chain), at_s=990.0)
        add(intake.store, otlp.span(2, 1, **chain), at_s=990.1)
        add(intake.store, otlp.span(3, 2, 1, **chain), at_s=900.0)
        intake.score(1000.0)
        assert [row[:3] for row in intake.store.scores(f"{1:032x}")] == [("short", 4.0, None)]
        assert intake.store.scores(f"{2:032x}") == [] == intake.store.scores(f"{3:032x}"), "too new, and without a root"
        intake.score(1000.1)
        assert len(intake.store.scores(f"{2:032x}")) == 1 and len(intake.store.scores(f"{1:032x}")) == 1
        intake.keep(1000.0)
        assert ids(intake.store) == [] and given == [intake._keeping] and problems == []
    finally:
        intake.close()
    idle = quiet(tmp_path, IntakeSettings(), problems)
    try:
        add(idle.store, otlp.span(5, 1), at_s=1.0)
        idle.tick(1e9)
        idle.keep(1e9)
        assert ids(idle.store) == [5] and len(given) == 1, "without settings all is kept as it is"
        idle._tried(lambda: (_ for _ in ()).throw(ValueError("x" * 400)))
        assert problems == ["ValueError: " + "x" * 288]
    finally:
        idle.close()


def test_an_alert_is_told_again_after_it_was_over(tmp_path: Path) -> None:
    out, problems = tmp_path / "alerts", []  # type: ignore[var-annotated]
    intake = quiet(tmp_path, IntakeSettings(alerts=parse_alerts(["errors>0.5/1m"]), alert_to=str(out)), problems)

    def told() -> int:
        return len(out.read_text().splitlines()) if out.exists() else 0

    try:
        add(intake.store, otlp.span(1, 1, error="e"), at_s=1000.0)
        intake.tick(1001.0)
        intake.tick(1050.0)
        assert told() == 1, "it holds still"
        intake.tick(1061.0)  # over
        add(intake.store, otlp.span(2, 1, error="e"), at_s=1059.5)
        intake.tick(1060.5)
        assert told() == 2, "it was over and holds again, if only for a moment"
        intake.tick(1120.0)
        add(intake.store, otlp.span(3, 1, error="e"), at_s=1121.0)
        intake.tick(1122.0)
        assert told() == 3 and problems == []
        rows = intake.store.database.read("SELECT rule, value, at_s, delivered FROM alerts ORDER BY seq")
        assert rows == [("errors>0.5/1m", 1.0, at_s, "yes") for at_s in (1001.0, 1060.5, 1122.0)]
    finally:
        intake.close()
