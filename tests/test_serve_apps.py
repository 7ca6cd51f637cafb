"""Several apps on one server: a second one, of another make, behind the same keys, limits, drain, log and metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Keys, read_keys
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.server import Server
from served import Running, ServerParts, server_app, serving, until

ALICE, BOB = "alice-secret-0123456789", "bob-secret-0123456789ab"
HI = {"messages": [{"role": "user", "content": "Hi"}]}
HTTP = httpx.Client(timeout=30)


class Notes:
    """A small app: POST adds a note with the model's words on it, GET /stream sends a tick after another."""

    def __init__(self, parts: ServerParts) -> None:
        self.parts = parts
        self.life: list[str] = []
        self.left = 0
        routes = [Route("/add", self.add, methods=["POST"]), Route("/stream", self.stream), Route("/fail", self.fail)]
        self.app = Starlette(routes=routes)

    async def add(self, request: Request) -> JSONResponse:
        note = await request.json()
        under_way = request_of(request.scope)
        under_way.notes["length"] = len(note["text"])
        found = self.parts.models.find(None)
        return JSONResponse(
            {"client": under_way.client.name, "note": note, "model": found.name, "url": str(request.url_for("add"))}
        )

    async def stream(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self.ticks(), media_type="text/event-stream")

    async def ticks(self) -> AsyncIterator[bytes]:
        try:
            for number in range(10_000):
                yield f"data: {number}\n\n".encode()
                await asyncio.sleep(0.02)
        finally:
            self.left += 1

    async def fail(self, request: Request) -> JSONResponse:
        raise ZeroDivisionError("a bug of this app")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.life.append("entered")
        yield
        self.life.append("left")

    def mounted(self) -> MountedApp:
        return MountedApp(
            self.app,
            "/notes",
            route_of=lambda path: path if path in ("/add", "/stream", "/fail") else None,
            check_ready=self.parts.models.check_ready,
            lifespan=self.lifespan,
        )


def keys(folder: Path) -> Keys:
    file = folder / "keys.toml"
    file.write_text(
        f'[alice]\nkey = "{ALICE}"\nconcurrency = 1\nbody_bytes = 500\n[bob]\nkey = "{BOB}"\nrequest_s = 0.4\n'
    )
    return read_keys(file, {}, ClientLimits())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


class Two(Running):
    """A server with both apps."""

    notes: Notes
    log: Path


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made: list[Notes] = []

    def apps(parts: ServerParts) -> Sequence[MountedApp]:
        made.append(Notes(parts))
        return [made[0].mounted()]

    model = Scripted(["Hello."], name="scripted")
    log = tmp_path / "log.jsonl"
    with serving(model, name="demo", keys=keys(tmp_path), log=log, apps=apps, drain_s=0.5) as running:
        found = Two(running.server, running.thread, running.loop)
        found.notes, found.log = made[0], log
        yield found


def test_both_apps_answer_and_the_second_one_knows_who_asks(two: Two) -> None:
    answer = HTTP.post(f"{two.url}/notes/add", json={"text": "tea"}, headers=bearer(ALICE) | {"x-request-id": "mine-1"})
    assert answer.json() == {"client": "alice", "note": {"text": "tea"}, "model": "demo", "url": f"{two.url}/notes/add"}
    assert answer.headers["x-request-id"] == "mine-1"
    chat = HTTP.post(f"{two.url}/v1/chat/completions", json=HI, headers=bearer(ALICE))
    assert chat.json()["choices"][0]["message"]["content"] == "Hello."


def test_the_second_app_is_behind_the_same_keys_and_bounds(two: Two) -> None:
    for path in ("/notes/add", "/notes/stream", "/notes/nothing"):
        refused = HTTP.post(f"{two.url}{path}", json={"text": "tea"})
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
    long = HTTP.post(f"{two.url}/notes/add", json={"text": "x" * 1000}, headers=bearer(ALICE))
    assert long.status_code == 413 and "500 bytes" in long.json()["error"]["message"]
    other = HTTP.post(f"{two.url}/notes/add", json={}, headers=bearer(ALICE) | {"content-encoding": "gzip"})
    assert other.status_code == 415


