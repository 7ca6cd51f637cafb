"""Requests past the admission of a server: the lines of their log, the app's wait for a client that leaves, and its work."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client as ApiClient
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp
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
    assert len(lines[-1].pop("own_id")) == 24
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

    def __init__(self, body: bytes = b"{}") -> None:
        self.body, self.gone = body, asyncio.Event()
        self.sent: list[Any] = []
        self._has_sent = False

    async def receive(self) -> dict[str, Any]:
        if not self._has_sent:
            self._has_sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def served_to(client: Client, served: Exchanges, path: str = "/a/x", headers: Any = (), **more: Any) -> Any:
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": [HOST, *headers], **more}
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


def test_a_request_is_its_clients_and_its_routes_in_limits_log_errors_and_paths(tmp_path: Path) -> None:
    secrets = {"ann": "a" * 16, "bob": "b" * 16}
    limits = {"ann": ClientLimits(body_bytes=9), "bob": ClientLimits(body_bytes=10)}
    known = [ApiClient(name, limits[name], sha256(secrets[name].encode()).digest()) for name in secrets]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = request_of(scope)
        if request.body == b"[3, 4, 56]":
            raise Refusal(418, "no")
        await start(send, json.dumps([scope["root_path"], request.content_type, request.client.name]).encode())

    served = Exchanges(app, log=str(tmp_path / "log"), admission=Admission(Keys(tuple(known))))
    served.middleware._apps = [
        MountedApp(
            app, "/a", route_of=lambda path: "/{id}", error_jsons={"/a/{id}": lambda refusal: {"own": refusal.message}}
        )
    ]

    def asked(name: str, body: bytes, **more: Any) -> tuple[int, Any]:
        client = Client(body)
        headers = [(b"x-api-key", secrets[name].encode()), (b"content-type", b"application/json; charset=utf-8")]
        asyncio.run(served_to(client, served, "/a/x", headers, **more))
        return client.sent[0]["status"], json.loads(client.sent[1]["body"])

    kind = "application/json; charset=utf-8"
    assert asked("ann", b"[1, 2, 3]") == (201, ["/a", kind, "ann"])
    assert asked("bob", b"[1, 2, 34]", root_path="/up") == (201, ["/up/a", kind, "bob"])
    assert asked("bob", b"[3, 4, 56]") == (418, {"own": "no"})
    assert asked("ann", b"[3, 4, 56]")[0] == 413 and asked("bob", b"[3, 4, 567]")[0] == 413
    served.telemetry.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["client"], line["route"], line["status"]) for line in lines] == [
        ("ann", "/a/{id}", 201), ("bob", "/a/{id}", 201), ("bob", "/a/{id}", 418), ("ann", "/a/{id}", 413),
        ("bob", "/a/{id}", 413),
    ]  # fmt: skip


def test_a_server_that_stops_says_so_before_it_says_that_it_loads() -> None:
    def loads() -> None:
        raise Refusal(503, "the model is being loaded")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)

    served = Exchanges(app, check_ready=loads)
    assert served.refused() == (503, "the model is being loaded", None)
    served.admission.drain()
    assert served.refused() == (503, "the server is stopping: ask another one", "close")


def test_the_span_of_a_request_whose_client_left_in_the_middle_ends_with_499() -> None:
    closed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, more=True)
        await asyncio.sleep(60)

    served = Exchanges(app)
    span = SimpleNamespace(close=lambda *given: closed.append(given))
    served.telemetry.spans = SimpleNamespace(start=lambda *given: span)  # type: ignore[assignment]
    assert served.ask(leaves=True)[0] in (0, 201) and closed == [(499, "anyone")]
