"""The intake of traces step by step: what it opens and closes, its rounds, alerts that are told once, spans over gRPC."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.errors import ConfigError, StoreError
from firsthand.ingest import intake as rounds
from firsthand.ingest.alert_rules import Alert, AlertRule
from firsthand.ingest.cold_segments import read_sealed
from firsthand.ingest.intake import Intake, IntakeSettings, parse_alerts
from firsthand.ingest.redaction import PUT
from firsthand.ingest.span_writer import WriteOutcome
from firsthand.ingest.trace_evaluation import Evaluation
from received_spans import arrived, names, ready

NOW = 1_000_000.0


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes an intake whose own rounds have ended, so that a test takes each step itself."""
    opened: list[Intake] = []

    def make(home: Path, **settings: Any) -> Intake:
        problems: list[str] = []
        made = Intake(home, IntakeSettings(**settings), on_problem=problems.append)
        made.problems = problems  # type: ignore[attr-defined]
        made._end.set()
        made._keeper.join()
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.close()


def test_an_intake_holds_its_home_and_leaves_it_whole(tmp_path: Path, still: Any) -> None:
    folder = tmp_path / "home" / "traces"
    (folder / "segments" / "day=2026-01-01").mkdir(parents=True)
    (folder / "segments" / "day=2026-01-01" / "00000000000001-00000001.parquet").write_text("")
    intake = still(tmp_path / "home", redact=("ID-\\d",))
    assert not (folder / "segments" / "day=2026-01-01" / "00000000000001-00000001.parquet").exists(), (
        "what a kill left behind is removed"
    )
    assert intake.store.read_sealed is read_sealed is intake._keeping.read_sealed
    assert intake._keeping is not intake.store and intake._keeping.home == intake.store.home == tmp_path / "home"
    assert (folder / "intake.lock").exists() and not (intake._keeper.is_alive() or intake._fired)
    (ended,) = asyncio.run(submitted(intake, otlp.as_json(otlp.span(1, 1, text="ID-7 x"))))
    assert ended == WriteOutcome(1, 0) and intake.store.spans(f"{1:032x}")[0].span.attributes == {"text": f"{PUT} x"}
    assert list(folder.glob("*-wal"))
    waiting: list[WriteOutcome] = []
    slow = threading.Event()
    intake.writer.submit_spans(lambda: (slow.wait(5), ([], 3))[1], 1, waiting.append)
    threading.Timer(0.02, slow.set).start()
    intake.close()
    assert waiting == [WriteOutcome(0, 3)] and not intake.writer._thread.is_alive(), "what waits is written first"
    assert not list(folder.glob("*-wal")), "the last connection to be closed removes it"
    again = still(tmp_path / "home")
    assert again.settings == IntakeSettings(redact=()) and len(again.store.spans(f"{1:032x}")) == 1
    bad = tmp_path / "bad"
    (bad / "traces").mkdir(parents=True)
    (bad / "traces" / "traces.sqlite").write_text("no database" * 200)
    with pytest.raises(StoreError) as failed:
        Intake(bad)
    (bad / "traces" / "traces.sqlite").unlink()
    still(bad)  # the lock was given back
    assert "traces.sqlite" in str(failed.value)
    with pytest.raises(ConfigError, match="redact"):
        Intake(tmp_path / "never", IntakeSettings(redact=("(",)))
    assert not (tmp_path / "never").exists()
    other = still(tmp_path / "a" / "home")
    assert (other.store.folder.stat().st_mode & 0o777, other.store.folder.name) == (0o700, "traces"), (
        "its owner's alone"
    )


async def submitted(intake: Intake, raw: bytes) -> list[WriteOutcome]:
    ended: list[WriteOutcome] = []
    done = threading.Event()
    intake.writer.submit(raw, "json", "", lambda outcome: (ended.append(outcome), done.set())[0])
    await asyncio.to_thread(done.wait, 10)
    return ended


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    rules = parse_alerts(["cost>1/1h"])
    for given in ({"alerts": rules}, {"alert_to": str(tmp_path / "a")}):
        with pytest.raises(ConfigError) as refused:
            IntakeSettings(**given)  # type: ignore[arg-type]
        assert str(refused.value) == (
            "alert and alert_to go together: give rules, and the file or webhook that gets them"
        )
    with pytest.raises(ConfigError, match=r"alert_to is '.*no/a': give a file in a folder that is there"):
        IntakeSettings(alerts=rules, alert_to=str(tmp_path / "no" / "a"))
    assert IntakeSettings(alerts=rules, alert_to=str(tmp_path / "a"), cold_s=1.0).keep_s is None


