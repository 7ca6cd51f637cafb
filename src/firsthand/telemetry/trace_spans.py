"""Converts an attempt to the spans of a distributed trace: the agent, and below it each generation, scoring and tool call.

Ids are hashes of the run, the attempt's place and the effect, so an attempt that is sent twice is the same trace, and the
span of an endpoint that an effect called lies below it (see `system.trace_context`). The words of a protected task are never
exported, other messages only on request, as guards let them pass. Needs no package: `otlp_export` sends the spans.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from firsthand.loop.passed_borders import passed, sent_turns
from firsthand.loop.protection import VOTES, is_own_name, shareable
from firsthand.message import Message, assistant
from firsthand.system.trace_context import TraceParent
from firsthand.telemetry import genai
from firsthand.telemetry.genai import Attributes
from firsthand.trace import Call, Event, Trace

_NS = 1_000_000_000
_MOST_S = 3e9
"""Seconds since 1970, in the year 2065: a start, an offset and a duration together are within 63 bits."""


@dataclass(frozen=True)
class SpanEvent:
    """Something that happened at a moment of a span."""

    name: str
    at_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A stretch of work. Times are nanoseconds since 1970."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_ns: int
    end_ns: int
    kind: Literal["internal", "client"] = "internal"
    attributes: Attributes = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    error: str | None = None
    """The error message, None without an error; may be empty."""


def parent_of(place: str, run: str, effect: str | None = None) -> TraceParent:
    """The ids of the span of the attempt at a place (`Trace.place`), or of an effect of it such as `0.3:1`.

    They follow from the place, which is known before the attempt ends and is the same when it is resumed.
    """
    return TraceParent(_number(16, run, place), _number(8, run, place, effect or ""))


def spans_of(trace: Trace, run: str = "", *, content: bool = False) -> list[Span]:
    """The attempt's span and those of its calls. `run` is the run that holds it; `content` exports messages too."""
    trace = passed(shareable(trace))
    content = content and trace.protected is None
    start_ns = _when_ns(trace.started_at)
    return [
        _agent(trace, run, start_ns, content),
        *(_call(trace, run, call, start_ns, content) for call in trace.calls),
    ]


def _agent(trace: Trace, run: str, start_ns: int, content: bool) -> Span:
    place = parent_of(trace.place, run)
    model = str(trace.agent.get("model", ""))
    name = genai.clean(trace.agent_name)
    attributes = genai.operation("invoke_agent", model) | genai.usage(trace.usage)
    attributes |= {
        "gen_ai.agent.name": name,
        "gen_ai.conversation.id": trace.id,
        "firsthand.benchmark": genai.clean(trace.benchmark),
        "firsthand.task": genai.clean(trace.task_id),
        "firsthand.epoch": trace.epoch,
        "firsthand.seed": trace.seed,
        "firsthand.stop_reason": trace.stop_reason,
    }
    if run:
        attributes["firsthand.run"] = run
    if trace.error is not None:
        attributes["error.type"] = trace.error.kind
    if content:
        first = next((call for call in trace.calls if call.kind != "tool"), None)
        attributes |= genai.prompt(() if first is None else _sent(trace, first))
        attributes |= {} if trace.answer is None else genai.answers([(assistant(trace.answer), "stop")])
    events = [SpanEvent(event.kind, start_ns + _ns(event.at_s), _plain(event)) for event in trace.events]
    end_ns = start_ns + _ns(trace.duration_s)
    events += _evaluations(trace, end_ns)
    error = None if trace.error is None else _told(trace.error.message, content)
    return Span(f"invoke_agent {name}", place.trace_id, place.span_id, None, start_ns, end_ns, "internal", attributes,
                tuple(events), error)  # fmt: skip


def _call(trace: Trace, run: str, call: Call, start_ns: int, content: bool) -> Span:
    place = parent_of(trace.place, run, call.id)
    model = str(trace.agent.get("model", ""))
    is_local = str(trace.agent.get("fingerprint", "")).startswith("local:")
    match call.kind:
        case "tool":
            name, attributes = _tool(trace, call, content)
        case "generate":
            name, attributes = _generation(trace, call, model, content)
        case "score":
            name, attributes = f"score {model}", genai.operation("score", model) | genai.usage(call.usage)
        case "guard":
            asked = str(call.detail.get("model", model))
            name, attributes = f"guard {asked}", genai.operation("guard", asked) | genai.usage(call.usage)
        case "memory":
            operation = str(call.detail.get("operation", ""))
            name, attributes = f"memory {operation}", {"gen_ai.operation.name": f"memory_{operation}"}
    attributes |= {"firsthand.effect": call.id, "firsthand.replayed": call.replayed}
    if call.error is not None:
        attributes["error.type"] = "tool_error" if call.kind == "tool" else "_OTHER"
    begin_ns = start_ns + _ns(call.started_s)
    error = None if call.error is None else _told(call.error, content)
    return Span(
        genai.clean(name),
        place.trace_id,
        place.span_id,
        parent_of(trace.place, run).span_id,
        begin_ns,
        begin_ns + _ns(call.duration_s),
        "internal" if is_local or call.kind in ("tool", "memory") else "client",
        attributes,
        error=error,
    )