def test_requests_of_both_apps_count_against_one_limit_and_a_client_that_leaves_frees_its_slot(two: Two) -> None:
    with HTTP.stream("GET", f"{two.url}/notes/stream", headers=bearer(ALICE)) as stream:
        events = stream.iter_lines()
        assert [next(events) for _ in range(3)] == ["data: 0", "", "data: 1"]
        assert two.admission.by_client == {"alice": 1}
        for path, body in (("/v1/chat/completions", HI), ("/notes/add", {"text": "tea"})):
            full = HTTP.post(two.url + path, json=body, headers=bearer(ALICE))
            assert full.status_code == 429 and "alice" in full.json()["error"]["message"]
        assert HTTP.post(f"{two.url}/notes/add", json={"text": "tea"}, headers=bearer(BOB)).status_code == 200
    until(lambda: two.admission.in_flight == 0 and two.notes.left == 1, 10)
    assert two.telemetry.metrics.disconnects == 1


@pytest.mark.slow
def test_a_stream_of_the_second_app_ends_after_the_clients_time(two: Two) -> None:
    with (
        pytest.raises(httpx.RemoteProtocolError),
        HTTP.stream("GET", f"{two.url}/notes/stream", headers=bearer(BOB)) as stream,
    ):
        for _ in stream.iter_lines():
            pass
    until(lambda: two.admission.in_flight == 0 and two.notes.left == 1, 10)


def test_log_and_metrics_have_the_second_apps_requests_by_route(two: Two) -> None:
    HTTP.post(f"{two.url}/notes/add", json={"text": "tea"}, headers=bearer(ALICE))
    for _ in range(2):
        assert HTTP.get(f"{two.url}/notes/none-{_}", headers=bearer(BOB)).status_code == 404
    assert HTTP.get(f"{two.url}/notes/fail", headers=bearer(BOB)).status_code == 500
    until(lambda: sum(two.telemetry.metrics.requests.values()) >= 4)
    text = httpx.get(f"{two.url}/metrics", headers=bearer(BOB)).text  # the server closes a connection after a bug
    assert 'firsthand_requests_total{route="/notes/add",code="200"} 1' in text
    assert 'firsthand_requests_total{route="other",code="404"} 2' in text and "none-0" not in text
    found = [line for line in lines(two.log) if line["event"] == "request"]
    first = [(line["route"], line["client"], line["status"]) for line in found[:2]]
    assert first == [("/notes/add", "alice", 200), ("other", "bob", 404)] and found[0]["length"] == 3
    bug = next(line for line in found if line["route"] == "/notes/fail")
    assert "a bug of this app" in bug["traceback"]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/mcp", "/notesy", "/notes2/stream", "/v1/nothing", "/"])
def test_a_prefix_that_nobody_has_is_a_404_in_openais_shape(two: Two, path: str) -> None:
    for method in ("GET", "POST"):
        answer = HTTP.request(method, two.url + path, headers=bearer(BOB), json={} if method == "POST" else None)
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("not_found_error", None) and path in error["message"]


@pytest.mark.slow
def test_a_drain_waits_for_both_apps_refuses_both_and_then_ends_what_is_left(two: Two) -> None:
    ended: list[str] = []

    def read() -> None:
        try:
            with HTTP.stream("GET", f"{two.url}/notes/stream", headers=bearer(ALICE)) as stream:
                ended.extend(stream.iter_lines())
        except httpx.RemoteProtocolError:
            ended.append("cut off")

    idle = httpx.Client(timeout=30)  # connected before the address closes
    assert idle.get(f"{two.url}/health").status_code == 200
    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: two.admission.in_flight == 1)
    assert two.notes.life == ["entered"]
    two.stop()
    until(lambda: two.admission.is_draining)
    reader.join(20)
    assert ended[-1] == "cut off" and two.notes.left == 1
    two.thread.join(20)
    assert two.notes.life == ["entered", "left"] and not two.thread.is_alive()
    events = [line["event"] for line in lines(two.log)]
    assert events.index("draining") < events.index("request") < events.index("stopped")


