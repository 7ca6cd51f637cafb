"""Alerts and redelivery go on after a clock that was ahead is set right."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsthand.ingest.alert_rules import Alert
from firsthand.ingest.intake import MOST_PAUSE_S, Intake, IntakeSettings, WaitingAlert, parse_alerts
from firsthand.messaging import sqlite_messaging
from firsthand.messaging.sqlite_messaging import SCHEMA, SqliteMessaging
from firsthand.runs.database import Database, Schema
from received_spans import arrived, ready

NOW = 1_000_000.0
DAY = 86_400.0


def test_an_alert_of_a_clock_that_was_ahead_silences_none(tmp_path: Path) -> None:
    out = tmp_path / "alerts"
    intake = Intake(tmp_path, IntakeSettings(alerts=parse_alerts(["traces>0/1h"]), alert_to=str(out)))
    intake._end.set()  # its own rounds have the time of the day
    intake._keeper.join()
    intake.store.add([ready("a", "1")])

    def told(now_s: float) -> int:
        arrived(intake.store, a=now_s - 1)
        intake._fired.clear()  # as after a restart
        intake.tick(now_s)
        return len(out.read_text().splitlines())

    assert told(NOW + DAY) == 1
    assert told(NOW) == 2 and told(NOW) == 2, "told at this very moment already"
    assert told(NOW + 3599) == 2 and told(NOW + 3600) == 3
    intake.close()


def test_an_alert_that_was_over_and_holds_again_within_its_window_is_sent_again(tmp_path: Path) -> None:
    out = tmp_path / "alerts"
    intake = Intake(tmp_path, IntakeSettings(alerts=parse_alerts(["traces>0/1h"]), alert_to=str(out)))
    intake._end.set()  # its own rounds have the time of the day
    intake._keeper.join()
    intake.store.add([ready("a", "1")])

    def told(now_s: float, arrived_s: float) -> int:
        arrived(intake.store, a=arrived_s)
        intake.tick(now_s)
        return len(out.read_text().splitlines())

    assert told(NOW, NOW - 1) == 1 and told(NOW + 5, NOW - 1) == 1
    assert told(NOW + 10, NOW - DAY) == 1, "it is over"
    assert told(NOW + 15, NOW + 14) == 2 and told(NOW + 20, NOW + 14) == 2, "it holds again, and is sent once"
    intake._fired.clear()  # as after a restart
    assert told(NOW + 25, NOW + 14) == 2, "of before the restart"
    assert told(NOW + 30, NOW - DAY) == 2 and told(NOW + 35, NOW + 34) == 3
    intake.close()


def test_an_alert_that_waits_is_tried_when_the_clock_is_set_right() -> None:
    waiting = WaitingAlert(Alert("r", 1.0, "s", 0.0), since_s=NOW, due_s=NOW + 5)
    assert not waiting.is_due(NOW + 4.9) and waiting.is_due(NOW + 5)
    assert not waiting.is_due(NOW + 5 - MOST_PAUSE_S) and waiting.is_due(NOW + 4.9 - MOST_PAUSE_S)
    again = waiting.after_try(NOW - DAY)
    assert (again.since_s, again.due_s) == (NOW - DAY, NOW - DAY), "its pauses begin again"
    assert again.after_try(NOW - DAY + 5).due_s == NOW - DAY + 10
    assert waiting.after_try(NOW + 5).due_s == NOW + 10


def test_a_lease_begins_again_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOW
    monkeypatch.setattr(sqlite_messaging, "time", SimpleNamespace(time=lambda: now))
    with SqliteMessaging(tmp_path / "m.db") as bus:
        bus.subscribe("g", ">")
        bus.subscribe("other", ">")
        bus.publish("t", ["a", "b"])

        def fetched(group: str = "g") -> list[str]:
            return [each.message.payload for each in bus.fetch(group, lease_s=30.0)]

        assert fetched() == ["a", "b"] == fetched("other")
        bus.acknowledge("g", [2])
        now = NOW - 0.1
        assert fetched() == [], "a reader that lives keeps it: the clock went back a little"
        now = NOW + 29.8
        assert fetched() == []
        now = NOW + 29.9
        assert fetched() == ["a"]
        now = NOW - DAY
        assert fetched() == []
        bus.let_go("g", 1)
        now = NOW - 2 * DAY
        assert fetched() == ["a"], "one that was let go of is due at once"
        now = NOW - 3 * DAY
        assert fetched() == []
        now += 30
        assert fetched() == ["a"]
        assert [each[0] for each in bus._database.read("SELECT until FROM deliveries WHERE grp = 'other'")] == [
            NOW + 30
        ] * 2, "each group by itself"


def test_a_file_of_messages_of_an_older_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_messaging, "time", SimpleNamespace(time=lambda: NOW))
    first = Schema(SCHEMA.noun, SCHEMA.application_id, SCHEMA.migrations[:1])
    old = Database(tmp_path / "m.db", create=True, schema=first)
    with old.write() as connection:
        connection.execute("INSERT INTO groups VALUES ('g', '>', 2)")
        connection.executemany("INSERT INTO messages VALUES (?, 't', 'p', '', 1)", [(1,), (2,)])
        connection.executemany("INSERT INTO deliveries VALUES ('g', ?, ?, 1)", [(1, NOW), (2, NOW + 1)])
    old.close()
    with SqliteMessaging(tmp_path / "m.db") as bus:
        assert [each.message.offset for each in bus.fetch("g")] == [1]
    with sqlite3.connect(tmp_path / "m.db") as plain:
        assert plain.execute("SELECT until, count, since FROM deliveries ORDER BY seq").fetchall() == [
            (NOW + 30, 2, NOW), (NOW + 1, 1, 0),
        ]  # fmt: skip
    plain.close()