def _generation(trace: Trace, call: Call, model: str, content: bool) -> tuple[str, Attributes]:
    asked = call.detail.get("prompt")
    verb = "chat" if asked is None else "text_completion"
    attributes = genai.operation(verb, model) | genai.usage(call.usage)
    reasons = [str(reason) for reason in call.detail.get("finish_reasons", ())]
    if isinstance(settings := call.detail.get("sampling"), dict):
        attributes |= genai.request(settings, n=max(len(reasons), 1))
    if reasons:
        attributes |= {"gen_ai.response.finish_reasons": reasons, "gen_ai.response.model": genai.clean(model)}
    if content:
        attributes |= genai.prompt(_sent(trace, call) if asked is None else str(asked))
        told = [message for node in call.nodes for message in _messages(trace, node)[-1:]]
        attributes |= genai.answers(list(zip(told, reasons, strict=False)))
    return f"{verb} {model}", attributes


def _tool(trace: Trace, call: Call, content: bool) -> tuple[str, Attributes]:
    name = str(call.detail.get("name", ""))
    attributes = genai.operation("execute_tool") | genai.tool(name, id=_id_of(trace, call))
    if content:
        attributes |= genai.tool_content(call.detail.get("arguments"), call.detail.get("result"))
    return f"execute_tool {name[:256]}", attributes


def _id_of(trace: Trace, call: Call) -> str | None:
    """The id that the model gave the call, if the message that it was made in holds one like it."""
    asked = call.detail.get("name"), call.detail.get("arguments")
    made = [each for message in _messages(trace, call.at)[-1:] for each in message.tool_calls]
    return next((each.id for each in made if (each.name, each.arguments) == asked), None)


def _sent(trace: Trace, call: Call) -> list[Message]:
    return [turn.message for turn in sent_turns(trace, call)]


def _messages(trace: Trace, at: int | None) -> tuple[Message, ...]:
    return trace.messages(at) if at is not None and 0 <= at < len(trace.nodes) else ()


def _evaluations(trace: Trace, at_ns: int) -> list[SpanEvent]:
    """The scores as events of the conventions; one that its scorer could not give has an error in place of a value."""
    found = []
    for score in trace.scores:
        attributes: Attributes = {"gen_ai.evaluation.name": genai.clean(score.name)}
        if score.failed:
            attributes["error.type"] = "scorer_failed"
        else:
            attributes["gen_ai.evaluation.score.value"] = float(score.value)
        found.append(SpanEvent("gen_ai.evaluation.result", at_ns, attributes))
    return found


def _told(error: str, content: bool) -> str:
    """The error message, only if content is exported: it may quote messages, and a tool's error is its output."""
    return genai.clean(error) if content else ""


def _plain(event: Event) -> Attributes:
    """The numbers among an event's data, by name: texts may quote messages, and so do the names in a vote, and long ones."""
    if event.kind in VOTES:
        return {}
    numbers = {key: value for key, value in event.data.items() if isinstance(value, int | float)}
    return {f"firsthand.{key}": value for key, value in numbers.items() if is_own_name(key)}


def _when_ns(text: str) -> int:
    """A time of a trace (UTC, ISO 8601) in nanoseconds since 1970; 0 if it is none."""
    try:
        return _ns(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        return 0


def _ns(seconds: float) -> int:
    """Seconds in nanoseconds, within what OTLP can hold: a clock may be set to any time, and a file holds anything."""
    return int(min(max(seconds, 0.0), _MOST_S) * _NS) if seconds == seconds else 0


def _number(size: int, *parts: str) -> int:
    """A number of so many bytes that the parts decide, and that is not 0."""
    digest = hashlib.sha256("\x1f".join(("firsthand", *parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:size], "big") or 1
