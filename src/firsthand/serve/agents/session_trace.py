"""The one Trace of a session: the attempts of its turns, joined in order under one conversation.

Each turn is an attempt, and its record is kept whole, also where it failed or was cancelled. `final_state["turns"]` says of
each turn its state and how much of the trace was there after it, so that a turn that goes on later takes its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from firsthand.loop.listener import Added, Began, Piece, Step
from firsthand.message import Json, Message, assistant, user
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.trace import Call, Event, Node, Trace, new_trace_id

_STOPPED = {"canceled": "canceled", "input_required": "input_required"}
"""Stop reasons of the session's trace that are states of its last turn."""


class HeardSteps:
    """The steps of an attempt under way, so that a cancelled one has a record too."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.open: set[str] = set()
        """Effects that have begun and not ended."""

    def hear(self, step: Step) -> None:
        """Keep a step."""
        match step:
            case Added(_, node):
                self.nodes.append(node)
            case Began(id):
                self.open.add(id)
            case Call():
                self.open.discard(step.id)
                self.calls.append(step)
            case Event():
                self.events.append(step)
            case Piece():
                pass

    def trace(self, like: Trace) -> Trace:
        """The trace `like` with these steps."""
        return replace(like, nodes=tuple(self.nodes), calls=tuple(self.calls), events=tuple(self.events))


def joined(before: Trace | None, attempt: Trace, turn: SessionTurn, history: Sequence[Message]) -> Trace:
    """The session's trace with the attempt of a turn, in place of what it held of that turn or a later one.

    `history` are the messages that the attempt began with: they are in the trace already. The agent's system message comes
    before them, or in place of a system message of theirs.
    """
    parts = _parts(before, turn.number)
    kept: Json = parts[-1] if parts else {"nodes": 0, "calls": 0, "events": 0, "tip": None, "seconds": 0.0, "tools": 0}
    nodes = list(before.nodes[: kept["nodes"]]) if before is not None else []
    places: list[int | None] = []
    chain = [] if before is None or kept["tip"] is None else list(before.path(kept["tip"]))
    number, shared = len(nodes), 0
    for index, node in enumerate(attempt.nodes):
        same = index == shared and index < len(chain) and node.message == nodes[chain[index]].message
        if same:
            shared += 1
            places.append(chain[index])
            continue
        places.append(number)
        nodes.append(Node(None if node.parent is None else places[node.parent], node.message))
        number += 1
    told = [message for index, message in enumerate(history) if index or message.role != "system"]
    tip: int | None = _tip(attempt, places, len(told)) if attempt.nodes else kept["tip"]
    if turn.state == "completed" and turn.answer is not None:
        for message in (user(turn.prompt), assistant(turn.answer)):
            nodes.append(Node(tip, message))
            tip = len(nodes) - 1
    tools = list(before.tools[: kept["tools"]]) if before is not None else []
    shift, first_tool = kept["calls"], len(tools)
    moved = [_moved(call, places, turn.number, kept["seconds"], shift, first_tool) for call in attempt.calls]
    said = _said(turn, kept["seconds"] + attempt.duration_s)
    events = [_moved_event(event, places, turn.number, kept["seconds"]) for event in attempt.events]
    calls = (*(before.calls[: kept["calls"]] if before else ()), *moved)
    heard = (*(before.events[: kept["events"]] if before else ()), *events, said)
    seconds = kept["seconds"] + attempt.duration_s
    part = {
        "number": turn.number,
        "id": turn.id,
        "state": turn.state,
        "nodes": len(nodes),
        "calls": len(calls),
        "events": len(heard),
        "tools": len(tools) + len(attempt.tools),
        "tip": tip,
        "seconds": seconds,
    }
    return replace(
        attempt,
        id=new_trace_id(),
        started_at=before.started_at if before is not None and parts else attempt.started_at,
        duration_s=seconds,
        nodes=tuple(nodes),
        calls=calls,
        events=heard,
        tools=(*tools, *attempt.tools),
        stop_reason=_STOPPED.get(turn.state, attempt.stop_reason),
        final_state={**attempt.final_state, "turns": [*parts, part]},
    )


def restated(trace: Trace, turn: SessionTurn) -> Trace | None:
    """The session's trace up to a turn, whose record stays while its state is another; None if it has no record of it."""
    own: Json | None = next((part for part in trace.final_state.get("turns", ()) if part.get("id") == turn.id), None)
    if own is None:
        return None
    events = (*trace.events[: own["events"]], _said(turn, own["seconds"]))
    part = {**own, "state": turn.state, "events": len(events)}
    return replace(
        trace,
        id=new_trace_id(),
        duration_s=own["seconds"],
        nodes=trace.nodes[: own["nodes"]],
        calls=trace.calls[: own["calls"]],
        events=events,
        tools=trace.tools[: own["tools"]],
        answer=turn.answer,
        error=None,
        stop_reason=_STOPPED.get(turn.state, trace.stop_reason),
        final_state={**trace.final_state, "turns": [*_parts(trace, turn.number), part]},
    )


