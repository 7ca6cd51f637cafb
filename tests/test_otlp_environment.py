"""OpenTelemetry's variables for the spans of `traced`: address, headers, attributes, compression, certificates."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.ingest import recording
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_environment import (
    exporter_headers,
    is_compressed,
    resource_attributes,
    traces_address,
    trusted,
)
from firsthand.ingest.recording import trace_to, traced
from firsthand.ingest.span_sender import OtlpSender
from loopback import CERTIFICATE

BASE, OWN = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS, OWN_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(recording, "_destination", recording._Destination())


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, None),
        ({BASE: " "}, None),
        ({BASE: "http://h"}, "http://h/v1/traces"),
        ({BASE: " http://h:1/ "}, "http://h:1/v1/traces"),
        ({BASE: "https://h/api/public/otel"}, "https://h/api/public/otel/v1/traces"),
        ({BASE: "https://h/api/public/otel/"}, "https://h/api/public/otel/v1/traces"),
        ({BASE: "https://h/a?k=v"}, "https://h/a/v1/traces?k=v"),
        ({BASE: "http://h/v1/traces"}, "http://h/v1/traces"),
        ({BASE: "http://h/v1"}, "http://h/v1/v1/traces"),
        ({OWN: "http://h/own", BASE: "http://g"}, "http://h/own"),
        ({OWN: "", BASE: "http://g"}, "http://g/v1/traces"),
        ({BASE: "http://h", "OTEL_SDK_DISABLED": " True"}, None),
        ({BASE: "http://h", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({BASE: "http://h", "OTEL_TRACES_EXPORTER": "console"}, None),
        ({BASE: "http://h", "OTEL_TRACES_EXPORTER": " "}, "http://h/v1/traces"),
        ({BASE: "http://h", "OTEL_TRACES_EXPORTER": "console, otlp"}, "http://h/v1/traces"),
    ],
)
def test_the_address_is_that_of_the_specification(environment: dict[str, str], address: str | None) -> None:
    assert traces_address(environment) == address


def test_settings_for_traces_win_over_those_for_all_signals() -> None:
    assert exporter_headers({HEADERS: "a=1,b=2"}) == {"a": "1", "b": "2"}
    assert exporter_headers({HEADERS: "a=1,b=2", OWN_HEADERS: "b=Basic%203"}) == {"b": "Basic 3"}
    assert exporter_headers({HEADERS: "a=1", OWN_HEADERS: " "}) == {"a": "1"} and exporter_headers({}) == {}
    general, own = "OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"
    assert is_compressed({}) and is_compressed({general: "gzip"}) and not is_compressed({general: "None"})
    assert is_compressed({general: "none", own: "gzip"}) and not is_compressed({own: "none"})
    stated = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=desk, deployment.environment.name=a%2Cb,odd"}
    assert resource_attributes(stated) == {"service.name": "desk", "deployment.environment.name": "a,b"}
    assert resource_attributes(stated | {"OTEL_SERVICE_NAME": "shop"})["service.name"] == "shop"
    assert resource_attributes({"OTEL_SERVICE_NAME": " "}) == {}


def test_an_address_that_is_none_is_logged_and_no_call_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, address in ((BASE, "localhost:4318"), (OWN, "h/v1"), (BASE, "http://"), (BASE, "http://[::1")):
        caplog.clear()
        monkeypatch.setattr(recording, "_destination", recording._Destination())
        monkeypatch.setenv(variable, address)
        assert [traced(lambda: 4)() for _ in range(2)] == [4, 4] and recording._destination.sink is None
        said = f"no spans are sent: {variable} is no URL: give an address such as http://127.0.0.1:4318"
        assert caplog.messages == [said]
        monkeypatch.delenv(variable)
    caplog.clear()
    monkeypatch.setattr(recording, "_destination", recording._Destination())
    monkeypatch.setenv(BASE, "http://h.invalid")
    monkeypatch.setenv(HEADERS, "a b=secret")
    assert traced(lambda: 4)() == 4 and recording._destination.sink is None
    assert len(caplog.messages) == 1 and "secret" not in caplog.text and list(tmp_path.iterdir()) == []


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, Any, bytes]]]]:
    """The address of a collector that shows its certificate and asks for the client's, and the requests that came."""
    came: list[tuple[str, Any, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(CERTIFICATE))
    context.load_cert_chain(CERTIFICATE)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/base", came
    server.shutdown()
    server.server_close()


def test_spans_are_sent_as_the_variables_say(
    collector: tuple[str, list[tuple[str, Any, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, came = collector
    for name, value in (
        ("ENDPOINT", address), ("TRACES_HEADERS", "authorization=Basic%20k"), ("HEADERS", "x=y"), ("COMPRESSION", "none"),
        ("CERTIFICATE", str(CERTIFICATE)), ("CLIENT_CERTIFICATE", str(CERTIFICATE)), ("CLIENT_KEY", str(CERTIFICATE)),
    ):  # fmt: skip
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=desk,team=tea")
    assert traced(lambda: 4)() == 4 and recording.flush_traces(20)
    sender = recording._destination.sink
    assert isinstance(sender, OtlpSender) and (sender.dropped, sender.problem) == (0, "")
    [(path, headers, body)] = came
    assert path == "/base/v1/traces" and headers["authorization"] == "Basic k" and headers["x"] is None
    assert headers["content-encoding"] is None
    stated = json.loads(body)["resourceSpans"][0]["resource"]["attributes"]
    assert {each["key"]: each["value"]["stringValue"] for each in stated} == {
        "service.name": "desk", "team": "tea", "telemetry.sdk.language": "python", "telemetry.sdk.name": "firsthand",
    }  # fmt: skip
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_COMPRESSION")
    trace_to(address + "/own", service="shop")
    assert traced(lambda: 4)() == 4 and recording.flush_traces(20)
    path, headers, body = came[1]
    assert path == "/base/own" and headers["content-encoding"] == "gzip"
    stated = json.loads(gzip.decompress(body))["resourceSpans"][0]["resource"]["attributes"]
    assert [each["value"]["stringValue"] for each in stated if each["key"] == "service.name"] == ["shop"]


def test_certificates_that_cannot_be_read_are_named_and_the_usual_ones_are_checked_without_any(
    collector: tuple[str, list[tuple[str, Any, bytes]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trusted({}) is True and trusted({"OTEL_EXPORTER_OTLP_CERTIFICATE": ""}) is True
    (tmp_path / "odd.pem").write_text("odd")
    for kind in ("CERTIFICATE", "TRACES_CERTIFICATE", "CLIENT_CERTIFICATE"):
        for file in ("missing.pem", "odd.pem"):
            with pytest.raises(ConfigError, match=f"^OTEL_EXPORTER_OTLP_{kind} cannot be read "):
                trusted({f"OTEL_EXPORTER_OTLP_{kind}": str(tmp_path / file)})
    address, came = collector
    sent = []
    for file in (str(tmp_path / "missing.pem"), ""):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
        sender = OtlpSender(address, "s", {})
        monkeypatch.setattr("firsthand.ingest.span_sender.time.sleep", lambda seconds: None)
        sender.put(IncomingSpan("1" * 32, "1" * 16, "", "n", 1, 2), True)
        assert sender.flush(20) and sender.dropped == 1
        sent.append(sender.problem)
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read" in sent[0] and "CERTIFICATE_VERIFY_FAILED" in sent[1]
    assert came == []
