"""Large requests of spans go to the writer's second thread, and long dense texts do not pass the bounds of their readers."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import otlp_requests as otlp
from firsthand.errors import ConfigError, ModelError
from firsthand.ingest import as_trace, span_writer
from firsthand.ingest.dialects import span_facts
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_writer import SpanWriter, WriteOutcome
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import ToolCall, assistant
from firsthand.providers import a2a_transport, cassette, openai_wire
from firsthand.retrieval.store import meta_reader

SMALL, LARGE = otlp.as_json(otlp.span(1, 1, text="x")), otlp.as_json(otlp.span(2, 2, text="y" * 3000))


class Held(SpanPreparer):
    """Redacts large requests when it is let."""

    def __init__(self) -> None:
        super().__init__(Redactor())
        self.begun, self.let, self.threads = threading.Event(), threading.Event(), list[str]()

    def prepared(self, spans: Any) -> Any:
        spans = list(spans)
        self.threads.append(threading.current_thread().name)
        if spans and spans[0].trace_id == f"{2:032x}":
            self.begun.set()
            assert self.let.wait(10)
        return super().prepared(spans)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("raw", "encoding"), [(LARGE, ""), (gzip.compress(LARGE), "gzip")], ids=["as it is", "small as gzip"]
)
def test_a_small_request_waits_for_no_large_one(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch, raw: bytes, encoding: Any
) -> None:
    monkeypatch.setattr(span_writer, "LARGE_BYTES", 1000)
    preparer, large, small = Held(), list[WriteOutcome](), list[WriteOutcome]()
    writer = SpanWriter(store, preparer)
    ended = threading.Event()
    assert writer.submit(raw, "json", encoding, large.append)
    assert preparer.begun.wait(10)
    assert writer.submit(SMALL, "json", "", lambda outcome: (small.append(outcome), ended.set())[0])
    assert ended.wait(10) and small == [WriteOutcome(1, 0)] and not large
    assert writer._size == len(raw), "its bytes are counted until it is kept"
    assert writer.submit(raw, "json", encoding, large.append)
    threading.Timer(0.05, preparer.let.set).start()
    writer.close()
    assert large == [WriteOutcome(1, 0)] * 2 and writer._size == 0, "closing writes what waits"
    assert preparer.threads == ["large-span-writer", "span-writer", "large-span-writer"]
    assert len(store.spans(f"{2:032x}")) == 1


def test_a_request_is_large_above_the_bound_and_waiting_ones_count(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, done = SpanWriter(store, SpanPreparer(Redactor())), list[WriteOutcome]()
    writer.close()
    writer._closed = False
    monkeypatch.setattr(span_writer, "LARGE_BYTES", len(SMALL))
    assert writer.submit(SMALL, "json", "", done.append) and writer.submit(SMALL + b" ", "json", "", done.append)
    assert writer.submit(gzip.compress(SMALL + b" "), "json", "gzip", done.append)
    writer._write_some()
    assert len(done) == 1 and len(writer._large) == 2 and writer._size == sum(each.size for each in writer._large)
    monkeypatch.setattr(span_writer, "MAX_WAITING", 2)
    assert not writer.submit(SMALL, "json", "", done.append)
    writer._work_large()  # a closed writer's ends with what waits
    assert done == [WriteOutcome(1, 0)] * 3 and writer._size == 0 and not writer._large
    monkeypatch.setattr(span_writer, "MAX_REQUEST_BYTES", len(SMALL) - 1)
    assert writer.submit(gzip.compress(SMALL), "json", "gzip", done.append)
    writer._write_some()
    writer._work_large()
    assert done[3].problem.startswith("the request is larger than") and writer._size == 0


def test_a_transaction_ends_by_the_inflated_bytes(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, done = SpanWriter(store, SpanPreparer(Redactor())), list[WriteOutcome]()
    writer.close()
    writer._closed = False
    monkeypatch.setattr(span_writer, "_BYTES", 3000)
    for _ in range(2):
        assert writer.submit(gzip.compress(LARGE), "json", "gzip", done.append)
    writer._write_some()
    assert len(done) == 1 and len(writer._waiting) == 1


LONG = b"[" + b"1," * 60 + b"1]"
"""More values than a first piece of 16 bytes has."""
OBJECTS = [json.dumps({name: json.loads(LONG)}, separators=(",", ":")) for name in "abc"]


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.system.json_values._AT_ONCE", 16)


def test_a_cassette_counts_the_values_of_a_long_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: None
) -> None:
    monkeypatch.setattr(cassette, "_MAX_VALUES", 100)
    file = tmp_path / "c.jsonl"
    line = json.dumps({"prompt": "a," * 200, "replies": ["x"] * 40}) + "\n"
    file.write_text(line * 2)
    cassette.open_model(str(file))  # commas of texts do not count
    file.write_text(line * 3)
    with pytest.raises(ConfigError, match="more than 100 JSON values"):
        cassette.open_model(str(file))


def test_arguments_of_calls_count_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    monkeypatch.setattr(openai_wire, "MAX_ARGUMENT_VALUES", 130)
    reader = openai_wire.CallReader()
    call = {"function": {"name": "f", "arguments": OBJECTS[0]}}
    reader.read(call), reader.read(call)
    with pytest.raises(ModelError, match="more than 130 values"):
        reader.read(call)


def test_metas_count_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    monkeypatch.setattr(meta_reader, "MAX_ANSWER_VALUES", 100)
    reader = meta_reader.MetaReader()
    reader.read(OBJECTS[0]), reader.read(OBJECTS[1])
    with pytest.raises(ValueError, match="more than 100 values together"):
        reader.read(OBJECTS[2])


def test_texts_of_a_span_count_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    monkeypatch.setattr(span_facts, "MAX_VALUES", 130)
    monkeypatch.setattr(span_facts, "_FEW_VALUES", 10)
    with span_facts.values_of_one_span():
        assert [isinstance(span_facts.parsed(LONG.decode()), list) for _ in range(3)] == [True, True, False]


def test_messages_of_a_trace_count_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    values = span_facts.TraceValues()
    monkeypatch.setattr(values, "_may_hold", 100)
    said = as_trace._Conversation(values)
    call = ToolCall("1", "f", {"a": json.loads(LONG)})
    said.node(None, assistant("x", call))
    assert values.left and values._may_hold < 40
    said.node(None, assistant("y", call))
    assert values.left == 0


def test_events_of_an_mcp_server_count_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    httpx2 = pytest.importorskip("httpx2")
    from firsthand.tools.mcp import http_endpoint, message_flow

    monkeypatch.setattr(http_endpoint, "MAX_VALUES", 100)
    events: Any = http_endpoint._Events(httpx2.ByteStream(b""), message_flow.MessageFlow())
    events._count(LONG + b"\n\n" + LONG)
    with pytest.raises(httpx2.ReadError):
        events._count(b"\n" + LONG + b"\n" + LONG)


def test_a_response_of_an_a2a_peer_counts_each_value(monkeypatch: pytest.MonkeyPatch, pieces: None) -> None:
    monkeypatch.setattr(a2a_transport, "MAX_VALUES", 50)

    async def answered(transport: Any, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "application/json"}, stream=httpx.ByteStream(LONG))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answered)

    async def main() -> None:
        async with a2a_transport.bounded_client("", 1.0, "http://h") as client:
            await client.get("http://h/")

    with pytest.raises(ModelError, match="more than 50 JSON values at once"):
        asyncio.run(main())
