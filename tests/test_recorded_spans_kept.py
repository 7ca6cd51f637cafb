"""The sender's queue, its thread and its headers, and the run that keeps recorded roots: at limits, after forks, closed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import firsthand.runs.store as run_store
from firsthand.ingest import recording, span_sender
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_environment import pairs_of
from firsthand.ingest.recording import current_span, flush_traces, trace_to, traced
from firsthand.ingest.redaction import PUT
from firsthand.ingest.span_sender import OtlpSender, RunRecorder
from firsthand.trace import Trace


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)


# -- the sender --


class Kept(OtlpSender):
    """Keeps the batches that it would send."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "shop", {})
        self.batches: list[list[str]] = []
        self.came = threading.Event()

    def _sent(self, client: Any, batch: Sequence[IncomingSpan]) -> int:
        self.batches.append([each.name for each in batch])
        if "last" in self.batches[-1]:
            self.came.set()
        return 0 if "bad" in self.batches[-1] else len(batch)


def named(name: str, trace: int = 1, **attributes: Any) -> IncomingSpan:
    held = {key.replace("__", "."): value for key, value in attributes.items()}
    return IncomingSpan(f"{trace:032x}", f"{trace:016x}", "", name, 10, 30, held)


def test_what_is_being_sent_is_not_sent_yet() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(Kept):
        def _sent(self, client: Any, batch: Sequence[IncomingSpan]) -> int:
            begun.set()
            return may_end.wait(10) and super()._sent(client, batch)

    sender = Slow()
    sender.put(named("last"), True)
    threading.Thread(target=sender.flush, args=(10,)).start()
    assert begun.wait(10) and not sender._waiting and sender.flush(0.01) is False
    may_end.set()
    assert sender.flush(10) is True and (sender.batches, sender.dropped) == ([["last"]], 0)


def test_what_is_one_too_many_is_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(span_sender, "MAX_WAITING", 2)
    monkeypatch.setattr(span_sender, "MAX_OPEN_TRACES", 2)
    sender = Kept()
    sender._pid = os.getpid()  # nothing takes what waits
    dropped = [(sender.put(named(name), False), sender.dropped)[1] for name in "abcd"]
    assert dropped == [0, 0, 1, 2] and [each.name for each, _ in sender._waiting] == ["a", "b"]
    recorder = RunRecorder(tmp_path / "run", "s")
    open_now = []
    for trace in (1, 2, 2, 3, 4):
        recorder.put(named("n", trace), False)
        open_now.append(([int(each, 16) for each in recorder._open], recorder.dropped))
    assert open_now == [([1], 0), ([1, 2], 0), ([1, 2], 0), ([2, 3], 1), ([3, 4], 2)], "the oldest goes"


def test_a_collector_that_is_busy_is_asked_three_times_and_one_that_refuses_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(span_sender, "time", SimpleNamespace(sleep=slept.append))
    sender = OtlpSender("http://127.0.0.1:1", "shop", {})
    for statuses, sent, waits in (
        ([200], True, 0), ([299], True, 0), ([300], False, 0), ([400], False, 0), ([500], False, 0), ([501], False, 0),
        ([429, 202], True, 1), ([502, 503, 200], True, 2), ([504, 504, 504, 200], False, 3), ([503, 404], False, 1),
        ([None, 200], True, 1), ([None, None, None], False, 3),
    ):  # fmt: skip
        slept.clear()
        left = list(statuses)

        def answer(request: httpx.Request, left: Any = left) -> httpx.Response:
            status = left.pop(0)
            if status is None:
                raise OSError("gone")
            return httpx.Response(status)

        with httpx.Client(transport=httpx.MockTransport(answer)) as client:
            assert sender._sent(client, [named("n")]) == int(sent), statuses
        assert slept == [pytest.approx(each) for each in (0.2, 0.8, 3.2)[:waits]]


