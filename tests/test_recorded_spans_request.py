"""A request that sends recorded spans: every field of it, as the service and the code named them."""

from __future__ import annotations

from typing import Any

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import otlp_json


def test_a_request_of_recorded_spans_is_written_field_by_field() -> None:
    one = IncomingSpan("0a" * 16, "0b" * 8, "0c" * 8, "Ask", 5, 9, {"A": "É", "n": 2}, kind=3, error="Bad")
    one.events = [{"name": "E", "at_ns": 7, "attributes": {"B": False}}]
    two = IncomingSpan("0a" * 16, "0d" * 8, "", "n", 6, 6)

    def sent(service: str, *spans: IncomingSpan) -> dict[str, Any]:
        (resource,) = otlp_json(spans, service)["resourceSpans"]
        return dict(resource)

    def text(key: str, value: str) -> dict[str, Any]:
        return {"key": key, "value": {"stringValue": value}}

    assert sent("Shop One", one, two) == {
        "resource": {"attributes": [
            text("service.name", "Shop One"), text("telemetry.sdk.language", "python"),
            text("telemetry.sdk.name", "firsthand"),
        ]},
        "scopeSpans": [{"scope": {"name": "firsthand.traced"}, "spans": [
            {
                "traceId": "0a" * 16, "spanId": "0b" * 8, "parentSpanId": "0c" * 8, "name": "Ask", "kind": 3,
                "startTimeUnixNano": "5", "endTimeUnixNano": "9",
                "attributes": [text("A", "É"), {"key": "n", "value": {"intValue": "2"}}],
                "events": [
                    {"name": "E", "timeUnixNano": "7", "attributes": [{"key": "B", "value": {"boolValue": False}}]}
                ],
                "status": {"code": 2, "message": "Bad"},
            },
            {
                "traceId": "0a" * 16, "spanId": "0d" * 8, "name": "n", "kind": 1, "startTimeUnixNano": "6",
                "endTimeUnixNano": "6", "attributes": [], "events": [], "status": {},
            },
        ]}],
    }  # fmt: skip
    assert [sent(name)["resource"]["attributes"][0] for name in ("", " É ")] == [
        text("service.name", ""), text("service.name", " É "),
    ]  # fmt: skip
    assert sent("s")["scopeSpans"] == [{"scope": {"name": "firsthand.traced"}, "spans": []}]
