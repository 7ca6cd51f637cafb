"""The server process on a socket of this machine: what goes over the wire, how it begins and how it ends."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.bounded_protocol import BoundedProtocol
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.server import Server, serve
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings


class Vectors:
    """An embedder that is quick, or that cannot be loaded."""

    name, dimension = "vec", 1

    def __init__(self, error: Exception | None = None):
        self.error = error

    async def embed(self, texts: Any) -> Any:
        if self.error is not None:
            raise self.error
        return [[1.0]] * len(texts)


def made(
    app: Any, folder: Path, *, error: Exception | None = None, drain_s: float = 5.0, lifespan: Any = None
) -> ServerApp:
    telemetry = ServerTelemetry(TelemetrySettings(log=str(folder / "log")))
    models = ServedModels(None, Vectors(error))  # type: ignore[arg-type]
    admission = Admission(settings=AdmissionSettings(drain_s=drain_s))
    mounted = MountedApp(app, "/a", route_of=lambda path: path, work_methods=frozenset(), lifespan=lifespan)
    return ServerApp(models, admission, telemetry, [mounted])


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def served(
    app: ServerApp, use: Callable[[Server], Awaitable[Any]], address: ListenAddress | None = None, **more: Any
) -> Any:
    """What `use` makes of a server that takes requests; it is stopped afterwards."""

    async def main() -> Any:
        server = Server(app, address or ListenAddress(port=0), **more)
        running = asyncio.create_task(server.run_until_stopped(server.open()))
        while not server.started and not running.done():
            await asyncio.sleep(0.001)
        try:
            return await use(server)
        finally:
            server.should_exit = True
            await running

    return asyncio.run(main())


async def told(server: Server, sent: bytes) -> tuple[list[str], bytes]:
    """The head without the date, and the body, of what the server sends before it closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(sent)
    found = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 2):
            found += piece
    finally:
        writer.close()
    head, _, body = found.partition(b"\r\n\r\n")
    return [line for line in head.decode().lower().split("\r\n") if not line.startswith("date:")], body


