"""Decodes OTLP's protobuf messages into spans. Needs opentelemetry-proto, which the extra `studio` brings."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from firsthand.errors import ConfigError, DataError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.request_bounds import (
    check_protobuf_values,
    check_spans,
    check_written_bytes,
    scope_name,
)
from firsthand.message import Json

MAX_DEPTH = 64
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)


def decode_protobuf(raw: bytes) -> tuple[list[IncomingSpan], int]:
    """The spans of an ExportTraceServiceRequest, and the number of those left out for ids that are none.

    DataError if the bytes are no such message.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError:
        raise ConfigError("protobuf needs opentelemetry-proto: pip install 'firsthand[studio]'") from None
    check_protobuf_values(raw, ExportTraceServiceRequest.DESCRIPTOR)
    check_written_bytes(raw)
    try:
        return spans_of_request(ExportTraceServiceRequest.FromString(raw))
    except (DecodeError, RecursionError) as error:
        raise DataError(
            f"the body is no OTLP request in protobuf: {str(error)[:200] or 'it is cut or damaged'}"
        ) from None


def spans_of_request(request: Any) -> tuple[list[IncomingSpan], int]:
    """The spans of a decoded request, and the number of those left out; DataError if they are too many."""
    groups = [scope.spans for each in request.resource_spans for scope in each.scope_spans]
    check_spans(sum(map(len, groups)), sum(len(span.events) + len(span.links) for spans in groups for span in spans))
    found: list[IncomingSpan] = []
    rejected = 0
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            scope = scope_name(of_scope.scope.name)
            for span in of_scope.spans:
                trace_id, span_id = span.trace_id, span.span_id
                if len(trace_id) != 16 or len(span_id) != 8 or trace_id == _NO_TRACE or span_id == _NO_SPAN:
                    rejected += 1
                    continue
                parent = span.parent_span_id
                status = span.status if span.HasField("status") else None
                one = IncomingSpan(
                    trace_id.hex(), span_id.hex(), parent.hex() if parent and parent != _NO_SPAN else "", span.name,
                    span.start_time_unix_nano, span.end_time_unix_nano, _attributes(span.attributes), [], [], resource,
                    scope, span.kind, status.message if status is not None and status.code == 2 else None,
                )  # fmt: skip
                if span.events:
                    one.events = [
                        {"name": each.name, "at_ns": each.time_unix_nano, "attributes": _attributes(each.attributes)}
                        for each in span.events
                    ]
                if span.links:
                    one.links = [
                        {
                            "trace_id": each.trace_id.hex(),
                            "span_id": each.span_id.hex(),
                            "attributes": _attributes(each.attributes),
                        }
                        for each in span.links
                    ]
                found.append(one)
    return found, rejected


def _attributes(pairs: Any) -> Json:
    """The attributes by name; of two with one name the later gets a number, so that neither is lost."""
    found: Json = {}
    numbers: dict[str, int] = {}
    for pair in pairs:
        key, value = pair.key, pair.value
        plain = value.string_value  # most are texts, and one that is not empty needs no question for its kind
        if not plain:
            kind = value.WhichOneof("value")
            plain = getattr(value, kind) if kind in _PLAIN else _value(value, 0)
        if key in found:
            key = free_name(key, found, numbers)
        found[key] = plain
    return found


_PLAIN = frozenset(("string_value", "bool_value", "int_value", "double_value"))


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if depth > MAX_DEPTH:
        return "[nested too deep]"
    if kind == "array_value":
        return [_value(each, depth + 1) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: _value(each.value, depth + 1) for each in value.kvlist_value.values}
    plain = getattr(value, kind)
    return b64encode(plain).decode() if isinstance(plain, bytes) else plain  # as the JSON encoding has it


def free_name(key: str, taken: Json, numbers: dict[str, int]) -> str:
    """A name such as `key#2` that is not taken yet. `numbers` keeps the last of each key: calls take linear time."""
    number = numbers.get(key, 1) + 1
    while f"{key}#{number}" in taken:
        number += 1
    numbers[key] = number
    return f"{key}#{number}"