def test_requests_of_both_apps_get_503_until_the_models_are_loaded_and_while_the_server_drains() -> None:
    async def statuses() -> list[int]:
        app = server_app(Scripted(["Hello."]), apps=lambda parts: [Notes(parts).mounted()])
        bodies: list[tuple[str, Any]] = [("/v1/chat/completions", HI), ("/notes/add", {"text": "tea"})]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            before = [(await client.post(path, json=body)).status_code for path, body in bodies]
            await app.models.load()
            ready = [(await client.post(path, json=body)).status_code for path, body in bodies]
            app.admission.drain()
            return before + ready + [(await client.post(path, json=body)).status_code for path, body in bodies]

    assert asyncio.run(statuses()) == [503, 503, 200, 200, 503, 503]


def test_another_asgi_server_runs_the_lifespans_of_the_apps_and_gets_no_websocket() -> None:
    made: list[Notes] = []

    def apps(parts: ServerParts) -> Sequence[MountedApp]:
        made.append(Notes(parts))
        return [made[0].mounted()]

    async def run() -> list[Any]:
        app, sent = server_app(Scripted(["Hello."]), apps=apps), []
        received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(received)

        async def send(message: Any) -> None:
            sent.append((message["type"], list(made[0].life)))

        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/notes/stream"}, receive, send)
        return sent

    assert asyncio.run(run()) == [
        ("lifespan.startup.complete", ["entered"]),
        ("lifespan.shutdown.complete", ["entered", "left"]),
        ("websocket.close", ["entered", "left"]),
    ]


def test_two_apps_cannot_have_one_prefix() -> None:
    with pytest.raises(ConfigError, match="two apps have the same prefix: /notes, /notes"):
        server_app(Scripted(["x"]), apps=lambda parts: [Notes(parts).mounted(), Notes(parts).mounted()])
    for prefix in ("notes", "/notes/", "/"):
        with pytest.raises(ConfigError, match="prefix is"):
            MountedApp(Starlette(), prefix)


def test_the_openai_routes_can_have_a_prefix_themselves() -> None:
    from firsthand.serve.http.app import ServerApp
    from firsthand.serve.openai.openai_app import openai_app

    async def answer() -> tuple[int, int, int, list[str]]:
        parts = server_app(Scripted(["Hello."]))
        app = ServerApp(
            parts.models,
            parts.admission,
            parts.telemetry,
            [openai_app(parts.models, parts.admission, parts.telemetry, prefix="/openai")],
        )
        await app.models.load()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            good = await client.post("/openai/v1/chat/completions", json=HI)
            wrong = await client.get("/openai/v1/chat/completions")
            gone = await client.post("/v1/chat/completions", json=HI)
        assert wrong.headers["allow"] == "POST"
        routes = [route for route, _ in app.telemetry.metrics.requests]
        return good.status_code, wrong.status_code, gone.status_code, routes

    expected = ["/openai/v1/chat/completions", "/openai/v1/chat/completions", "other"]
    assert asyncio.run(answer()) == (200, 405, 404, expected)


def test_the_address_is_announced_once_it_takes_connections() -> None:
    answers: list[int] = []

    def announced(url: str) -> None:
        server.stop()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            answers.append(connection.getpeername()[1])

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        while app.models.state != "ready":
            await asyncio.sleep(0)
        for _ in range(100):  # the models are there long before this app is
            await asyncio.sleep(0)
        yield

    async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

    app = server_app(Scripted(["hi"]), apps=lambda parts: [MountedApp(nothing, "/slow", lifespan=slow)])
    server = Server(app, ListenAddress(port=0), on_open=announced)
    asyncio.run(server.run_until_stopped(server.open()))
    assert answers == [int(server.url.rpartition(":")[2])]
