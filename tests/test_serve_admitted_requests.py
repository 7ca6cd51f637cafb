"""Requests past the admission of a server: the lines of their log, the app's wait for a client that leaves, and its work."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.refusals import Refusal, bad


def test_the_log_says_why_a_request_was_refused_and_has_the_traceback_of_a_bug_alone(tmp_path: Path) -> None:
    errors: dict[str, Exception] = {
        "/a/refused": bad("no such thing", "field"),
        "/a/broken": ConnectionResetError("gone"),
        "/a/bug": KeyError("k"),
        "/a/late": TimeoutError("late"),
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise errors[scope["path"]]

    served = Exchanges(app, log=str(tmp_path / "log"), admission=Admission(settings=AdmissionSettings(max_requests=1)))
    assert [served.ask(path=path)[0] for path in errors] == [400, 500, 500, 0]
    assert served.ask(headers=[(b"host", b"evil.example")])[0] == 421
    with served.admission.slot(served.admission.keys.anyone):
        status, fields, body = served.ask(path="/a/full", headers=[HOST, (b"x-request-id", b"mine")])
        assert (status, fields["retry-after"], fields["x-request-id"]) == (429, "1", "mine")
        assert json.loads(body)["error"]["code"] == "overloaded"
    served.telemetry.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    bug = lines[2].pop("traceback")
    assert bug.startswith("Traceback") and bug.endswith("KeyError: 'k'\n")
    always = {"at", "event", "id", "client", "method", "route", "status", "seconds"}
    assert [(line["route"], line["status"], {key: line[key] for key in line if key not in always}) for line in lines] == [
        ("/a/refused", 400, {"error": "no such thing"}), ("/a/broken", 500, {}), ("/a/bug", 500, {}), ("/a/late", 499, {}),
        ("/a/x", 421, {"error": "without API keys only this machine is served, not 'evil.example'"}),
        ("/a/full", 429, {"error": "1 requests are under way: try again later"}),
    ]  # fmt: skip
    assert served.telemetry.metrics.disconnects == 1 and served.admission.in_flight == 0


class Client:
    """A client that sends its body, and leaves when it is told to."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Any] = []
        self._has_sent = False

    async def receive(self) -> dict[str, Any]:
        if not self._has_sent:
            self._has_sent = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def served_to(client: Client, served: Exchanges, path: str = "/a/x") -> Any:
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": [HOST]}
    return asyncio.wait_for(served.middleware(scope, client.receive, client.send), 5)


def test_what_an_app_does_after_its_whole_answer_goes_on_when_the_client_leaves() -> None:
    done: list[str] = []

    async def main(*, whole: bool) -> Exchanges:
        client = Client()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await start(send, more=True)
            if whole:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            client.gone.set()
            for _ in range(10):
                await asyncio.sleep(0)
            done.append("whole" if whole else "half")

        served = Exchanges(app)
        await served_to(client, served)
        return served

    after, before = (asyncio.run(main(whole=whole)) for whole in (True, False))
    assert done == ["whole"], "one that leaves in the middle of its answer ends the app"
    assert after.telemetry.metrics.requests == {("/a/x", "201"): 1} and after.telemetry.metrics.disconnects == 0
    assert before.telemetry.metrics.requests == {("/a/x", "499"): 1} and before.telemetry.metrics.disconnects == 1


def test_a_client_that_leaves_is_noticed_after_the_app_has_stopped_waiting_for_it() -> None:
    async def main() -> tuple[list[Any], Exchanges]:
        client, seen = Client(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["body"] == b"{}"
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    seen.append(await receive())
            assert seen == [] and request_of(scope).task is asyncio.current_task()
            client.gone.set()
            for _ in range(10):
                await asyncio.sleep(0)
            seen.append("nobody told the app")

        served = Exchanges(app)
        await served_to(client, served)
        return seen, served

    seen, served = asyncio.run(main())
    assert seen == [] and served.telemetry.metrics.requests == {("/a/x", "499"): 1}


def test_the_first_reason_for_which_a_request_is_cut_off_reaches_a_client_that_stays() -> None:
    async def main() -> tuple[Any, Exchanges]:
        client = Client()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            request = request_of(scope)
            request.cancel(Refusal(504, "too long", code="timeout", headers={"x-why": "time"}))
            request.cancel(Refusal(503, "stopping"))
            await asyncio.sleep(60)

        served = Exchanges(app)
        await served_to(client, served)
        assert not client.gone.is_set() and len(asyncio.all_tasks()) <= 2
        return client.sent, served

    (begun, body), served = asyncio.run(main())
    assert begun["status"] == 504 and (b"x-why", b"time") in begun["headers"]
    assert json.loads(body["body"])["error"] == {
        "message": "too long", "type": "server_error", "param": None, "code": "timeout",
    }  # fmt: skip
    assert served.telemetry.metrics.requests == {("/a/x", "504"): 1} and served.telemetry.metrics.disconnects == 0
    assert served.admission.active == set() and served.admission.by_client == {}


def test_a_client_that_breaks_off_while_it_is_told_why_is_no_error_of_the_server(tmp_path: Path) -> None:
    class Broken(Client):
        async def send(self, message: Any) -> None:
            await super().send(message)
            raise BrokenPipeError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/a/refused":
            raise Refusal(418, "no")
        if scope["path"] == "/a/late":
            request_of(scope).cancel(Refusal(504, "too long"))
            await asyncio.sleep(60)
        raise KeyError("k")

    served = Exchanges(app, log=str(tmp_path / "log"))
    for path in ("/a/refused", "/a/late", "/a/bug"):
        client = Broken()
        asyncio.run(served_to(client, served, path))
        assert len(client.sent) == 1
    served.telemetry.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["status"], line.get("error"), "traceback" in line) for line in lines] == [
        (499, "no", False), (504, None, False), (499, None, True),
    ]  # fmt: skip
    assert served.admission.in_flight == 0 and served.admission.active == set()
