"""Every request of a server holds a slot until the client has taken its answer, whatever its method."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.api_keys import Client, ClientLimits, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.server import Server
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

POST = frozenset({"POST"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "OPTIONS"])
def test_a_request_holds_a_slot_whatever_its_method(method: str) -> None:
    async def slots(scope: Any, receive: Any, send: Any) -> None:
        await start(send, f"{served.admission.by_client}".encode())

    served = Exchanges(slots, work_methods=POST)
    assert served.ask(method=method)[2] == b"{'anyone': 1}" and served.admission.in_flight == 0
    with served.admission.slot(served.admission.keys.anyone):
        served.admission.settings = AdmissionSettings(max_requests=1)
        assert served.refused(method=method)[:2] == (429, "1 requests are under way: try again later")


def test_a_client_looks_at_its_own_when_its_tokens_are_spent_and_while_the_server_drains_or_loads() -> None:
    def not_ready() -> None:
        raise Refusal(503, "the model is being loaded")

    anyone = Client("anyone", ClientLimits(tokens_per_minute=5))
    served = Exchanges(lambda scope, receive, send: start(send), admission=Admission(Keys(anyone=anyone)),
                       work_methods=POST, check_ready=not_ready)  # fmt: skip
    served.admission.charge(anyone, 9)
    served.admission.drain()
    assert served.ask(method="GET")[0] == 201 and served.ask()[0] == 503


def test_metrics_and_the_version_are_told_when_no_slot_is_free(tmp_path: Path) -> None:
    async def ask() -> None:
        app = _app(lambda scope, receive, send: start(send), tmp_path, max_requests=1)
        with app.admission.slot(app.admission.keys.anyone):
            for path, status in (
                ("/metrics", 200),
                ("/version", 200),
                ("/health/live", 200),
                ("/a/x", 429),
                ("/x", 429),
            ):
                sent: list[Any] = []

                async def receive() -> dict[str, Any]:
                    return {"type": "http.request", "body": b"", "more_body": False}

                async def send(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path,
                         "headers": [(b"host", b"localhost")]}  # fmt: skip
                await app(scope, receive, send)
                assert (path, sent[0]["status"]) == (path, status)

    asyncio.run(ask())


def test_an_answer_goes_out_in_pieces_and_is_whole() -> None:
    pieces: list[int] = []

    async def long(scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            await send(message)

        await start(counted, b"x" * 65_536 + b"y" * 65_536 + b"z")

    served = Exchanges(long, work_methods=POST)
    inner = served.middleware

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            pieces.append(len(message.get("body", b"")))
            await send(message)

        await inner(scope, receive, sent)

    served.middleware = counting  # type: ignore[assignment]
    assert served.ask(method="GET")[2] == b"x" * 65_536 + b"y" * 65_536 + b"z"
    assert pieces == [0, 65_536, 65_536, 1]


def test_a_slot_is_held_until_the_client_has_taken_its_answer(tmp_path: Path) -> None:
    size = 40 << 20  # more than the kernel buffers

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
        await send({"type": "http.response.body", "body": b"x" * size})

    app = _app(large, tmp_path, max_requests=1)

    async def main() -> None:
        server = Server(app, ListenAddress(port=0))
        running = asyncio.create_task(server.run_until_stopped(server.open()))
        while not server.started and not running.done():
            await asyncio.sleep(0.001)
        port, head = int(server.url.rpartition(":")[2]), b"GET /a/x HTTP/1.1\r\nhost: localhost\r\n\r\n"
        loop = asyncio.get_running_loop()
        with (
            socket.create_connection(("127.0.0.1", port)) as slow,
            socket.create_connection(("127.0.0.1", port)) as next,
        ):
            for each in (slow, next):
                each.setblocking(False)
            await loop.sock_sendall(slow, head)
            assert (await loop.sock_recv(slow, 12)).endswith(b"200")  # and reads no more
            await loop.sock_sendall(next, head)
            answer = await loop.sock_recv(next, 4096)
            assert answer.startswith(b"HTTP/1.1 429") and app.admission.in_flight == 1
            left = size
            while left > 0:
                left -= len(await loop.sock_recv(slow, 1 << 20))
            while app.admission.in_flight:
                await asyncio.sleep(0.001)
        server.should_exit = True
        await running

    asyncio.run(asyncio.wait_for(main(), 30))


def _app(app: Any, folder: Path, **limits: Any) -> ServerApp:
    class Vectors:
        name, revision, dim = "v", "1", 1
        query_prompt = document_prompt = ""

        async def embed(self, texts: Any) -> Any:
            return [[1.0]] * len(texts)

    telemetry = ServerTelemetry(TelemetrySettings(log=str(folder / "log")))
    mounted = MountedApp(app, "/a", route_of=lambda path: path, work_methods=POST)
    models = ServedModels(None, Vectors())  # type: ignore[arg-type]
    return ServerApp(models, Admission(settings=AdmissionSettings(**limits)), telemetry, [mounted])


def test_a_slot_is_held_while_the_last_piece_waits_to_be_taken() -> None:
    served = Exchanges(lambda scope, receive, send: start(send), work_methods=POST)
    held: list[int] = []

    async def taken() -> None:
        held.append(served.admission.in_flight)

    async def receive() -> dict[str, Any]:
        if held:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/a/x", "headers": [HOST],
             "extensions": {"firsthand.taken": taken}}  # fmt: skip
    asyncio.run(asyncio.wait_for(served.middleware(scope, receive, send), 20))
    assert held == [1] and served.admission.in_flight == 0
