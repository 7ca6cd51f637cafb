"""The ends of requests at a server: clients that read nothing, servers that stop, errors in a stream, and the log."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.admission.metered_answers import metered
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import Events, event
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.telemetry.metrics import Metrics
from firsthand.serve.telemetry.request_log import RequestLog
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scope_of(path: str = "/a/x", **more: Any) -> dict[str, Any]:
    return {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": [HOST], **more}


async def body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"{}", "more_body": False}


def receiving() -> Any:
    """A client that sends its body, and stays."""
    sent: list[int] = []

    async def receive() -> dict[str, Any]:
        if sent:
            await asyncio.sleep(60)
        sent.append(1)
        return await body()

    return receive


def test_a_client_that_reads_nothing_is_cut_off_and_written_down(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)

    served = Exchanges(app, log=str(tmp_path / "log"), admission=Admission(settings=AdmissionSettings(stall_s=0.01)))
    aborted: list[str] = []

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def main() -> None:
        extensions = {"firsthand.abort": lambda: aborted.append("abort")}
        await asyncio.wait_for(served.middleware(scope_of(extensions=extensions), receiving(), stuck), 5)
        await asyncio.wait_for(served.middleware(scope_of(), receiving(), stuck), 5)

    asyncio.run(main())
    served.telemetry.close()
    told = [(line["status"], line["error"]) for line in lines_of(tmp_path / "log")]
    assert told == [(499, "the client read nothing for 0.01 s")] * 2 and aborted == ["abort"]
    assert served.telemetry.metrics.disconnects == 2 and served.telemetry.metrics.requests == {("/a/x", "499"): 2}
    assert (served.admission.active, served.admission.in_flight) == (set(), 0)


def test_a_client_that_read_its_answer_keeps_its_connection_and_nothing_goes_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)

    served = Exchanges(app, admission=Admission(settings=AdmissionSettings(stall_s=0.01)))
    aborted: list[str] = []

    async def takes(message: Any) -> None: ...

    async def main() -> None:
        extensions = {"firsthand.abort": lambda: aborted.append("abort")}
        await served.middleware(scope_of(extensions=extensions), receiving(), takes)
        await asyncio.sleep(0.03)
        assert aborted == [] and len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert served.telemetry.metrics.requests == {("/a/x", "201"): 1} and served.telemetry.metrics.disconnects == 0


def test_a_server_that_stops_tells_who_waits_and_a_client_that_breaks_off_is_not_told(tmp_path: Path) -> None:
    running: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"{}", "more_body": False}
        if scope["path"].endswith("begun"):
            await start(send, b"one", more=True)
        running.append(scope["path"])
        if scope["path"].endswith("gone"):
            assert await receive() == {"type": "http.disconnect"}
        await asyncio.sleep(60)

    async def stopped(served: Exchanges, path: str) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        serving = asyncio.create_task(served.middleware(scope_of(path), receiving(), send))
        while path not in running:
            await asyncio.sleep(0)
        assert len(served.admission.active) == 1
        serving.cancel()
        await serving
        return sent

    served = Exchanges(slow, log=str(tmp_path / "log"))
    waited = asyncio.run(stopped(served, "/a/x"))
    assert waited[0]["status"] == 503 and (b"connection", b"close") in waited[0]["headers"]
    assert json.loads(waited[1]["body"])["error"]["message"] == "the server is stopping: ask another one"
    begun = asyncio.run(stopped(served, "/a/begun"))
    assert [each["type"] for each in begun] == ["http.response.start", "http.response.body"] and begun[0][
        "status"
    ] == 201
    assert served.ask(path="/a/gone", leaves=True) == (0, {}, b"")

    async def broken(message: Any) -> None:
        raise BrokenPipeError

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await start(send)

    breaks = Exchanges(answers, log=str(tmp_path / "other"))
    asyncio.run(breaks.middleware(scope_of(), receiving(), broken))
    for each in (served, breaks):
        each.telemetry.close()
    assert [line["status"] for line in lines_of(tmp_path / "log")] == [503, 201, 499]
    assert breaks.telemetry.metrics.requests == {("/a/x", "499"): 1} and "error" not in lines_of(tmp_path / "other")[0]
    assert breaks.admission.in_flight == 0 == served.admission.in_flight


def test_a_refusal_is_told_in_the_shape_of_its_route_and_a_notes_code_counts(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = request_of(scope)
        request.notes |= {"code": 502, "error": "first"}
        if scope["path"].endswith("refuse"):
            raise Refusal(418, "no", headers={"x-why": "tea"})
        if scope["path"].endswith("late"):
            raise TimeoutError
        if scope["path"].endswith("left"):
            raise ClientLeft
        await start(send)

    served = Exchanges(
        app, log=str(tmp_path / "log"), error_jsons={"/refuse": lambda refusal: {"short": refusal.message}}
    )
    assert served.ask()[0] == 201
    served.middleware._apps[0].error_jsons["/a/refuse"] = lambda refusal: {"own": refusal.message}  # type: ignore[index]
    status, fields, content = served.ask(path="/a/refuse")
    assert (status, fields["x-why"], json.loads(content)) == (418, "tea", {"own": "no"})
    assert served.ask(path="/a/late") == (0, {}, b"") == served.ask(path="/a/left")
    served.telemetry.close()
    assert served.telemetry.metrics.requests == {("/a/x", "502"): 1, ("/a/refuse", "502"): 1, ("/a/late", "502"): 1,
                                                 ("/a/left", "502"): 1}  # fmt: skip
    found = [(line["status"], line["code"], line["error"]) for line in lines_of(tmp_path / "log")]
    assert found == [(201, 502, "first"), (418, 502, "first"), (499, 502, "first"), (499, 502, "first")]


def test_a_stream_sends_its_first_event_then_writes_and_ends_with_what_went_wrong() -> None:
    def request() -> ActiveRequest:
        return ActiveRequest("r", Client("ann", ClientLimits()), "/x")

    async def sent_by(*pieces: Any, done: bool = True, write: Any = None, **about: Any) -> Any:
        made = request()

        async def events() -> Any:
            for each in pieces:
                if isinstance(each, BaseException):
                    raise each
                yield each

        stream = await Events.begin(made, events(), done=done)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {} if write is None else {"extensions": {"firsthand.write": write}}
        await stream(scope, None, send)  # type: ignore[arg-type]
        assert sent[0] == {"type": "http.response.start", "status": 200, "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]}  # fmt: skip
        assert [each.get("more_body", False) for each in sent[1:]] == [True] * (len(sent) - 2) + [False]
        return [each["body"] for each in sent[1:]], made.notes

    done = b"data: [DONE]\n\n"
    assert asyncio.run(sent_by(b"a", b"b", b"c")) == ([b"a", b"b", b"c", done], {})
    assert asyncio.run(sent_by(b"a", done=False)) == ([b"a", b""], {})
    written: list[bytes] = []

    def write(content: bytes) -> bool:
        written.append(content)
        return content == b"b"

    assert asyncio.run(sent_by(b"a", b"b", b"c", write=write)) == ([b"a", b"c", done], {}) and written == [b"b", b"c"]
    refusal = Refusal(429, "too many", code="slow")
    bodies, notes = asyncio.run(sent_by(b"a", refusal))
    assert bodies == [b"a", event(refusal.to_json()) + done] and notes == {"error": "too many", "code": 429}
    bodies, notes = asyncio.run(sent_by(b"a", KeyError("secret")))
    assert b"secret" not in bodies[1] and notes["code"] == 500 and "KeyError" in notes["traceback"]
    with pytest.raises(ConnectionResetError):
        asyncio.run(sent_by(b"a", ConnectionResetError()))
    for error in (refusal, StopAsyncIteration()):
        with pytest.raises((Refusal, StopAsyncIteration, RuntimeError)):
            asyncio.run(sent_by(error))

    async def cancelled(reason: Refusal | None) -> Any:
        made = request()
        made.error_json = lambda refusal: {"type": "error", "text": refusal.message}
        closed: list[str] = []

        async def events() -> Any:
            try:
                yield b"a"
                await asyncio.sleep(60)
            finally:
                closed.append("closed")

        stream = await Events.begin(made, events())
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message.get("body"))

        made.task = asyncio.create_task(stream({}, None, send))  # type: ignore[arg-type]
        while len(sent) < 2:
            await asyncio.sleep(0)
        if reason is None:
            made.task.cancel()
        else:
            made.cancel(reason)
        await asyncio.wait({made.task})
        return sent[1:], closed, made.task.cancelled(), made.notes

    sent, closed, was_cancelled, notes = asyncio.run(cancelled(Refusal(504, "too long")))
    assert sent == [b"a", b'event: error\ndata: {"type":"error","text":"too long"}\n\n' + done]
    assert closed == ["closed"] and not was_cancelled and notes == {"error": "too long", "code": 504}
    assert asyncio.run(cancelled(None)) == ([b"a"], ["closed"], True, {})


def test_pieces_are_timed_by_answer_and_counted_when_one_ends() -> None:
    telemetry, admission = ServerTelemetry(TelemetrySettings(log="none")), Admission()
    client = Client("ann", ClientLimits(tokens_per_minute=100))
    request = ActiveRequest("r", client, "/x")
    told: list[Any] = []
    request.span = SimpleNamespace(answered=lambda *given: told.append(given))  # type: ignore[assignment]
    one, two = (
        Completion(assistant(text), "stop", usage) for text, usage in (("ab", Usage(5, 2, 3)), ("c", Usage(7, 1, 4)))
    )
    pieces = (
        Delta(""), Delta("a", index=0), Delta("", index=1, token_ids=(9,)), Delta("b", index=0), Delta("", two, index=1),
        Delta("b", one, index=0, waited_s=0.5),
    )  # fmt: skip
    closed: list[str] = []

    async def answers() -> Any:
        try:
            for each in pieces:
                await asyncio.sleep(0.002)
                yield each
        finally:
            closed.append("closed")

    async def main() -> list[Delta]:
        return [each async for each in metered(answers(), request, admission, telemetry)]

    assert asyncio.run(main()) == list(pieces) and closed == ["closed"]
    metrics = telemetry.metrics
    assert sum(metrics.first_token.counts) == 2 and sum(metrics.between_tokens.counts) == 1
    assert 3 < request.notes["ttft_ms"] < 1000 and 0.003 < metrics.between_tokens.total < 1
    assert metrics.tokens == {"prompt": 12, "cached": 3, "completion": 7}
    assert {key: value for key, value in request.notes.items() if key != "ttft_ms"} == {
        "prompt_tokens": 12, "cached_tokens": 3, "completion_tokens": 7,
    }  # fmt: skip
    assert told == [(two, None), (one, 0.5)] and [count for _, count in admission._spent["ann"]] == [11, 8]

    async def left() -> None:
        pieces = metered(answers(), request, admission, telemetry)
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(left())
    assert closed == ["closed", "closed"]


def test_each_client_has_its_own_allowance_and_each_request_its_own_reason() -> None:
    admission = Admission()
    ann, bob = (Client(name, ClientLimits(tokens_per_minute=10)) for name in ("ann", "bob"))
    admission.charge(ann, 10)
    admission.charge(bob, 9)
    used_up = r"^ann has had its 10 tokens of this minute: wait$"
    with admission.slot(bob), pytest.raises(Refusal, match=used_up), admission.slot(ann):
        pass
    admission.charge(bob, 1)
    assert 59 < admission.wait_for_tokens_s(bob) <= 60 and list(admission._spent) == ["ann", "bob"]

    async def main() -> None:
        async def waits() -> None:
            await asyncio.sleep(60)

        requests = [ActiveRequest(str(at), ann, "/x") for at in range(3)]
        for request in requests[:2]:
            request.task = asyncio.create_task(waits())
        admission.active.update(requests)
        first, later = Refusal(503, "first"), Refusal(503, "later")
        requests[1].cancel(first)
        admission.cancel_all(later)
        await asyncio.wait([request.task for request in requests if request.task])
        assert [request.cancelled for request in requests] == [later, first, None]
        assert all(request.task.cancelled() for request in requests[:2] if request.task)
        done = ActiveRequest("4", ann, "/x", task=requests[0].task)
        done.cancel(first)
        assert done.cancelled is None, "it is over"

    asyncio.run(main())


def test_a_log_is_a_file_standard_error_or_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    log = RequestLog(tmp_path / "log", metrics)
    log.write("one", id="é", none=None, zero=0, path=tmp_path)
    log.close()
    log.write("two")
    again = RequestLog(str(tmp_path / "log"), metrics)
    again.write("three")
    again.close()
    lines = lines_of(tmp_path / "log")
    assert abs(time.time() - datetime.fromisoformat(lines[0].pop("at")).timestamp()) < 60
    assert lines[0] == {"event": "one", "id": "é", "zero": 0, "path": str(tmp_path)} and lines[1]["event"] == "three"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600 and len(lines) == 2
    shown = RequestLog("-", metrics)
    shown.write("four")
    shown.close()
    RequestLog(None, metrics).write("five")
    assert json.loads(capfd.readouterr().err)["event"] == "four" and metrics.log_failures == 0
    with pytest.raises(Exception, match=r"^the log '/no/such/log' cannot be opened: No such file or directory$"):
        RequestLog("/no/such/log", metrics)


def test_lines_that_a_log_cannot_take_are_counted_and_requests_go_on(tmp_path: Path) -> None:
    metrics = Metrics()
    full = RequestLog("/dev/full", metrics) if Path("/dev/full").exists() else RequestLog(tmp_path / "log", metrics)
    if not Path("/dev/full").exists():
        full.close()
        full._file = 10**6
    full.write("one")
    full.write("two")
    assert metrics.log_failures == 2
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    short = RequestLog(tmp_path / "pipe", metrics)
    assert short._file is not None
    os.set_blocking(short._file, False)  # the pipe takes the beginning of a line
    short.write("three", text="x" * (1 << 21))
    assert metrics.log_failures == 3
    os.read(reader, 1 << 22)
    short.write("four")
    assert metrics.log_failures == 3 and b'"event": "four"' in os.read(reader, 1 << 22)
    short.close()
    os.close(reader)
    closed: list[str] = []
    telemetry = ServerTelemetry(TelemetrySettings(log=str(tmp_path / "own")))
    telemetry.spans = SimpleNamespace(close=lambda: closed.append("spans"))  # type: ignore[assignment]
    telemetry.close()
    assert closed == ["spans"] and telemetry.log._file is None
    ServerTelemetry(TelemetrySettings(log="none")).close()
    notes: dict[str, Any] = {"prompt_tokens": 1}
    telemetry.count_usage(notes, Usage(2, 3, 4))
    telemetry.count_usage(notes, Usage(10, 20, 30))
    assert notes == {"prompt_tokens": 13, "cached_tokens": 23, "completion_tokens": 34}
    assert telemetry.metrics.tokens == {"prompt": 12, "cached": 23, "completion": 34}
