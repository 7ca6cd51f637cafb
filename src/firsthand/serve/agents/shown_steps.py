"""Selects what a client of a served agent may read of an attempt: its steps while it runs, and its trace afterwards.

All doors read from here. A client gets named fields: of a guard its rule and action, and neither its reason nor what it
replaced. What a model wrote and a pattern noted is left out where a guard is still to judge answers or calls made of it.
Of a failed tool call a client reads the error that the guards have judged, or what its record gives for clients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firsthand.guard import Guard, watches
from firsthand.loop.listener import Began, Piece, Step
from firsthand.message import ERROR, Json, canonical
from firsthand.serve.agents.kept_sessions import PAGE_BYTES
from firsthand.trace import Call, Event, Failure, Trace

MAX_LINE_CHARS = 500
"""The most characters of a tool call's arguments, or of its result, in a line."""
_FIELDS: dict[str, tuple[str, ...]] = {
    "guard": ("border", "rule", "action", "effect", "at", "tool"),
    "guard_passes": (),
    "withheld": ("tool", "item", "effect"),
}
"""What a client reads of an event that tells of a guard, whichever guards there are."""
_OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "approval": ("tool", "arguments", "effect", "allowed", "by", "reason"),
    "limit": ("limit", "message"),
    "max_steps": ("steps",),
    "retry": ("attempt", "wait_s"),
    "too_many_calls": ("asked", "run"),
    "tools_changed": ("added", "removed"),
    "turn": ("number", "id", "state", "prompt", "error"),
}
"""What a client reads of events that hold nothing a model wrote; of others the kind alone, where that is to be judged."""
_UNJUDGED = f"{ERROR}the call failed; why is in the operator's record"


@dataclass(frozen=True)
class ShownSteps:
    """What a client may read of the attempts of an agent with these guards."""

    guards: Sequence[Guard]

    @property
    def drafts(self) -> bool:
        """True where texts of a model may be read before the attempt ends: no guard has yet to judge what is in them."""
        return not (watches(self.guards, "answer") or watches(self.guards, "call"))

    def step(self, step: Step) -> Began | Piece | Call | None:
        """The step as a client may read it; None if it may not."""
        match step:
            case Began(kind="tool") if "arguments" not in step.detail:  # no guard has passed them yet
                return None
            case Piece() if not self.drafts:
                return None
            case Call(kind="guard"):
                return None
            case Call():
                detail = self._tool_detail(step) if step.kind == "tool" else {}
                return replace(step, detail=detail, error=self._error(step, detail))
            case Began() | Piece():
                return step
        return None

    def trace(self, trace: Trace | None) -> Json | None:
        """The newest calls and events of a trace, as far as a page has room, without token ids."""
        if trace is None or trace.protected:
            return None
        calls = [self._call(each) for each in trace.calls if each.kind != "guard"]
        events = [{"kind": each.kind, "data": self._data(each)} for each in trace.events]
        body = {"id": trace.id, "stop_reason": trace.stop_reason, "answer": trace.answer}
        kept_events, kept_calls = _newest(events), _newest(calls)
        left_out = len(events) - len(kept_events) + len(calls) - len(kept_calls)
        return body | {"calls": kept_calls, "events": kept_events} | ({"left_out": left_out} if left_out else {})

    def error(self, failure: Failure) -> str:
        """The error of an attempt: not that of a bug, which may hold anything, nor one that may quote a draft."""
        if failure.traceback is not None:
            return "the agent met a bug of its own; the server's log has it"
        if not self.drafts:
            return f"the attempt failed with a {failure.kind}, whose text is in the operator's record"
        return failure.message

    def _call(self, call: Call) -> Json:
        detail = self._tool_detail(call) if call.kind == "tool" else {}
        return {"id": call.id, "kind": call.kind, "name": detail.get("name"), "result": detail.get("result"),
                "error": self._error(call, detail), "tokens": call.usage.total_tokens,
                "seconds": call.duration_s}  # fmt: skip

    def _tool_detail(self, call: Call) -> Json:
        """The name and the result of a tool call; of one that failed no text that the guards have not judged."""
        named: Json = {name: call.detail[name] for name in ("name", "result", "is_error") if name in call.detail}
        if not self.guards or not named.get("is_error"):
            return named
        # without `clients`: a record of an older version or of a fork, or an exception that a guard raised
        clients: Json = call.detail.get("clients", {"name": None, "result": _UNJUDGED})
        return named | clients

    def _error(self, call: Call, detail: Json) -> str | None:
        if call.error is not None and detail.get("is_error"):
            return str(detail["result"])
        return call.error if call.error is None or call.kind == "tool" or self.drafts else "it failed"

    def _data(self, event: Event) -> Json:
        fields = _FIELDS.get(event.kind)
        if fields is None and not self.drafts:
            fields = _OWN_FIELDS.get(event.kind, ())
        return event.data if fields is None else {name: event.data[name] for name in fields if name in event.data}


def step_line(step: object) -> str:
    """A tool call or its result in a line, as a person may read it; empty for another step."""
    match step:
        case Began(kind="tool", detail={"name": name, "arguments": arguments}):
            return f"{name}({canonical(arguments)[:MAX_LINE_CHARS]})"
        case Call(kind="tool", detail=detail, error=error):
            return f"-> {str(detail.get('result', error or ''))[:MAX_LINE_CHARS]}"
    return ""


def _newest(steps: Sequence[Json]) -> list[Json]:
    """The last steps that half a page has room for, in order; one at least."""
    left, kept = PAGE_BYTES // 2, 0
    while kept < len(steps) and (left > 0 or not kept):
        kept += 1
        left -= len(json.dumps(steps[-kept], ensure_ascii=False))
    return list(steps[len(steps) - kept :])