def test_numbers_that_otlp_cannot_hold_are_texts() -> None:
    value = span_sender._value
    assert [value(-(2**63)), value(2**63 - 1), value(0)] == [
        {"intValue": str(-(2**63))}, {"intValue": str(2**63 - 1)}, {"intValue": "0"}]  # fmt: skip
    assert [value(-(2**63) - 1), value(2**63)] == [{"stringValue": str(-(2**63) - 1)}, {"stringValue": str(2**63)}]
    assert [value(each) for each in (True, False, 0.5, float("-inf"), "", None)] == [
        {"boolValue": True}, {"boolValue": False}, {"doubleValue": 0.5}, {"stringValue": "-inf"}, {"stringValue": ""},
        {"stringValue": "None"}]  # fmt: skip


def test_a_whole_batch_is_sent_at_once_and_less_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "BATCH", 3)
    monkeypatch.setattr(span_sender, "EVERY_S", 20.0)
    sender = Kept()
    assert sender.flush(0.0) is True, "nothing waits"
    sender.put(named("bad"), False)
    assert sender.flush(10.0) is True and sender.batches == [["bad"]] and sender.dropped == 1
    end = time.monotonic() + 10
    while not sender._changed._waiters and time.monotonic() < end:  # type: ignore[attr-defined]
        time.sleep(0.001)
    for name in ("bad", "b", "last"):
        sender.put(named(name), False)
    assert sender.came.wait(10.0) and sender.batches[1:] == [["bad", "b", "last"]]
    assert sender.flush(10.0) and sender.dropped == 4 and len(sender.batches) == 2
    monkeypatch.setattr(span_sender, "EVERY_S", 0.001)
    assert sender.flush(10.0)
    time.sleep(0.03)
    assert len(sender.batches) == 2 and sender.dropped == 4, "nothing is sent while nothing waits"


def test_a_forked_process_starts_a_sender_of_its_own_and_waits_for_none_that_is_gone() -> None:
    sender = Kept()
    sender._pid = os.getpid() + 1
    sender._waiting.append((named("a"), 1))
    began = time.monotonic()
    assert sender.flush(30.0) is False and time.monotonic() - began < 10
    sender.put(named("last"), True)
    assert sender._pid == os.getpid() and sender.flush(10.0) is True
    assert [name for batch in sender.batches for name in batch] == ["a", "last"]


def test_headers_that_are_given_win_over_the_environment_and_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", " a = %20b ,content-type=x")
    assert pairs_of(" a = %20b%2C ,=v,b,c==") == {"a": " b,", "": "v", "c": "="}
    came: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        came.append(request)
        return httpx.Response(204)

    sender = OtlpSender("http://h//", "s", {"content-type": "application/json; v=2", "Authorization": "Bearer k"})
    assert sender.url == "http://h//"
    assert OtlpSender("http://h:1/", "s", {}).url == "http://h:1/v1/traces"
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert sender._sent(client, [named("n")]) == 1
    (request,) = came
    assert [request.headers[name] for name in ("a", "content-type", "authorization", "content-encoding")] == [
        "b", "application/json; v=2", "Bearer k", "gzip",
    ]  # fmt: skip
    assert str(request.url) == "http://h//" and request.method == "POST"


# -- the run --


