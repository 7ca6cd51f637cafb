"""Alerts and their windows, what is removed and sealed at the limits, and the intake's rounds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.errors import ConfigError, StoreError
from firsthand.ingest.alert_delivery import check_target, deliver
from firsthand.ingest.alert_rules import Alert, AlertRule, WindowValue, chart_of
from firsthand.ingest.cold_segments import drop_segment, read_sealed, remove_orphans, seal
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.retention import age_of, give_back, remove_beyond, remove_older, size_of, used_bytes
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.tools.web.addresses import Rules, parse_rules

NOW, SECOND = 1_000_000.0, otlp.SECOND


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


def add(store: TraceStore, at_s: float, *spans: dict[str, Any]) -> None:
    """Keep spans as if they had arrived at a time."""
    decoded, _ = decode_json(otlp.as_json(*spans))
    store.add(SpanPreparer(Redactor()).prepared(decoded))
    with store.database.write() as connection:
        for trace in {each.trace_id for each in decoded}:
            connection.execute("UPDATE traces SET arrived_s = ? WHERE trace = ?", (at_s, trace))


def ids(store: TraceStore, table: str = "traces") -> list[int]:
    return [int(trace, 16) for (trace,) in store.database.read(f"SELECT DISTINCT trace FROM {table} ORDER BY trace")]


# -- alerts --


def test_a_rule_is_read_as_it_is_written() -> None:
    assert AlertRule.parse(" errors > 0.1 / 1h ") == AlertRule("errors > 0.1 / 1h", "errors", ">", 0.1, 3600.0)
    assert AlertRule.parse("score.help-ful_1~3/2d") == AlertRule(
        "score.help-ful_1~3/2d", "score.help-ful_1", "~", 3.0, 172_800.0
    )
    assert AlertRule.parse("cost<-1e3/5m").bound == -1000.0
    assert [each.metric for each in parse_alerts(["cost>1/1h", "spans<2/1w"])] == ["cost", "spans"]
    for text, said in (
        ("errors=1/1h", "alert is 'errors=1/1h': write METRIC>VALUE/WINDOW or METRIC~SIGMAS/WINDOW"),
        (
            "other>1/1h",
            "alert asks for 'other': the metrics are traces, errors, seconds, p95_seconds, tokens, cost, spans and",
        ),
        ("errors~0/1h", "'0' is no number that can be compared with"),
        ("errors>1e999/1h", "'1e999' is no number that can be compared with"),
        ("errors>1.2.3/1h", r"'1\.2\.3' is no number that can be compared with"),
        ("errors>1/0h", "the window of an alert is '0h': give a number with m, h, d or w"),
    ):
        with pytest.raises(ConfigError, match=said):
            AlertRule.parse(text)
    ages = {"1m": 60, " 2H ": 7200, "3d": 259_200, "1w": 604_800, "999999m": 59_999_940}
    assert {text: age_of(text) for text in ages} == ages
    sizes = {"1kb": 1_000, " 2MB ": 2_000_000, "3GB": 3 * 10**9, "1tb": 10**12}
    assert {text: size_of(text) for text in sizes} == sizes
    for work, text, said in (
        (age_of, "1000000m", "keep is '1000000m'"),
        (size_of, "0MB", "keep_size is '0MB'"),
        (age_of, "-1d", "keep is"),
    ):
        with pytest.raises(ConfigError, match=said):
            work(text)


def test_metrics_are_measured_over_their_window(store: TraceStore) -> None:
    g = {"gen_ai__operation__name": "chat", "gen_ai__usage__cost": 0.25}
    for n in range(1, 22):
        tokens = {"gen_ai__usage__input_tokens": n, "gen_ai__usage__output_tokens": 1}
        add(
            store,
            NOW + n,
            otlp.span(n, 1, took_s=n, error="e" if n in (1, 2, 3) else None, **g, **tokens),
            otlp.span(n, 2, 1, took_s=0),
        )
    store.add_score(f"{1:032x}", "help", "x", 0.5)
    store.add_score(f"{2:032x}", "help", "x", None, "failed")
    store.add_score(f"{2:032x}", "help", "x", 0.75)
    with store.database.write() as connection:
        connection.execute("UPDATE scores SET at_s = ?", (NOW + 1,))

    def measured(metric: str, start: float, end: float) -> tuple[float | None, int]:
        found = AlertRule(metric, metric, ">", 0.0, 60.0).measure(store, NOW + start, NOW + end)
        return found.value, found.count

    assert {metric: measured(metric, 1, 5) for metric in ("traces", "errors", "seconds", "tokens", "cost", "spans")} == {
        "traces": (4.0, 4), "errors": (0.75, 4), "seconds": (2.5, 4), "tokens": (3.5, 4), "cost": (1.0, 4),
        "spans": (8.0, 4),
    }  # fmt: skip
    metrics = ("traces", "errors", "seconds", "p95_seconds", "cost", "spans")
    assert {metric: measured(metric, 30, 40) for metric in metrics} == {
        "traces": (0.0, 0), "errors": (None, 0), "seconds": (None, 0), "p95_seconds": (None, 0), "cost": (0.0, 0),
        "spans": (0.0, 0),
    }  # fmt: skip
    assert [measured("p95_seconds", 1, 1 + n) for n in (1, 19, 20, 21)] == [
        (1.0, 1),
        (19.0, 19),
        (19.0, 20),
        (20.0, 21),
    ]
    assert measured("score.help", 1, 2) == (0.625, 2) and measured("score.help", 0, 1) == (None, 0)
    assert measured("score.none", 0, 9) == (None, 0)

    def told(text: str, now: float) -> Alert | None:
        return AlertRule.parse(text).check(store, NOW + now)

    assert told("errors>0.15/1m", 22) is None and told("errors<0.14/1m", 22) is None
    assert told("errors>0.14/1m", 22) == Alert(
        "errors>0.14/1m", 3 / 21, "errors is 0.1429, above 0.14, over 21 traces", NOW + 22
    )
    assert told("traces<22/1m", 22) == Alert("traces<22/1m", 21.0, "traces is 21, below 22, over 21 traces", NOW + 22)
    assert told("traces<21/1m", 22) is None and told("traces>21/1m", 22) is None
    assert told("traces>20/1m", 22) is not None
    assert told("seconds>0/1m", 90) is None and told("traces<1/1m", 90) == Alert(
        "traces<1/1m", 0.0, "traces is 0, below 1, over 0 traces", NOW + 90
    )
    assert told("traces>0/1m", 81) is not None and told("traces>0/1m", 81.1) is None
    alert = Alert("r", 0.5, "said", 9.0)
    assert alert.to_json() == {"rule": "r", "value": 0.5, "message": "said", "at": 9.0}


def test_an_outlier_lies_beyond_the_limits_of_the_chart() -> None:
    def charted(text: str, last: WindowValue, *before: WindowValue) -> Alert | None:
        return AlertRule.parse(text)._charted(last, before, 77.0)

    def values(*given: float | None) -> list[WindowValue]:
        return [WindowValue(each, 10) for each in given]

    assert chart_of([10, 12, 11]) == (11.0, pytest.approx(1.5 / 1.128)) and chart_of([5.0]) == (5.0, 0.0)
    calm = values(1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0)  # mean 1.5, moving range 1: limits 1.5 +- 3 / 1.128
    assert charted("seconds~3/1m", WindowValue(4.1, 10), *calm) is None
    assert charted("seconds~3/1m", WindowValue(4.2, 10), *calm) == Alert(
        "seconds~3/1m", 4.2, "seconds is 4.2, above the limits -1.16 to 4.16 of the 8 windows before", 77.0
    )
    below = charted("seconds~3/1m", WindowValue(-1.2, 10), *calm)
    assert below is not None and below.said.startswith("seconds is -1.2, below the limits")
    assert charted("seconds~1/1m", WindowValue(2.5, 10), *calm) is not None
    assert charted("seconds~3/1m", WindowValue(9.0, 10), *calm[1:]) is None, "seven windows say nothing"
    assert charted("seconds~3/1m", WindowValue(9.0, 10), *calm[1:], WindowValue(None, 0)) is None
    flat = values(*[3.0] * 8)
    assert charted("seconds~3/1m", WindowValue(3.0, 10), *flat) is None
    assert charted("seconds~3/1m", WindowValue(3.1, 10), *flat) is not None
    nothing = [WindowValue(0.0, 0)] * 3
    one = charted("traces~3/1m", WindowValue(9.0, 9), *nothing, *calm)
    assert one is not None and "of the 8 windows before" in one.said
    within = charted("traces~3/1m", WindowValue(99.0, 9), calm[0], *nothing, *calm[1:])
    assert within is not None and "of the 11 windows before" in within.said, "a gap within is a value"
    # errors: the share of all traces is (2 * 0.5 + 70 * 0.1) / 72 = 1/9, its sigma over 4 traces sqrt(8/81/4)
    shares = [WindowValue(0.5, 2), *[WindowValue(0.1, 10)] * 7]
    centre, sigma = 1 / 9, (8 / 81 / 4) ** 0.5
    assert charted("errors~3/1m", WindowValue(centre + 2.99 * sigma, 4), *shares) is None
    found = charted("errors~3/1m", WindowValue(centre + 3.01 * sigma, 4), *shares)
    assert found is not None and f"{centre - 3 * sigma:.4g} to {centre + 3 * sigma:.4g}" in found.said


def test_a_chart_takes_whole_windows_before_now(store: TraceStore) -> None:
    end = NOW // 60 * 60
    for back in range(1, 10):
        for n in range(1 + back % 2):
            add(store, end - back * 60 + n, otlp.span(100 * back + n, 1))
    rule = AlertRule.parse("traces~3/1m")
    assert rule.check(store, end + 59) is None
    for n in range(9):
        add(store, end - 1, otlp.span(2_000 + n, 1))
    alert = rule.check(store, end + 59)
    assert alert is not None and (alert.value, alert.at_s) == (11.0, end) and "of the 8 windows before" in alert.said
    assert rule.check(store, end + 60) is None, "then the last window is an empty one, within the limits"
    assert rule.check(store, end - 1) is None


def test_alerts_are_delivered_to_files_and_allowed_addresses(tmp_path: Path) -> None:
    alert, out = Alert("r", 0.5, "ä", 9.0), tmp_path / "alerts"
    for _ in range(2):
        assert asyncio.run(deliver(alert, str(out), Rules())) == ""
    assert out.read_text() == '{"rule": "r", "value": 0.5, "message": "\\u00e4", "at": 9.0}\n' * 2
    assert asyncio.run(deliver(alert, str(tmp_path / "no" / "x"), Rules())).endswith(
        "x cannot be written: No such file or directory"
    )
    check_target(str(out), Rules())
    check_target("https://h.example/x", parse_rules("", "443"))
    check_target("http://h.example:8080/x", parse_rules("", "8080"))
    for target, said in (
        ("https://h.example/", "alert_to was refused: port 443 may not be used: 80 may"),
        ("http://h.example:81/", "port 81 may not be used: 80 may"),
        ("http://me:x@h/", "alert_to was refused: .* a user and password"),
        ("http://1.2.3.4.5/", "alert_to was refused"),
        (str(tmp_path / "no" / "x"), "give a file in a folder that is there"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_target(target, parse_rules("", "80"))


# -- what is removed and sealed --


def test_what_is_older_than_is_kept_goes_with_all_that_belongs_to_it(store: TraceStore) -> None:
    for n, age in ((1, 100.1), (2, 100.0), (3, 50.0), (4, 300.0)):
        add(store, NOW - age, otlp.span(n, 1))
        store.add_score(f"{n:032x}", "s", "x", 1.0)
    with store.database.write() as connection:
        for age in (100.1, 100.0):
            connection.execute("INSERT INTO alerts VALUES (NULL, 'r', 1, 's', ?, 'yes')", (NOW - age,))
    assert remove_older(store, 100.0, now_s=NOW) == 2
    assert ids(store) == ids(store, "spans") == ids(store, "scores") == [2, 3]
    assert store.database.read("SELECT count(*) FROM alerts") == [(1,)] and remove_older(store, 100.0, now_s=NOW) == 0
    for n in range(10, 215):
        add(store, NOW - 500, otlp.span(n, 1))
    assert remove_older(store, 100.0, now_s=NOW) == 205 and not give_back(store)


def test_traces_are_sealed_up_to_a_number_of_spans_and_removed_with_their_segment(store: TraceStore) -> None:
    for n in range(1, 6):
        add(store, NOW - 10 * n, *(otlp.span(n, k, name=f"{n}.{k}") for k in range(1, n + 1)))
        store.add_score(f"{n:032x}", "s", "x", 1.0)
    assert seal(store, 100.0, now_s=NOW) == 0 and ids(store, "spans") == [1, 2, 3, 4, 5]
    assert seal(store, 20.0, most=9, now_s=NOW) == 9, (
        "the oldest two, of 5 and 4 spans; that of exactly 20 s is not older"
    )
    assert ids(store, "spans") == [1, 2, 3] and ids(store, "sealed") == [4, 5]
    (row,) = store.database.read("SELECT file, num_spans, bytes, first_s, last_s FROM segments")
    path = store.folder / "segments" / row[0]
    assert row[1:] == (9, path.stat().st_size, NOW - 50, NOW - 40)
    assert row[0].startswith(f"day=1970-01-12/{int((NOW - 40) * 1000):014d}-")
    assert [each.span.name for each in store.spans(f"{4:032x}")] == ["4.1", "4.2", "4.3", "4.4"]
    assert seal(store, 20.0, most=1, now_s=NOW) == 3, "a trace is never divided"
    assert sum(1 for _ in path.parent.glob("*")) == 2
    for name in ("00000000000001-00000001.parquet", "00000000000001-00000001.part", "x.txt"):
        (path.parent / name).write_text("")
    assert remove_orphans(store) == 2 and sum(1 for _ in path.parent.glob("*")) == 3
    add(store, NOW - 5, otlp.span(4, 9, name="late"))
    assert [each.span.name for each in store.spans(f"{4:032x}")][-2:] == ["4.4", "late"]
    assert used_bytes(store) > row[2]
    drop_segment(store, row[0])
    assert not path.exists() and ids(store) == [1, 2, 3, 4] == ids(store, "scores"), (
        "trace 4 has received a span since, and is kept whole"
    )
    assert [each.span.name for each in store.spans(f"{4:032x}")] == ["4.1", "4.2", "4.3", "4.4", "late"]
    (name,) = store.database.read("SELECT file FROM segments")[0]
    (store.folder / "segments" / name).write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"the segment .*parquet cannot be read .*: restore it from a copy"):
        store.spans(f"{3:032x}")
    assert remove_older(store, 20.0, now_s=NOW) == 1 and ids(store) == [1, 2, 4] and ids(store, "sealed") == []


def test_the_longest_quiet_go_first_whether_sealed_or_not(store: TraceStore) -> None:
    text = "x" * 4_000
    for n, age in ((1, 40.0), (2, 30.0), (3, 20.0), (4, 10.0)):
        add(store, NOW - age, *(otlp.span(n, k, text=f"{n}{k}{text}") for k in range(1, 30)))
    assert seal(store, 35.0, now_s=NOW) == 29 and ids(store, "sealed") == [1]
    assert remove_beyond(store, used_bytes(store)) == 0
    assert remove_beyond(store, used_bytes(store) - 1) == 1 and ids(store) == [2, 3, 4]
    assert remove_beyond(store, 0) == 3 and ids(store) == []


@pytest.mark.slow
def test_the_intake_keeps_scores_and_tells_of_problems(tmp_path: Path) -> None:
    out, problems = tmp_path / "alerts", []
    settings = IntakeSettings(
        keep_s=100.0,
        cold_s=50.0,
        alerts=parse_alerts(["errors>0.5/1m", "traces>0/1m"]),
        alert_to=str(out),
        redact=("ID-\\d",),
    )
    intake = Intake(tmp_path, settings, on_problem=problems.append)
    intake._end.set()  # its own rounds have the time of the day
    intake._keeper.join()
    try:
        with pytest.raises(ConfigError, match="are received by another process"):
            Intake(tmp_path)
        add(intake.store, NOW - 10, otlp.span(1, 1, error="e"))
        add(intake.store, NOW - 61, otlp.span(2, 1))
        add(intake.store, NOW - 101, otlp.span(3, 1))
        intake.tick(NOW)
        intake.tick(NOW + 1)
        assert [json.loads(line)["rule"] for line in out.read_text().splitlines()] == ["errors>0.5/1m", "traces>0/1m"]
        rows = intake.store.database.read("SELECT rule, value, said, at_s, delivered FROM alerts")
        assert rows[0] == ("errors>0.5/1m", 1.0, "errors is 1, above 0.5, over 1 traces", NOW, "yes")
        intake._fired.clear()  # as after a restart: it was told within its window
        intake.tick(NOW + 2)
        assert len(out.read_text().splitlines()) == 2
        out.unlink()
        out.mkdir()
        intake.tick(NOW + 120)
        add(intake.store, NOW + 119, otlp.span(4, 1, error="e"))
        intake.tick(NOW + 120)
        said = f"an alert was not delivered to {out}, and is tried again: {out} cannot be written: Is a directory"
        assert problems == [said, said]
        last = intake.store.database.read("SELECT delivered, at_s FROM alerts ORDER BY seq DESC LIMIT 1")
        assert last == [(f"{out} cannot be written: Is a directory", NOW + 120)]
        intake.keep(NOW)
        assert (ids(intake.store), ids(intake.store, "sealed")) == ([1, 2, 3, 4], [2, 3]), (
            "one segment, kept as a whole"
        )
        intake.keep(NOW + 50)
        assert (ids(intake.store), ids(intake.store, "sealed")) == ([1, 4], [1])
        intake._tried(lambda: 1 / 0)
        intake._tried(lambda: age_of("x"))
        assert problems[2:] == [
            "ZeroDivisionError: division by zero", "keep is 'x': give a number with m, h, d or w, as in 30d",
        ]  # fmt: skip
        done: list[Any] = []
        secret = otlp.as_json(otlp.span(9, 1, text="ID-7"))
        assert intake.writer.submit(secret, "json", "", done.append)
        deadline = time.monotonic() + 10
        while not done and time.monotonic() < deadline:
            time.sleep(0.005)
        assert intake.store.spans(f"{9:032x}")[0].span.attributes == {"text": PUT}
    finally:
        intake.close()
    Intake(tmp_path).close()