@pytest.mark.slow
def test_answers_over_tls_come_whole_however_long_they_are(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(scope["path"].rpartition("/")[2])):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async def use(server: Server) -> None:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        async with httpx.AsyncClient(base_url=server.url, verify=trusted, timeout=10) as client:
            for pieces in (0, 1, 100, 0):
                assert (await client.get(f"/a/{pieces}")).content == b"x" * 100_000 * pieces + b"end"

    served(
        made(app, tmp_path), use, ListenAddress(port=0, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    )


def test_a_stream_is_written_in_chunks_and_what_is_no_request_is_told_so(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extensions = scope["extensions"]
        write = extensions.get("firsthand.write")
        seen.append(
            (scope["method"], scope["http_version"], write is not None, callable(extensions["firsthand.abort"]))
        )
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        for piece in (b"first", b"", b"x" * 17):
            if write is None or not write(piece):
                seen.append(len(piece))
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if scope["path"].endswith("abort"):
            extensions["firsthand.abort"]()
            assert (write is not None and not write(b"late")) or write is None
        await send({"type": "http.response.body", "body": b"end"})

    async def use(server: Server) -> Any:
        head = b"host: localhost\r\nx-request-id: id\r\nconnection: close\r\n\r\n"
        chunked = await told(server, b"GET /a/x HTTP/1.1\r\n" + head)
        assert chunked[1] == b"5\r\nfirst\r\n11\r\n" + b"x" * 17 + b"\r\n3\r\nend\r\n0\r\n\r\n"
        assert chunked[0] == [
            "http/1.1 200 ok",
            "x: y",
            "x-request-id: id",
            "transfer-encoding: chunked",
            "connection: close",
        ]
        old = await told(server, b"GET /a/x HTTP/1.0\r\n" + head)
        assert old[1] == b"first" + b"x" * 17 + b"end" and "transfer-encoding: chunked" not in old[0]
        assert (await told(server, b"HEAD /a/x HTTP/1.1\r\n" + head))[1] == b""
        assert seen == [("GET", "1.1", True, True), 0, ("GET", "1.0", False, True), 5, 0, 17,
                        ("HEAD", "1.1", False, True), 5, 0, 17]  # fmt: skip
        wrong = b"this is no valid HTTP/1.1 request: its head is malformed or too long, or its chunks too small"
        lines, body = await told(server, b"no request\r\n\r\n")
        assert json.loads(body)["error"] == {"message": wrong.decode(), "type": "invalid_request_error", "param": None,
                                             "code": None}  # fmt: skip
        assert lines == ["http/1.1 400 bad request", "content-type: application/json", f"content-length: {len(body)}",
                         "connection: close"]  # fmt: skip
        missing = await told(server, b"GET /b%20 HTTP/1.1\r\n" + head)
        assert missing[0][0] == "http/1.1 404 not found"
        assert (
            json.loads(missing[1])["error"]["message"]
            == "there is nothing at /b : GET /openapi.json tells what there is"
        )
        return server.app.telemetry.metrics.requests

    counts = served(made(app, tmp_path), use)
    assert counts == {("/a/x", "200"): 3, ("other", "400"): 1, ("other", "404"): 1}
    assert [line["event"] for line in logged(tmp_path)] == ["ready", *["request"] * 4, "stopped"]


def test_a_server_opens_its_apps_tells_its_address_and_waits_for_what_is_under_way(tmp_path: Path) -> None:
    life: list[Any] = []
    begun, go = threading.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        life.append("opened")
        await asyncio.sleep(0.01)
        yield
        life.append("closed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go.wait()
        thread = await asyncio.to_thread(lambda: threading.current_thread().name)
        body = f"{request_of(scope).client.name} {thread[:15]}".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def use(server: Server) -> None:
        while "told" not in "".join(map(str, life)):
            await asyncio.sleep(0.001)
        assert life == ["opened", f"told {server.url}"] and server.app.is_ready
        asking = asyncio.create_task(told(server, b"GET /a/x HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        server.stop()
        assert server.should_exit and not server.force_exit and not server.app.is_ready
        while (await asyncio.to_thread(refuses, server.url)) is False:
            await asyncio.sleep(0.01)
        go.set()
        lines, body = await asking
        assert lines[0] == "http/1.1 200 ok" and body == b"anyone firsthand-serve"

    served(made(app, tmp_path, lifespan=lifespan), use, on_open=lambda url: life.append(f"told {url}"))
    assert life[-1] == "closed" and len(life) == 3
    lines = logged(tmp_path)
    assert [line["event"] for line in lines] == ["ready", "draining", "request", "stopped"]
    assert lines[1]["in_flight"] == 1
    assert lines[0]["model"] == "vec"


def refuses(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


@pytest.mark.slow
def test_models_that_cannot_be_loaded_end_the_server_only_where_it_is_told_to(tmp_path: Path) -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def not_for_ever() -> AsyncIterator[None]:
        late = asyncio.get_running_loop().call_later(5, signal.raise_signal, signal.SIGTERM)  # it is told in the log
        yield
        late.cancel()

    broken = made(nothing, tmp_path, error=ModelError("no weights"), lifespan=not_for_ever)
    with pytest.raises(ModelError, match=r"^the model could not be served: no weights$"):
        serve(broken, ListenAddress(port=0), on_open=opened.append)
    assert opened == [] and [line["event"] for line in logged(tmp_path)] == ["failed", "stopped"]

    async def use(server: Server) -> None:
        while server.app.models.state == "loading":
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert not server.should_exit and server.app.models.state == "failed"

    served(made(nothing, tmp_path, error=ModelError("no")), use, on_open=opened.append)
    assert opened == []


@pytest.mark.slow
def test_the_log_of_a_server_is_closed_however_it_ends(tmp_path: Path) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise RuntimeError("no room")
        yield

    async def ready(server: Server) -> None:
        while server.app.models.state == "loading":
            await asyncio.sleep(0.001)

    for name, error, lifespan, told in (
        ("ends", None, None, ["ready", "stopped"]), ("failed", ModelError("no"), None, ["failed", "stopped"]),
        ("broken", None, broken, ["stopped"]),
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        app = made(nothing, folder, error=error, lifespan=lifespan)
        with pytest.raises(RuntimeError, match="no room") if lifespan else nullcontext():
            served(app, ready if lifespan is None else (lambda server: asyncio.sleep(0)))
        app.telemetry.log.write("late")
        assert [line["event"] for line in logged(folder)] == told, name


def test_a_signal_stops_a_server_and_the_handlers_from_before_come_back(tmp_path: Path) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    urls: list[str] = []

    def opened(url: str) -> None:
        urls.append(url)
        assert gc.get_freeze_count() > 10_000  # what was loaded is no longer walked by garbage collections
        assert all(signal.getsignal(each) != handler for each, handler in before.items())
        signal.raise_signal(signal.SIGTERM)

    try:
        serve(made(nothing, tmp_path), ListenAddress(port=0), on_open=opened)
    finally:
        gc.unfreeze()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(urls) == 1 and {each: signal.getsignal(each) for each in before} == before
    assert [line["event"] for line in logged(tmp_path)] == ["ready", "draining", "stopped"]

    async def in_thread() -> None:
        server = Server(made(nothing, tmp_path), ListenAddress(port=0))
        with server.capture_signals():
            pass

    thread = threading.Thread(target=lambda: asyncio.run(in_thread()))
    thread.start()
    thread.join()
    assert {each: signal.getsignal(each) for each in before} == before


def test_another_asgi_server_gets_the_lifespan_and_no_websocket(tmp_path: Path) -> None:
    life: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        life.append("opened")
        yield
        life.append("closed")

    app = made(nothing, tmp_path, lifespan=lifespan)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append((message["type"], list(life)))

    async def receive() -> Any:
        return {}

    asyncio.run(app({"type": "lifespan"}, receive, send))
    asyncio.run(app({"type": "websocket"}, receive, send))
    assert sent == [("lifespan.startup.complete", ["opened"]), ("lifespan.shutdown.complete", ["opened", "closed"]),
                    ("websocket.close", ["opened", "closed"])]  # fmt: skip
    apps = [MountedApp(nothing, prefix) for prefix in ("/z", "", "/a", "/a", "")]
    with pytest.raises(ConfigError, match=r"^two apps have the same prefix: /a, /a, /z; give each its own$"):
        ServerApp(app.models, app.admission, app.telemetry, apps)
    fine = ServerApp(app.models, app.admission, app.telemetry, [apps[0], apps[1], apps[2], apps[4]])
    assert fine.apps[1:] == (apps[0], apps[1], apps[2], apps[4])


@pytest.mark.slow
def test_a_client_that_takes_too_long_for_a_head_is_hung_up_on_at_each_request(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    whole = b"GET /a/x HTTP/1.1\r\nhost: localhost\r\n\r\n"

    async def use(server: Server) -> list[Any]:
        protocol: Any = server.config.http_protocol_class
        assert issubclass(protocol, BoundedProtocol) and protocol.head_within_s == 30.0
        protocol.head_within_s = 0.2

        async def heard(*pieces: bytes) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            found = b""
            for piece in pieces:
                writer.write(piece)
                if piece.endswith(b"\r\n\r\n"):
                    found += await asyncio.wait_for(reader.readuntil(b"ok"), 5)
            with suppress(ConnectionError):
                found += await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return found.count(b"200 OK")

        return await asyncio.gather(heard(b""), heard(whole[:20]), heard(whole, whole[:9]), heard(whole, whole, b"G"))

    assert served(made(app, tmp_path), use) == [0, 0, 1, 2], "the time of an answer does not count"


def test_a_server_opens_its_own_address_and_names_one_that_it_cannot(tmp_path: Path) -> None:
    app = made(nothing, tmp_path, drain_s=7.9)
    server = Server(app, ListenAddress(port=0))
    assert server.url == "" and server.config.server_header is False and server.config.proxy_headers is False
    config = server.config
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown, config.backlog) == (30, 10, 4096)
    with server.open() as listening:
        port = listening.getsockname()[1]
        assert server.url == f"http://127.0.0.1:{port}" and (listening.family, listening.proto) == (
            socket.AF_INET, socket.IPPROTO_TCP,
        )  # fmt: skip
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        taken = Server(app, ListenAddress(port=port))
        with pytest.raises(ConfigError) as told:
            taken.open()
        assert str(told.value) == (
            f"127.0.0.1:{port} cannot be opened: Address already in use; give another --host or --port"
        )
        assert taken.url == ""
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_text("none")
    key.write_text("none")
    with pytest.raises(ConfigError) as told:
        Server(app, ListenAddress(port=0, tls_cert=cert, tls_key=key)).open()
    assert str(told.value).startswith(f"the certificate {str(cert)!r} and {str(key)!r} cannot be used (")
    assert str(told.value).endswith("): give a chain and its key in PEM")
    names = []
    for host in ("[::1]", "::1"):
        try:
            six = Server(app, ListenAddress(host, 0))
            with six.open() as listening:
                names.append(six.url == f"http://[::1]:{listening.getsockname()[1]}")
        except ConfigError:  # a machine without IPv6
            names.append(True)
    assert all(names)