def test_a_run_goes_on_after_it_was_closed_and_what_cannot_be_kept_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = RunRecorder(tmp_path / "file" / "run", "shop")
    nowhere.put(named("n"), True)
    assert nowhere.dropped == 1 and nowhere._open == {} and nowhere.flush(1.0) is True
    folder = tmp_path / "deep" / "run"
    recorder = RunRecorder(folder, "shop")
    tool = {"openinference__span__kind": "TOOL", "tool__name": "t"}
    recorder.put(named("n\ud800", 1, input__value={"n": 2}, output__value={"password": "hunter22"}, **tool), True)
    assert recorder.flush(0.0) is True and recorder.dropped == 0 and recorder.flush(0.0) is True
    with run_store.open_run(folder, folder.parent) as run:
        assert run.status == "done"
        (kept,) = run.traces()
    digest = hashlib.sha256(b'{"n": 2}').hexdigest()[:12]
    assert (kept.task_id, kept.agent, kept.answer) == (
        f"n\ud800-{digest}", {"name": "shop", "model": ""}, f'{{"password": "{PUT}"}}',
    )  # fmt: skip
    assert [(call.kind, call.detail["arguments"], call.duration_s) for call in kept.calls] == [
        ("tool", {"n": 2}, 20e-9)
    ]
    recorder.put(named("n", 2, openinference__span__kind="CHAIN", input__value="é\ud800?", output__value="a"), True)
    low = IncomingSpan(f"{3:032x}", f"{9:016x}", f"{3:016x}", "low", 12, 20, {"api_key": "abcdefgh", **{
        "openinference.span.kind": "LLM", "llm.token_count.prompt": 4, "llm.token_count.completion": 3}})  # fmt: skip
    recorder.put(low, False)
    recorder.put(named("n", 3, openinference__span__kind="CHAIN", input__value="why", output__value="so"), True)
    recorder.flush(9.0)
    assert low.attributes["api_key"] == PUT and low.redactions == 1
    with run_store.open_run(folder, folder.parent) as run:
        traces = list(run.traces())
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in ("é\ud800?", "why")]
    assert [each.task_id for each in traces[1:]] == [f"n-{digest}" for digest in digests]
    assert (traces[2].answer, traces[2].duration_s, traces[2].usage.total_tokens) == ("so", 20e-9, 7)


def test_what_waits_is_sent_or_closed_when_the_program_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_end: list[tuple[Any, tuple[Any, ...]]] = []
    monkeypatch.setattr(span_sender.atexit, "register", lambda called, *given: at_end.append((called, given)))
    sender, folder = Kept(), tmp_path / "run"
    recorder = RunRecorder(folder, "shop")
    assert at_end == [(sender.end, (5.0,)), (recorder.end, (5.0,))]
    sender.put(named("last"), True)
    recorder.put(named("n", openinference__span__kind="CHAIN", input__value="q", output__value="a"), True)
    with run_store.open_run(folder, folder.parent) as run:
        assert run.status != "done"
    for called, given in at_end:
        assert called(*given) is True
    assert sender.batches == [["last"]]
    with run_store.open_run(folder, folder.parent) as run:
        assert run.status == "done" and [each.answer for each in run.traces()] == ["a"]


def kept_in(folder: Path) -> list[Trace]:
    with run_store.open_run(folder, folder.parent) as run:
        return list(run.traces())


@traced
def rewrite(words: str) -> str:
    return f"rewritten {words}"


@traced
def fetch(address: str, key: str = "") -> str:
    raise ValueError(f"503 at {address}")


@traced(kind="llm")
def ask(words: str) -> str:
    span = current_span()
    assert span is not None
    span.set(llm__model_name="m", gen_ai__request__temperature=0.5)
    return "Paris"


@traced(kind="tool")
def look_up(place: str) -> str:
    span = current_span()
    assert span is not None
    span.set(shelf=7)
    return "on shelf 7"


@traced(kind="agent")
def answer(question: str, document: str) -> str:
    span = current_span()
    assert span is not None
    span.set(session__id="s-7", user__id="ada")
    rewrite("inner")
    look_up("Paris")
    with contextlib.suppress(ValueError):
        fetch("http://h", key="sk-proj-abcdefghijklmnopqrstuvwx0123456789")
    return ask("Capital?")


