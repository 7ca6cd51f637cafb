"""Decodes OTLP's JSON encoding into spans: ids in hex, 64-bit numbers as text or as numbers, names in lowerCamelCase."""

from __future__ import annotations

import json
import re
from typing import Any

from firsthand.errors import DataError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_protobuf import MAX_DEPTH, free_name
from firsthand.ingest.request_bounds import check_json_values, check_spans, scope_name
from firsthand.message import Json

_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-fA-F]{32}"), re.compile(r"[0-9a-fA-F]{16}")
_MAX_UINT = (1 << 64) - 1


def decode_json(raw: bytes) -> tuple[list[IncomingSpan], int]:
    """The spans of an ExportTraceServiceRequest in JSON, and the number of those left out because they are none.

    DataError if the body is no such object. Unknown fields are ignored, as OTLP asks.
    """
    check_json_values(raw)
    try:
        body = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"the body is not valid UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise DataError("the body nests lists and objects too deep") from None
    except ValueError as error:
        raise DataError(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict) or not isinstance(body.get("resourceSpans", []), list):
        raise DataError('the body is no OTLP request: an object with a list "resourceSpans" was expected')
    found: list[IncomingSpan] = []
    rejected = num_spans = num_events = 0
    for of_resource in _objects(body.get("resourceSpans")):
        resource = _attributes(_object(of_resource.get("resource")).get("attributes"))
        for of_scope in _objects(of_resource.get("scopeSpans")):
            scope = scope_name(_text(_object(of_scope.get("scope")).get("name")))
            spans = of_scope.get("spans")
            spans = spans if isinstance(spans, list) else []
            num_spans += len(spans)
            num_events += sum(len(_objects(each.get(key))) for each in _objects(spans) for key in ("events", "links"))
            check_spans(num_spans, num_events)
            for each in spans:
                one = _span(each, resource, scope)
                found += [] if one is None else [one]
                rejected += one is None
    return found, rejected


def _span(body: Any, resource: Json, scope: str) -> IncomingSpan | None:
    if not isinstance(body, dict):
        return None
    trace_id, span_id = _text(body.get("traceId")).lower(), _text(body.get("spanId")).lower()
    parent = _text(body.get("parentSpanId")).lower()
    if (
        not _TRACE_ID.fullmatch(trace_id)
        or not _SPAN_ID.fullmatch(span_id)
        or not (int(trace_id, 16) and int(span_id, 16))
    ):
        return None
    if not _SPAN_ID.fullmatch(parent) or not int(parent, 16):
        parent = ""
    status = _object(body.get("status"))
    return IncomingSpan(
        trace_id, span_id, parent, _text(body.get("name")), _uint(body.get("startTimeUnixNano")),
        _uint(body.get("endTimeUnixNano")), _attributes(body.get("attributes")),
        [
            {"name": _text(each.get("name")), "at_ns": _uint(each.get("timeUnixNano")),
             "attributes": _attributes(each.get("attributes"))}
            for each in _objects(body.get("events"))
        ],
        [
            {"trace_id": _text(each.get("traceId")).lower(), "span_id": _text(each.get("spanId")).lower(),
             "attributes": _attributes(each.get("attributes"))}
            for each in _objects(body.get("links"))
        ],
        resource, scope, min(_uint(body.get("kind")), 5),
        _text(status.get("message")) if status.get("code") in (2, "2", "STATUS_CODE_ERROR") else None,
    )  # fmt: skip


def _attributes(pairs: Any) -> Json:
    found: Json = {}
    numbers: dict[str, int] = {}
    for pair in _objects(pairs):
        key = _text(pair.get("key"))
        if key in found:  # of two with one name neither is lost
            key = free_name(key, found, numbers)
        found[key] = _value(_object(pair.get("value")), 0)
    return found


def _value(value: Json, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return "[nested too deep]"
    for kind, held in value.items():
        match kind:
            case "stringValue" | "bytesValue":
                return _text(held)
            case "boolValue":
                return bool(held)
            case "intValue":
                return _int(held)
            case "doubleValue":
                return _float(held)
            case "arrayValue":
                return [_value(each, depth + 1) for each in _objects(_object(held).get("values"))]
            case "kvlistValue":
                pairs = _objects(_object(held).get("values"))
                return {_text(each.get("key")): _value(_object(each.get("value")), depth + 1) for each in pairs}
    return None


def _objects(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)[:1000]


def _int(value: Any) -> int | str:
    try:
        if isinstance(value, float) and not abs(value) <= _MAX_UINT:
            return _text(value)  # 1e308 would be 309 digits
        return int(value) if not isinstance(value, str) or len(value) <= 40 else value[:1000]
    except (ValueError, TypeError, OverflowError):
        return _text(value)


def _uint(value: Any) -> int:
    number = _int(value)
    return min(max(number, 0), _MAX_UINT) if isinstance(number, int) else 0


def _float(value: Any) -> float | str:
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return _text(value)
