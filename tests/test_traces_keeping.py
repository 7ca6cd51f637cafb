"""Received traces over time: retention, segments, scores, alerts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand import catalog
from firsthand.errors import ConfigError, StoreError
from firsthand.ingest.alert_delivery import deliver
from firsthand.ingest.alert_rules import Alert, AlertRule, chart_of
from firsthand.ingest.cold_segments import drop_segment, read_sealed, remove_orphans, seal
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.retention import age_of, remove_beyond, remove_older, size_of, used_bytes
from firsthand.ingest.trace_evaluation import Evaluation, is_sampled
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.task import Task
from firsthand.tools.web import webhook
from firsthand.tools.web.addresses import Rules, parse_rules
from firsthand.trace import Score, Trace

NOW = 1_795_000_000.0
DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    made.read_sealed = read_sealed
    yield made
    made.close()


def add(store: TraceStore, *spans: dict[str, Any], at_s: float = NOW) -> None:
    """Keep spans as if they had arrived at a time."""
    decoded, _ = decode_json(otlp.as_json(*spans))
    store.add(SpanPreparer(Redactor()).prepared(decoded))
    with store.database.write() as connection:
        for trace in {each.trace_id for each in decoded}:
            connection.execute("UPDATE traces SET arrived_s = ? WHERE trace = ?", (at_s, trace))


def ids(store: TraceStore) -> list[int]:
    return [int(trace, 16) for (trace,) in store.database.read("SELECT trace FROM traces ORDER BY trace")]


def names(store: TraceStore, trace: int) -> list[str]:
    return [each.span.name for each in store.spans(f"{trace:032x}")]


# -- retention --


def test_ages_and_sizes_are_read() -> None:
    assert [age_of(text) for text in ("30d", "12h", "2w", "5M")] == [30 * DAY, DAY / 2, 14 * DAY, 300]
    assert [size_of(text) for text in ("500MB", "10gb", "1KB")] == [500_000_000, 10_000_000_000, 1000]
    for wrong in ("", "30", "0d", "-1d", "1.5h", "30 days", "9999999d"):
        with pytest.raises(ConfigError, match="as in 30d"):
            age_of(wrong)
    for wrong in ("10", "0GB", "1GiB", "-5MB"):
        with pytest.raises(ConfigError, match="as in 10GB"):
            size_of(wrong)


def test_traces_that_were_quiet_too_long_are_removed_whole(store: TraceStore) -> None:
    add(store, otlp.span(1, 1), otlp.span(1, 2, 1), at_s=NOW - 30 * DAY - 1)
    add(store, otlp.span(2, 1), at_s=NOW - 30 * DAY)
    add(
        store, otlp.span(3, 1) | {"startTimeUnixNano": "1"}, at_s=NOW
    )  # a clock that is wrong keeps and removes nothing
    store.add_score(f"{1:032x}", "s", "s", 1.0)
    assert remove_older(store, 30 * DAY, now_s=NOW) == 1
    assert ids(store) == [2, 3] and store.scores(f"{1:032x}") == [] and names(store, 1) == []


@pytest.mark.slow
def test_the_longest_quiet_go_until_the_rest_has_room(store: TraceStore) -> None:
    for number in range(1, 601):
        add(store, otlp.span(number, 1, text="x" * 3000), at_s=NOW + number) if number % 60 == 0 else None
    text = {"text": "x" * 3000}
    decoded, _ = decode_json(otlp.as_json(*(otlp.span(1000 + number, 1, **text) for number in range(600))))
    store.add(SpanPreparer(Redactor()).prepared(decoded))
    assert remove_beyond(store, 10**9) == 0
    bound = used_bytes(store) - 300_000
    removed = remove_beyond(store, bound)
    assert 0 < removed < 610 and used_bytes(store) <= bound
    assert 60 not in ids(store) and len(ids(store)) == 610 - removed and max(ids(store)) > 1000


# -- segments --


@pytest.mark.slow
def test_sealed_spans_are_read_as_they_were(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    odd = otlp.span(
        1, 2, 1, "odd", error="e", lone="\ud800", text="ä\u202e'\"\n", big=(1 << 63) - 1, events={"x": {"y": 1}}
    )
    long = otlp.span(1, 3, 1, "long", text="y" * 100_000)
    add(store, otlp.span(1, 1, name="root"), odd, long, at_s=NOW - 2 * DAY)
    add(store, otlp.span(2, 1, name="young"), at_s=NOW)
    before = store.spans(f"{1:032x}")
    assert seal(store, DAY, now_s=NOW) == 3
    assert store.database.read("SELECT count(*) FROM spans") == [(1,)]
    assert store.spans(f"{1:032x}") == before and names(store, 2) == ["young"]
    assert store.summary(f"{1:032x}").num_spans == 3
    assert seal(store, DAY, now_s=NOW) == 0
    add(store, otlp.span(1, 4, 1, "late"), at_s=NOW - 2 * DAY)
    assert names(store, 1) == ["root", "odd", "long", "late"]
    assert seal(store, DAY, now_s=NOW) == 1 and names(store, 1) == ["root", "odd", "long", "late"]


@pytest.mark.slow
def test_no_span_is_lost_where_a_kill_may_fall(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    add(store, otlp.span(1, 1, name="root"), at_s=NOW - 2 * DAY)
    write = store.database.write

    def killed() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.database, "write", killed)  # after the file, before the store knows it
    with pytest.raises(KeyboardInterrupt):
        seal(store, DAY, now_s=NOW)
    monkeypatch.setattr(store.database, "write", write)
    assert names(store, 1) == ["root"]
    assert remove_orphans(store) == 1 and not list(store.folder.glob("segments/*/*"))
    assert seal(store, DAY, now_s=NOW) == 1 and remove_orphans(store) == 0 and names(store, 1) == ["root"]


@pytest.mark.slow
def test_old_segments_are_removed_and_damaged_ones_named(store: TraceStore) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    add(store, otlp.span(1, 1), at_s=NOW - 40 * DAY)
    add(store, otlp.span(2, 1), at_s=NOW - 5 * DAY)
    seal(store, 30 * DAY, now_s=NOW)
    seal(store, DAY, now_s=NOW)
    assert remove_older(store, 30 * DAY, now_s=NOW) == 1 and ids(store) == [2]
    (file,) = store.folder.glob("segments/*/*.parquet")
    file.write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match="restore it"):
        names(store, 2)
    drop_segment(store, store.database.read("SELECT file FROM segments")[0][0])
    assert ids(store) == [] and not file.exists()


# -- scores --


def test_complete_traces_of_the_sample_are_scored_once(store: TraceStore, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def brief(task, trace):\n    'Short.'\n"
        "    if task.prompt == 'boom': raise ValueError('boom')\n    return float(len(trace.answer) < 5)\n"
    )
    scorer = catalog.scorer(f"{tmp_path / 'mine.py'}:brief")
    evaluation = Evaluation((("mine", scorer),), settled_s=10)
    for number, (question, answer) in enumerate((("a", "yes"), ("b", "certainly"), ("boom", "x")), 1):
        add(
            store,
            otlp.span(number, 1, input__value=question, output__value=answer, openinference__span__kind="CHAIN"),
            at_s=NOW - 60,
        )
    add(store, otlp.span(4, 2, 1), at_s=NOW - 60)  # its root has not come
    add(store, otlp.span(5, 1), at_s=NOW - 5)  # it may grow
    assert asyncio.run(evaluation.score_some(store, now_s=NOW)) == 3
    found = {number: store.scores(f"{number:032x}") for number in range(1, 6)}
    assert [found[1][0][1], found[2][0][1]] == [1.0, 0.0]
    assert found[3][0][1] is None and "boom" in (found[3][0][2] or "") and found[4] == found[5] == []
    assert asyncio.run(evaluation.score_some(store, now_s=NOW)) == 0
    assert [is_sampled(f"{n:032x}", 0.25) for n in range(4000)].count(True) == pytest.approx(1000, abs=120)
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigError):
            Evaluation((), wrong)


def test_all_scores_of_a_scorer_that_gives_several_are_kept(store: TraceStore) -> None:
    def two(task: Task, trace: Trace) -> tuple[Score, ...]:
        return (Score("precision", 1.0), Score("recall", 0.25), Score("recall", 0.5))

    add(store, otlp.span(1, 1, input__value="q", output__value="a", openinference__span__kind="CHAIN"), at_s=NOW - 60)
    evaluation = Evaluation((("two", two),), settled_s=10)
    assert [asyncio.run(evaluation.score_some(store, now_s=NOW)) for _ in range(2)] == [1, 0]
    found = {name: value for name, value, *_ in store.scores(f"{1:032x}")}
    assert found == {"two": 1.0, "two.recall": 0.25, "two.recall#2": 0.5}


# -- alerts --


def test_a_bound_holds_over_its_window_alone(store: TraceStore) -> None:
    for number in range(1, 11):
        add(store, otlp.span(number, 1, error="e" if number <= 3 else None, took_s=number), at_s=NOW - 100)
    add(store, otlp.span(99, 1, error="old"), at_s=NOW - 7200)
    for text, value in (
        ("errors>0.2/1h", 0.3), ("errors>0.3/1h", None), ("traces<11/1h", 10), ("traces<10/1h", None), ("seconds>5/1h", 5.5),
        ("p95_seconds>9/1h", 10), ("score.x<1/1h", None), ("traces<1/1m", 0), ("errors>0/1m", None),
    ):  # fmt: skip
        alert = AlertRule.parse(text).check(store, NOW)
        assert (None if alert is None else pytest.approx(alert.value)) == value, text
    store.add_score(f"{1:032x}", "x", "x", 0.5)
    import time

    assert AlertRule.parse("score.x<1/1h").check(store, time.time() + 1) is not None


@pytest.mark.parametrize(
    "text", ["", "errors", "errors>x/1h", "nothing>1/1h", "errors>1", "errors~0/1h", "errors>nan/1h", "errors>1/1"]
)
def test_a_rule_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError):
        AlertRule.parse(text)


def test_a_control_chart_has_the_limits_of_shewhart() -> None:
    values = [10.0, 12.0, 11.0, 13.0, 12.0]
    centre, sigma = chart_of(values)
    assert centre == pytest.approx(11.6) and sigma == pytest.approx((2 + 1 + 2 + 1) / 4 / 1.128)


def test_an_outlier_on_the_chart_is_an_alert_and_noise_is_none(store: TraceStore) -> None:
    rule = AlertRule.parse("seconds~3/5m")
    end = NOW // 300 * 300
    for back in range(1, 12):
        add(store, otlp.span(back, 1, took_s=10 + back % 2), at_s=end - back * 300 + 10)
    assert rule.check(store, end + 1) is None
    add(store, otlp.span(50, 1, took_s=40), at_s=end - 200)
    alert = rule.check(store, end + 1)
    assert alert is not None and alert.value == pytest.approx((11 + 40) / 2) and "above the limits" in alert.said
    assert AlertRule.parse("seconds~3/1d").check(store, end + 1) is None, "too few windows before it"


class Hook(BaseHTTPRequestHandler):
    statuses: list[int]
    bodies: list[bytes]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.statuses.pop(0))
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, Any]]:
    handler = type("OneHook", (Hook,), {"statuses": [], "bodies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", handler
    server.shutdown()
    server.server_close()
    thread.join()


ALERT = Alert("errors>0.1/1h", 0.5, "errors is 0.5", NOW)


def test_a_webhook_is_called_and_tried_again_where_it_may_be(
    hook: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "FIRST_WAIT_S", 0.01)
    url, handler = hook
    port = url.rpartition(":")[2].partition("/")[0]
    allowed = parse_rules("127.0.0.0/8", port)
    handler.statuses[:] = [503, 200]
    assert asyncio.run(deliver(ALERT, url, allowed)) == ""
    assert [json.loads(body) for body in handler.bodies] == [ALERT.to_json()] * 2
    handler.statuses[:] = [302, 302, 302]
    assert "302" in asyncio.run(deliver(ALERT, url, allowed)) and len(handler.bodies) == 5, "a redirect is not followed"


def test_a_webhook_in_the_own_network_is_refused(hook: tuple[str, Any]) -> None:
    url, handler = hook
    port = url.rpartition(":")[2].partition("/")[0]

    async def evil(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    assert "no public address" in asyncio.run(deliver(ALERT, url, parse_rules("", port)))
    named = url.replace("127.0.0.1", "rebound.example")
    assert "no public address" in asyncio.run(deliver(ALERT, named, parse_rules("", port), evil))
    assert "port" in asyncio.run(deliver(ALERT, url, parse_rules("127.0.0.0/8", "443")))
    assert handler.bodies == []


def test_an_alert_is_told_once_until_it_was_over(tmp_path: Path) -> None:
    out = tmp_path / "alerts.jsonl"
    intake = Intake(tmp_path, IntakeSettings(alerts=parse_alerts(["errors>0.1/1h"]), alert_to=str(out)))
    try:
        add(intake.store, otlp.span(1, 1, error="e"), at_s=NOW - 10)
        for later in (0, 5, 10):
            intake.tick(NOW + later)
        assert len(out.read_text().splitlines()) == 1
        intake.tick(NOW + 4000)  # over
        add(intake.store, otlp.span(2, 1, error="e"), at_s=NOW + 7190)
        intake.tick(NOW + 7200)
        assert [json.loads(line)["rule"] for line in out.read_text().splitlines()] == ["errors>0.1/1h"] * 2
        assert out.stat().st_mode & 0o077 == 0
    finally:
        intake.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alerts": parse_alerts(["errors>1/1h"])}, "go together"),
        ({"alert_to": "x"}, "go together"),
        ({"alerts": parse_alerts(["errors>1/1h"]), "alert_to": "/no/such/folder/x"}, "folder"),
        ({"alerts": parse_alerts(["errors>1/1h"]), "alert_to": "http://h:99/"}, "port 99"),
        ({"alerts": parse_alerts(["errors>1/1h"]), "alert_to": "http://u:p@h/"}, "refused"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IntakeSettings(**settings, alert_rules=Rules())


@pytest.mark.slow
def test_one_process_receives_for_a_home(tmp_path: Path) -> None:
    first = Intake(tmp_path)
    with pytest.raises(ConfigError, match="another process"):
        Intake(tmp_path)
    first.close()
    Intake(tmp_path).close()
