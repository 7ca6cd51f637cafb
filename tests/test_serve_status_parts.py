"""What a server says of itself, and the socket it opens: states, replicas, addresses and bounds."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import __version__
from firsthand.cluster.replicas.replica_slots import ReplicaStatus
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.errors import ConfigError
from firsthand.serve.http.bounded_protocol import HEADER_BYTES
from firsthand.serve.http.connection_room import ConnectionRoom, open_files
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import Server, _protocol
from firsthand.serve.http.status_routes import STATUS_ROUTES, StatusRoutes
from firsthand.serve.models import replica_status
from served import server_app


def opened(address: ListenAddress) -> tuple[str, int]:
    server = Server(server_app(), address)
    listening = server.open()
    try:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) and listening.proto == socket.IPPROTO_TCP
        return server.url, int(listening.getsockname()[1])
    finally:
        listening.close()


def test_a_server_opens_the_address_it_was_given(tmp_path: Path) -> None:
    url, port = opened(ListenAddress(port=0))
    assert port > 0 and url == f"http://127.0.0.1:{port}"
    assert opened(ListenAddress(port=port)) == (url, port)
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            has_six = False
        else:
            has_six = True
    for host in ("::1", "[::1]") if has_six else ():
        url, port = opened(ListenAddress(host, 0))
        assert url == f"http://[::1]:{port}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError,
            match=rf"^127\.0\.0\.1:{port} cannot be opened: Address already in use; give another --host or --port$",
        ):
            opened(ListenAddress(port=port))
    with pytest.raises(ConfigError, match=r"^no\.such\.host\.invalid:0 cannot be opened: "):
        opened(ListenAddress("no.such.host.invalid", 0))
    pem = tmp_path / "broken.pem"
    pem.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"^the certificate '.*broken.pem' and '.*broken.pem' cannot be used"):
        opened(ListenAddress(port=0, tls_cert=pem, tls_key=pem))


def test_a_server_bounds_heads_and_idle_connections_and_waits_for_what_drains() -> None:
    app = server_app(drain_s=7.5, body_s=4.0)
    config = Server(app, ListenAddress(port=0)).config
    assert (config.h11_max_incomplete_event_size, config.timeout_keep_alive, config.backlog) == (HEADER_BYTES, 30, 4096)
    assert config.timeout_graceful_shutdown == 10 and config.ws == "none" and config.lifespan == "off"
    assert (config.access_log, config.server_header, config.proxy_headers, config.log_level) == (
        False, False, False, "critical",
    )  # fmt: skip
    room = ConnectionRoom(5)
    protocol: Any = _protocol(app, room)
    assert protocol.head_within_s == 4.0 and protocol.room is room


def test_a_process_may_open_as_many_files_as_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append((kind, limits)))
    for limits, raised in (
        ((10, 50), (50, 50)),
        ((50, 50), None),
        ((10, resource.RLIM_INFINITY), (1 << 16, resource.RLIM_INFINITY)),
        ((1 << 16, resource.RLIM_INFINITY), None),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=limits: limits)
        given.clear()
        open_files()
        assert given == ([] if raised is None else [(resource.RLIMIT_NOFILE, raised)])

    def refuse(kind: int, limits: Any) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, 2))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files() == 1


def test_a_second_stop_waits_for_nobody() -> None:
    async def stopped() -> None:
        server = Server(server_app(drain_s=60.0), ListenAddress(port=0))
        server.stop()
        assert server.should_exit and not server.force_exit and server.app.admission.is_draining
        server.stop()
        assert server.force_exit and server._drain_timer is not None
        server._drain_timer.cancel()

    asyncio.run(stopped())


def test_answers_beyond_the_time_to_drain_are_ended() -> None:
    async def stopped() -> Any:
        server = Server(server_app(drain_s=0.01), ListenAddress(port=0))
        reasons: list[Any] = []
        server.app.admission.cancel_all = reasons.append  # type: ignore[method-assign]
        server.stop()
        await asyncio.sleep(0.05)
        return reasons

    (reason,) = asyncio.run(stopped())
    assert (reason.status, reason.code) == (503, "draining")
    assert str(reason) == "the server is stopping and can wait no longer: ask another one"


# -- status --


def asked(routes: StatusRoutes, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    asyncio.run(routes({"type": "http", "path": path, "method": method, "headers": []}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:]).decode()


def test_the_state_of_a_server_is_the_first_thing_that_keeps_it_from_answering() -> None:
    for state, ready, draining, status, said in (
        ("ready", True, False, 200, "ok"), ("loading", False, False, 503, "loading"),
        ("failed", False, False, 503, "failed"),
        ("ready", False, False, 503, "failed"), ("ready", True, True, 503, "draining"),
        ("loading", False, True, 503, "draining"),
    ):  # fmt: skip
        models: Any = SimpleNamespace(state=state, is_ready=ready, model=None, embedder=None)
        admission: Any = SimpleNamespace(is_draining=draining, in_flight=3)
        routes = StatusRoutes(models, admission, SimpleNamespace())  # type: ignore[arg-type]
        assert routes.is_ready == (status == 200)
        found, _, body = asked(routes, "/health")
        assert (found, json.loads(body)) == (status, {"status": said})
        assert json.loads(asked(routes, "/health/live")[2]) == {"status": "ok"}
        assert asked(routes, "/version", "HEAD")[0] == 200
        assert json.loads(asked(routes, "/version")[2]) == {"version": __version__}
        found, headers, body = asked(routes, "/health", "POST")
        assert (found, headers["allow"]) == (405, "GET") and "POST is not taken here: use GET" in body


def test_metrics_are_those_of_the_server_its_replicas_and_its_spans() -> None:
    async def counters() -> dict[str, float]:
        return {"steps": 2.0}

    told: list[Any] = []

    def text(found: Any, *, ready: bool, in_flight: int) -> str:
        told.append((found, ready, in_flight))
        return "own\n"

    models: Any = SimpleNamespace(state="ready", is_ready=True, model=None, embedder=None, counters=counters)
    for spans, expected in ((None, "own\n"), (SimpleNamespace(metrics=lambda: "spans\n"), "own\nspans\n")):
        telemetry: Any = SimpleNamespace(metrics=SimpleNamespace(text=text), spans=spans)
        admission: Any = SimpleNamespace(is_draining=False, in_flight=3)
        status, headers, body = asked(StatusRoutes(models, admission, telemetry), "/metrics")
        assert (status, body) == (200, expected) and headers["content-type"].startswith("text/plain")
    assert told == [({"steps": 2.0}, True, 3)] * 2 and set(STATUS_ROUTES) == {
        "/health", "/health/live", "/version", "/metrics",
    }  # fmt: skip


def test_each_replica_has_a_line_and_its_own_series() -> None:
    statuses = [
        ReplicaStatus(0, "ready", 2, 5, {"running": 3.0, "steps": 1e9}),
        ReplicaStatus(1, "starting", 0, 0, {"steps": 0.5}),
    ]
    fleet: Any = SimpleNamespace(statuses=lambda: statuses)
    model = ReplicatedModel(fleet, "m")
    assert replica_status.fleet_of(model) is fleet and replica_status.fleet_of(None) is None
    assert replica_status.health(model) == {
        "replicas": [
            {"replica": 0, "state": "ready", "restarts": 2},
            {"replica": 1, "state": "starting", "restarts": 0},
        ]
    }
    assert replica_status.health(None) == {} and replica_status.metrics(None) == ""
    assert replica_status.metrics(model) == (
        "# HELP firsthand_replica_ready 1 if the replica answers.\n"
        "# TYPE firsthand_replica_ready gauge\n"
        'firsthand_replica_ready{replica="0"} 1\n'
        'firsthand_replica_ready{replica="1"} 0\n'
        "# HELP firsthand_replica_restarts_total How often it was restarted.\n"
        "# TYPE firsthand_replica_restarts_total counter\n"
        'firsthand_replica_restarts_total{replica="0"} 2\n'
        'firsthand_replica_restarts_total{replica="1"} 0\n'
        "# HELP firsthand_replica_answers Answers it has under way.\n"
        "# TYPE firsthand_replica_answers gauge\n"
        'firsthand_replica_answers{replica="0"} 5\n'
        'firsthand_replica_answers{replica="1"} 0\n'
        "# HELP firsthand_replica_engine_running running of the replica's engine.\n"
        "# TYPE firsthand_replica_engine_running gauge\n"
        'firsthand_replica_engine_running{replica="0"} 3\n'
        "# HELP firsthand_replica_engine_steps_total steps of the replica's engine.\n"
        "# TYPE firsthand_replica_engine_steps_total counter\n"
        'firsthand_replica_engine_steps_total{replica="0"} 1e+09\n'
        'firsthand_replica_engine_steps_total{replica="1"} 0.5\n'
    )
    statuses[:] = [
        ReplicaStatus(3, "starting", 1, 0, {}),
        ReplicaStatus(5, "ready", 0, 2, {"steps": 1_234_567.0, "waiting": 4.0}),
        ReplicaStatus(7, "failed", 0, 1, {"running": 2.5, "steps": 123_456_789.0}),
    ]
    text = replica_status.metrics(model)
    assert [line for line in text.split("\n") if "engine_" in line and not line.startswith("# HELP")] == [
        "# TYPE firsthand_replica_engine_steps_total counter",
        'firsthand_replica_engine_steps_total{replica="5"} 1234567',
        'firsthand_replica_engine_steps_total{replica="7"} 123456789',
        "# TYPE firsthand_replica_engine_waiting gauge",
        'firsthand_replica_engine_waiting{replica="5"} 4',
        "# TYPE firsthand_replica_engine_running gauge",
        'firsthand_replica_engine_running{replica="7"} 2.5',
    ]
    assert [line for line in text.split("\n") if line.startswith("firsthand_replica_ready")] == [
        'firsthand_replica_ready{replica="3"} 0', 'firsthand_replica_ready{replica="5"} 1',
        'firsthand_replica_ready{replica="7"} 0',
    ]  # fmt: skip