def test_a_run_keeps_all_that_was_recorded_of_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_destination", recording._Destination())
    trace_to(tmp_path / "run")
    answer("Capital?", "of France")
    answer("Capital?", "of Italy")
    flush_traces()
    (first, second) = kept_in(tmp_path / "run")
    assert first.task_id != second.task_id, "two documents are two tasks"
    root, inner, failed = (event.data for event in first.events)
    assert root["attributes"] == {
        "openinference.span.kind": "AGENT", "input.value": '{"question": "Capital?", "document": "of France"}',
        "session.id": "s-7", "user.id": "ada", "output.value": "Paris",
    }  # fmt: skip
    assert (inner["attributes"]["input.value"], inner["attributes"]["output.value"]) == ("inner", "rewritten inner")
    assert "error" not in inner and "events" not in inner
    assert failed["error"] == "ValueError: 503 at http://h" and "http://h" in failed["attributes"]["input.value"]
    assert [each["name"] for each in failed["events"]] == ["exception"]
    assert PUT in failed["attributes"]["input.value"] and "abcdefghij" not in str(first.to_json())
    tool, generation = (call.detail for call in first.calls)
    assert tool["attributes"]["shelf"] == 7 and (tool["arguments"], tool["result"]) == ("Paris", "on shelf 7")
    assert generation["attributes"]["gen_ai.request.temperature"] == 0.5 and generation["model"] == "m"


def test_what_a_guard_spent_is_kept_with_its_attributes_once(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path / "run", "shop")
    held = {"openinference__span__kind": "GUARDRAIL", "llm__token_count__prompt": 5, "verdict": "pass"}
    recorder.put(named("g", **held), True)
    recorder.flush(1.0)
    (kept,) = kept_in(tmp_path / "run")
    assert kept.events[0].data["attributes"]["verdict"] == "pass"
    assert kept.usage.total_tokens == 5 and "attributes" not in kept.calls[0].detail


def test_conversations_that_end_in_the_same_words_are_tasks_of_their_own(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path / "run", "shop")

    def task_of(number: int, *said: tuple[str, str]) -> str:
        messages = json.dumps([{"role": role, "content": text} for role, text in said])
        recorder.put(named("n", number, openinference__span__kind="CHAIN", input__value=messages), True)
        return kept_in(tmp_path / "run")[-1].task_id

    one = task_of(1, ("user", "tea?"), ("assistant", "3"), ("user", "and now?"))
    other = task_of(2, ("user", "coffee?"), ("assistant", "3"), ("user", "and now?"))
    again = task_of(3, ("system", "new"), ("user", "tea?"), ("assistant", "three"), ("user", "and now?"))
    alone = task_of(4, ("user", "and now?"))
    bare = task_of(5, ("system", "new"), ("user", "and now?"))
    assert len({one, other, alone}) == 3 and again == one and bare == alone
    assert alone == f"n-{hashlib.sha256(b'and now?').hexdigest()[:12]}", "as it was"
    recorder.flush(1.0)


@pytest.mark.parametrize("method", ["_opened", "_keep", "_take_waiting"])
def test_a_stream_that_is_dropped_while_a_trace_is_kept_is_kept_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    recorder = RunRecorder(tmp_path / "run", "shop")
    monkeypatch.setattr(recording, "_destination", recording._Destination(recorder, True, 1.0))
    streams = [traced(lambda: iter("ab"), name=f"stream {number}")() for number in range(3)]
    before = getattr(recorder, method)

    def collected(*args: Any) -> Any:  # as the garbage collector does, at any allocation
        if streams:
            del streams[0]
        found = before(*args)
        streams.clear()
        return found

    monkeypatch.setattr(recorder, method, collected)

    def kept() -> None:
        traced(lambda: "Paris", name="asked")()
        recorder.flush(1.0)

    thread = threading.Thread(target=kept, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for itself"
    with run_store.open_run(tmp_path / "run", tmp_path) as run:
        names = sorted(trace.task_id.rpartition("-")[0] for trace in run.traces())
    assert names == ["asked", "stream 0", "stream 1", "stream 2"] and recorder.dropped == 0
