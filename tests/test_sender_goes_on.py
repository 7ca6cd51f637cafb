"""The thread that sends recorded spans goes on whatever happens, and counts what it could not send."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import OtlpSender


def span(number: int) -> IncomingSpan:
    return IncomingSpan("a" * 32, f"{number:016x}", "", "n", 1, 2)


class Oddly(OtlpSender):
    """Fails in a way that nobody thought of, twice, and sends what comes then."""

    tries = 0

    def _sent(self, client: Any, batch: Any) -> bool:
        self.tries += 1
        if self.tries < 3:
            raise ArithmeticError("odd")
        return self.tries == 3


def test_what_fails_in_an_unforeseen_way_is_counted_and_the_next_batch_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)
    sender = Oddly("http://127.0.0.1:9", "s", {})
    counts = []
    for number in range(4):
        sender.put(span(number), True)
        assert sender.flush(10.0) is True
        counts.append(sender.dropped)
    assert counts == [1, 2, 2, 3]


def test_a_proxy_that_cannot_be_used_is_counted_and_used_when_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "nonsense://h")
    monkeypatch.setenv("ALL_PROXY", "nonsense://h")
    sender = OtlpSender("http://h.invalid", "s", {})
    for number in range(2):
        sender.put(span(number), True)
        assert sender.flush(10.0) is True and sender.dropped == number + 1


@pytest.mark.parametrize("value", ["café", "a\nb", "a\x7fb", "a\x00", "a\n b"])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "")
    said = "trace_to was given a value for 'x-team' that no header may have: give printable ASCII"
    with pytest.raises(ConfigError) as refused:
        OtlpSender("http://h", "s", {"x-team": value})
    assert str(refused.value) == said
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=caf%C3%A9")
    with pytest.raises(ConfigError, match="'x-team'"):
        OtlpSender("http://h", "s", {})
    for given in ("Bearer abc\n", "\r\n Bearer abc"):
        assert OtlpSender("http://h", "s", {"x-team": given})._headers == {"x-team": "Bearer abc"}, "a key of a file"
    assert OtlpSender("http://h", "s", {"x-team": " ~a\tb! "})._headers == {"x-team": "~a\tb!"}, "what is given wins"


@pytest.mark.parametrize("name", ["", "a b", "é", "a:", "a\n"])
def test_a_header_of_another_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "")
    with pytest.raises(ConfigError, match="give a name of letters, digits and dashes"):
        OtlpSender("http://h", "s", {name: "v"})


def test_headers_arrive_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20k%3D=,x-empty=")
    came: list[tuple[str | None, str | None]] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers["authorization"], self.headers["x-empty"]))
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sender = OtlpSender(f"http://127.0.0.1:{server.server_port}", "s", {})
    sender.put(span(1), True)
    assert sender.flush(10.0) and sender.dropped == 0 and came == [("Bearer k==", "")]
    server.shutdown()
    server.server_close()
