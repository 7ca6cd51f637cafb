"""OTLP requests for tests: spans as JSON and as protobuf."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECOND = 1_000_000_000
START = 1_795_000_000 * SECOND


def value(plain: Any) -> dict[str, Any]:
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    if isinstance(plain, list):
        return {"arrayValue": {"values": [value(each) for each in plain]}}
    if isinstance(plain, dict):
        return {"kvlistValue": {"values": pairs(plain)}}
    return {"stringValue": plain}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(each)} for key, each in attributes.items()]


def span(
    trace_: int,
    number_: int,
    parent: int = 0,
    name: str = "work",
    *,
    start_s: float = 0.0,
    took_s: float = 1.0,
    error: str | None = None,
    events: Any = (),
    **attributes: Any,
) -> dict[str, Any]:
    """A span in OTLP's JSON; `__` in the name of an attribute is a dot."""
    begun = START + int(start_s * SECOND)
    body = {
        "traceId": f"{trace_:032x}",
        "spanId": f"{number_:016x}",
        "name": name,
        "startTimeUnixNano": str(begun),
        "endTimeUnixNano": str(begun + int(took_s * SECOND)),
        "attributes": pairs({key.replace("__", "."): each for key, each in attributes.items()}),
        "events": [
            {"name": each, "timeUnixNano": str(begun), "attributes": pairs(held)} for each, held in dict(events).items()
        ],
    }
    if parent:
        body["parentSpanId"] = f"{parent:016x}"
    if error is not None:
        body["status"] = {"code": 2, "message": error}
    return body


def request(*spans: dict[str, Any], service: str = "shop", scope: str = "tests") -> dict[str, Any]:
    resource = {"attributes": pairs({"service.name": service})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": scope}, "spans": list(spans)}]}]}


def as_json(*spans: dict[str, Any], **options: Any) -> bytes:
    return json.dumps(request(*spans, **options)).encode()


def as_protobuf(*spans: dict[str, Any], **options: Any) -> bytes:
    body = request(*spans, **options)
    for of_resource in body["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for each in of_scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in each:  # protobuf's own JSON writes bytes in base64, OTLP's in hex
                        import base64

                        each[key] = base64.b64encode(bytes.fromhex(each[key])).decode()
    made: bytes = Parse(json.dumps(body), ExportTraceServiceRequest()).SerializeToString()
    return made