def test_the_keeper_looks_each_tick_and_removes_each_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "TICK_S", 0.01)
    monkeypatch.setattr(rounds, "RETENTION_S", 0.03)
    looked: list[tuple[str, float]] = []

    class Watched(Intake):
        def tick(self, now_s: float) -> None:
            looked.append(("tick", now_s))

        def keep(self, now_s: float) -> None:
            looked.append(("keep", now_s))

    before = time.time()
    intake = Watched(tmp_path)
    deadline = time.monotonic() + 10
    while [kind for kind, _ in looked].count("keep") < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    intake.close()
    kinds = [kind for kind, _ in looked]
    assert kinds[:2] == ["tick", "keep"] and looked[0][1] == looked[1][1] >= before + 0.09
    assert kinds.count("tick") > kinds.count("keep") >= 2 and looked == sorted(looked, key=lambda each: each[1])


@pytest.mark.slow
def test_each_setting_keeps_what_it_says(tmp_path: Path, still: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[Any] = []
    monkeypatch.setattr(rounds, "give_back", given_back.append)

    def made(name: str, **settings: Any) -> Any:
        intake = still(tmp_path / name, **settings)
        intake.store.add([ready(trace, "1", body=b"{" + bytes(3000)) for trace in "abc"])
        arrived(intake.store, a=NOW - 30, b=NOW - 20, c=NOW - 10)
        intake.keep(NOW)
        assert intake.problems == [] and given_back == ([intake._keeping] if settings else [])
        given_back.clear()
        return names(intake.store), names(intake.store, "sealed")

    assert made("all") == (["a", "b", "c"], [])
    assert made("age", keep_s=20.0) == (["b", "c"], []) and made("size", keep_bytes=0) == ([], [])
    assert made("large", keep_bytes=1 << 30, keep_s=30.0) == (["a", "b", "c"], [])
    assert made("now", keep_s=0.0) == ([], []) and made("just", keep_s=10.0) == (["c"], [])
    assert made("soon", keep_s=9.999, keep_bytes=1 << 30) == ([], []) and made("none", keep_s=0.0, keep_bytes=0) == (
        [],
        [],
    )


def test_a_round_scores_and_alerts_and_a_problem_ends_nothing(tmp_path: Path, still: Any) -> None:
    async def fit(task: Any, trace: Any) -> float:
        return 0.25

    out = tmp_path / "alerts"
    intake = still(
        tmp_path, evaluation=Evaluation((("fit!", fit),)), alerts=parse_alerts(["score.fit<0.5/1m", "spans>1/1m"]),
        alert_to=str(out),
    )  # fmt: skip
    intake.store.add([ready("t", "1"), ready("t", "2", parent="1")])
    arrived(intake.store, t=NOW - 11)
    intake.score(NOW)
    intake.tick(NOW)
    assert intake.store.scores("t")[0][:4] == ("fit", 0.25, None, "fit!")
    assert [line.split('"')[3] for line in out.read_text().splitlines()] == ["spans>1/1m"], (
        "the score is of today's clock"
    )
    assert intake._fired == {"score.fit<0.5/1m": False, "spans>1/1m": True}
    intake.tick(NOW + 30)
    assert len(out.read_text().splitlines()) == 1, "it still holds"
    intake.tick(NOW + 50)
    assert intake._fired["spans>1/1m"] is False, "the window has passed"
    arrived(intake.store, t=NOW + 55)
    intake.tick(NOW + 59)
    assert len(out.read_text().splitlines()) == 2 and intake._fired["spans>1/1m"], "it was over, and is told again"
    intake._fired.clear()
    intake.tick(NOW + 60)
    assert len(out.read_text().splitlines()) == 2, "after a restart, told within its window already"
    assert [row[0] for row in intake.store.database.read("SELECT at_s FROM alerts ORDER BY seq")] == [NOW, NOW + 59]
    rule, alert = AlertRule.parse("cost>1/1m"), Alert("cost>1/1m", 2.0, "é", 5.0)
    assert not intake._is_known(rule, alert, NOW)
    intake._note(alert, "why", NOW + 7)
    intake._note(Alert("r", 1.5, "\ud800", 5.0), "", NOW)
    rows = intake.store.database.read(
        "SELECT rule, value, said, at_s, delivered FROM alerts WHERE seq > 2 ORDER BY seq"
    )
    assert rows == [("cost>1/1m", 2.0, "é", NOW + 7, "why"), ("r", 1.5, "\\ud800", NOW, "yes")]
    assert not intake._is_known(rule, alert, NOW + 7), "it was not delivered"
    intake._note(alert, "", NOW + 7)
    assert intake._is_known(rule, alert, NOW + 66.9) and not intake._is_known(rule, alert, NOW + 67)
    intake._fired["cost>1/1m"] = True
    assert intake._is_known(rule, alert, NOW + 999)

    def broken(kind: type[Exception]) -> Any:
        raise kind("x" * 400)

    intake._tried(lambda: broken(StoreError))
    intake._tried(lambda: broken(ValueError))
    assert intake.problems == ["x" * 400, "ValueError: " + "x" * 288]


def test_an_alert_is_tried_with_growing_pauses_until_it_is_delivered(
    tmp_path: Path, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[float, str, float]] = []
    now, why = NOW, "down"

    async def deliver(alert: Alert, target: str, rules: Any) -> str:
        tried.append((now - NOW, alert.rule, alert.at_s - NOW))
        return why

    monkeypatch.setattr(rounds, "deliver", deliver)
    texts = ["traces<1/1m", "spans>1/10m"]
    intake = still(tmp_path, alerts=parse_alerts(texts), alert_to=str(tmp_path / "out"))

    def run(until_s: float) -> list[tuple[float, str, float]]:
        nonlocal now
        tried.clear()
        while now <= NOW + until_s:
            intake.tick(now)
            now += 5
        return [*tried]

    quiet = texts[0]
    assert run(1999) == [(at, quiet, 0.0) for at in (0, 5, 10, 20, 40, 80, 160, 320, 640, 1240, 1840)]
    assert intake.problems == [f"an alert was not delivered to {tmp_path / 'out'}, and is tried again: down"] * 11
    assert intake.store.database.read("SELECT rule, at_s, delivered FROM alerts") == [(quiet, NOW, "down")]
    intake.store.add([ready("t", "1"), ready("t", "2", parent="1")])
    arrived(intake.store, t=NOW + 1999)
    assert run(2439) == [
        (2000, texts[1], 2000.0),
        *((2000 + at, texts[1], 2000.0) for at in (5, 10, 20, 40, 80, 160, 320)),
    ]
    why = ""
    assert run(9000) == [(2440, quiet, 2060.0), (2640, texts[1], 2000.0)], (
        "the newest of each rule, although the second is over"
    )
    rows = intake.store.database.read("SELECT rule, at_s - ?, delivered FROM alerts ORDER BY seq", (NOW,))
    assert rows[1:] == [(texts[1], 2000.0, "down"), (quiet, 2440.0, "yes"), (texts[1], 2640.0, "yes")]
    assert intake._fired == {quiet: True, texts[1]: False} and intake._waiting == {}


def test_an_alert_that_was_not_delivered_is_sent_after_a_restart_while_its_rule_holds(
    tmp_path: Path, still: Any
) -> None:
    def started(target: Path) -> Any:
        return still(tmp_path / "home", alerts=parse_alerts(["traces<1/1h"]), alert_to=str(target))

    (gone := tmp_path / "gone").mkdir()
    intake = started(gone / "out")
    gone.rmdir()
    intake.tick(NOW)
    assert len(intake.problems) == 1
    intake.close()
    for at in (10, 20):
        again = started(tmp_path / "out")
        again.tick(NOW + at)
        again.close()
        assert len((tmp_path / "out").read_text().splitlines()) == 1, "what was delivered is known"


def test_an_alert_that_waits_outlives_its_rule_and_the_process_and_is_sent_once(tmp_path: Path, still: Any) -> None:
    texts = ["traces<1/1m", "spans<1/1m"]

    def started(target: Path) -> Any:
        return still(tmp_path / "home", alerts=parse_alerts(texts), alert_to=str(target))

    (gone := tmp_path / "gone").mkdir()
    intake = started(gone / "out")
    gone.rmdir()
    intake.tick(NOW)
    intake.store.add([ready("t", "1")])
    arrived(intake.store, t=NOW + 30)
    intake.close()
    told = tmp_path / "out"
    for at in (40, 45):
        again = started(told)
        again.tick(NOW + at)
        again.close()
        sent = [json.loads(line) for line in told.read_text().splitlines()]
        assert [(each["rule"], each["value"], each["at"]) for each in sent] == [(text, 0.0, NOW) for text in texts]


def test_an_alert_of_before_a_restart_is_sent_within_a_day_or_its_window(tmp_path: Path, still: Any) -> None:
    day = 86_400
    for at, (window, age, is_sent) in enumerate(
        (
            ("1m", day, True),
            ("1m", day + 1, False),
            ("2d", 2 * day, True),
            ("2d", 2 * day + 1, False),
            ("1m", -700, True),
        )
    ):
        text, home, told = f"spans>9/{window}", tmp_path / f"home{at}", tmp_path / f"out{at}"
        intake = still(home, alerts=parse_alerts([text]), alert_to=str(told))
        intake._note(Alert(text, 1.0, "s", NOW), "down", NOW)
        intake.tick(NOW + age)
        assert told.exists() == is_sent
        intake.close()


def test_an_alert_of_before_a_restart_is_tried_with_pauses_also_if_its_rule_fails(
    tmp_path: Path, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, now = "spans>9/1m", NOW
    tried: list[float] = []

    async def deliver(alert: Alert, target: str, rules: Any) -> str:
        tried.append(now - NOW)
        return "down"

    def check(rule: Any, store: Any, now_s: float) -> None:
        raise StoreError("no")

    monkeypatch.setattr(rounds, "deliver", deliver)
    monkeypatch.setattr(AlertRule, "check", check)
    intake = still(tmp_path, alerts=parse_alerts([text]), alert_to=str(tmp_path / "out"))
    intake._note(Alert(text, 1.0, "s", NOW), "down", NOW)
    for now in (NOW + 5, NOW + 10, NOW + 15, NOW + 20):
        intake.tick(now)
    assert tried == [5, 10, 20]


def test_a_rule_or_a_delivery_that_fails_leaves_the_other_rules_their_turn(
    tmp_path: Path, still: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, failing = tmp_path / "out", ["spans<9/1h"]

    async def deliver(alert: Alert, target: str, rules: Any) -> str:
        if alert.rule in failing:
            raise OSError("of the network")
        out.open("a").write(f"{alert.rule}\n")
        return ""

    monkeypatch.setattr(rounds, "deliver", deliver)
    rules = parse_alerts(["traces<1/1h", "spans<9/1h", "cost<9/1h"])

    broken = ["traces<1/1h"]

    class Rule(AlertRule):
        def check(self, store: Any, now_s: float) -> Alert | None:
            if self.text in broken:
                raise StoreError("no such window")
            return super().check(store, now_s)

    intake = still(tmp_path, alerts=tuple(Rule(**vars(rule)) for rule in rules), alert_to=str(out))
    intake.tick(NOW)
    assert out.read_text() == "cost<9/1h\n" and intake.problems == ["no such window", "OSError: of the network"]
    failing.clear()
    broken.append("spans<9/1h")
    intake.tick(NOW + 1)  # what waits is delivered, whether or not its rule can be measured now
    assert out.read_text() == "cost<9/1h\nspans<9/1h\n"


def test_grpc_asks_for_the_key_and_tells_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    from firsthand.ingest import otlp_grpc
    from firsthand.ingest.otlp_grpc import _shows_key, serve_grpc

    class Told:
        outcome = WriteOutcome(2)
        taken: list[Any] = []  # noqa: RUF012

        def submit(self, raw: bytes, kind: str, encoding: str, done: Any) -> bool:
            self.taken.append((raw, kind, encoding))
            if self.outcome is not None:
                done(self.outcome)
            return True

    told: Any = Told()
    port, end = serve_grpc(told, 0, "k1")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")

            def answer(raw: bytes, *metadata: tuple[str, Any]) -> Any:
                try:
                    found = ExportTraceServiceResponse.FromString(export(raw, timeout=30, metadata=metadata))
                    return found.partial_success.rejected_spans, found.partial_success.error_message
                except grpc.RpcError as error:
                    return error.code().name, error.details()

            asked = ("UNAUTHENTICATED", "send the key that the Studio was started with, as authorization")
            assert answer(b"x") == asked == answer(b"x", ("authorization", "Bearer k")) and told.taken == []
            assert answer(b"raw", ("authorization", "Bearer k1")) == (0, "") and told.taken == [
                (b"raw", "protobuf", "")
            ]
            told.outcome = WriteOutcome(2, 5)
            assert answer(b"", ("x-api-key", "k1")) == (5, "spans without valid ids were left out")
            for outcome, code in (
                (WriteOutcome(problem="p"), "INVALID_ARGUMENT"),
                (WriteOutcome(1, 0, "p", True), "UNAVAILABLE"),
            ):
                told.outcome = outcome
                assert answer(b"", ("x-api-key", "k1")) == (code, "p")
            told.outcome = WriteOutcome(1)
            assert answer(bytes(5 << 20), ("x-api-key", "k1")) == (0, ""), "gRPC's own limit is 4 MiB"
            monkeypatch.setattr(otlp_grpc, "WAIT_S", 0.01)
            told.outcome = None
            waits = ("UNAVAILABLE", "too many requests wait: send it again later")
            assert answer(b"", ("x-api-key", "k1")) == waits
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be opened for gRPC"):
                serve_grpc(told, port)
    finally:
        end()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            serve_grpc(told, number)
    assert str(refused.value) == f"127.0.0.1:{number} cannot be opened for gRPC: give another --grpc-port"
    for shown, is_key in (
        ([("AUTHORIZATION", "Bearer ké")], True), ([("authorization", "ké ")], True), ([("X-Api-Key", "ké")], True),
        ([("authorization", "Bearer k"), ("x-api-key", "ké")], True), ([("authorization", "bearer ké")], False),
        ([("api-key", "ké")], False), ([("x-api-key", " ké")], False), ([], False),
    ):  # fmt: skip
        assert _shows_key(shown, "ké") is is_key, shown