def _said(turn: SessionTurn, at_s: float) -> Event:
    """The event of a turn's new state."""
    note = {"number": turn.number, "id": turn.id, "state": turn.state, "prompt": turn.prompt, "error": turn.error}
    return Event("turn", at_s, {name: value for name, value in note.items() if value is not None})


def _parts(before: Trace | None, number: int) -> list[Json]:
    """The record in the trace of the turns before this one."""
    kept = [] if before is None else before.final_state.get("turns", ())
    return [part for place, part in enumerate(kept, 1) if part.get("number", place) < number]


def _tip(attempt: Trace, places: Sequence[int | None], length: int) -> int | None:
    """The node that ends what the attempt began with: a system message, if there is one, and `length` others."""
    has_system = bool(attempt.nodes) and attempt.nodes[0].message.role == "system"
    count = length + (1 if has_system else 0)
    return places[count - 1] if 0 < count <= len(places) else None


def _effect(id: str, number: int) -> str:
    """The name of an effect in the session: the turn is a branch, as `concurrency.group` names them."""
    path, colon, rest = id.partition(":")
    return f"{number}.0{'/' if path else ''}{path}{colon}{rest}"


def _moved(call: Call, places: Sequence[int | None], number: int, late_s: float, shift: int, first_tool: int) -> Call:
    prompt = call.prompt
    if prompt is not None and prompt.after is not None:
        prompt = replace(prompt, after=prompt.after + shift)
    return replace(
        call,
        id=_effect(call.id, number),
        at=None if call.at is None else places[call.at],
        started_s=call.started_s + late_s,
        nodes=tuple(place for each in call.nodes if (place := places[each]) is not None),
        prompt=prompt,
        tools=tuple(first_tool + each for each in call.tools),
        detail=_with_places(call.detail, places),
    )


def _moved_event(event: Event, places: Sequence[int | None], number: int, late_s: float) -> Event:
    data: dict[str, Any] = _with_places(event.data, places)
    if isinstance(at := data.get("at"), int) and 0 <= at < len(places):
        data = data | {"at": places[at]}
    if event.kind == "branch" and isinstance(path := data.get("path"), str):
        data = data | {"path": _effect(path, number)}
    return Event(event.kind, event.at_s + late_s, data)


def _with_places(detail: Json, places: Sequence[int | None]) -> Json:
    """A detail whose prompt is listed by nodes, with the nodes' places in the session."""
    messages, positions = detail.get("messages"), detail.get("positions")
    moved = dict(detail)
    if isinstance(messages, list):
        moved["messages"] = [places[each] if isinstance(each, int) else each for each in messages]
    if isinstance(positions, list):
        moved["positions"] = [places[each] if isinstance(each, int) else each for each in positions]
    return moved
