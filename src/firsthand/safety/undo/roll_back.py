"""Rolls back what the calls of an attempt did, last first, from the states that `--guard undoable` recorded.

Each call is taken back only if the state is the one that it left: what somebody changed since is kept, and said. A trace may
come from anyone, so the guard seals what it records (`point_seal`), and `unsealed` names what it did not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json, canonical
from firsthand.safety.undo.rollback_log import RollbackLog
from firsthand.safety.undo.undo_point import UndoPoint, is_sealed, state_hash
from firsthand.tool import Tool
from firsthand.tool_calls import has_run
from firsthand.trace import Call, Trace

RULE = "undoable"
"""The rule of the events that hold the states."""


@dataclass(frozen=True)
class RollbackStep:
    """The outcome for one call."""

    point: UndoPoint
    outcome: Literal["restored", "as before", "kept"]
    """`as before`: the state was the earlier one already. `kept`: it could not be taken back, for the reason given."""
    reason: str = ""


def points_of(trace: Trace) -> list[UndoPoint]:
    """The calls of a trace that can be taken back, in the order in which they were made."""
    return _paired((event.data.get("detail") or {}) | {"at": event.data.get("at")} for event in trace.events
                   if event.kind == "guard" and event.data.get("rule") == RULE)  # fmt: skip


def calls_without_undo(trace: Trace, tools: Mapping[str, Tool], step: int | None = None) -> list[Call]:
    """The calls made from a step on that may have changed something, and of which no state was kept, in order.

    Left out: tools that only read, and calls that were refused. A tool that is not given may change anything.
    """
    kept = {each.effect for each in points_of(trace)}
    refused = Counter(_refusal(event.kind, event.data) for event in trace.events)
    found = []
    for call in trace.calls:
        if call.kind != "tool":
            continue
        name = call.detail["name"]
        tool, older = tools.get(name), _named(name, call.detail["arguments"])
        if call.id in refused:
            continue
        if refused[older] and not has_run(call):
            refused[older] -= 1  # each refusal is of one call, and equal ones may have been made
            continue
        if call.id in kept or (step is not None and (-1 if call.at is None else call.at) < step):
            continue
        if tool is None or tool.effect != "read":
            found.append(call)
    return found


def _refusal(kind: str, data: Json) -> str:
    """The id of the call that a guard or an approver refused; otherwise empty.

    Approvals recorded before 0.24 hold no id: the name and arguments of the call instead.
    """
    if kind == "guard" and data.get("border") == "call" and data.get("action") == "block":
        return str(data.get("effect"))
    if kind != "approval" or data.get("allowed"):
        return ""
    return str(data["call"]) if "call" in data else _named(data.get("tool"), data.get("arguments"))


def _named(name: object, arguments: object) -> str:
    return f"{name} {canonical(arguments)}"


def _paired(details: Iterable[Json]) -> list[UndoPoint]:
    """The points; what is no record of a call, in a trace of somebody else, is left out."""
    made: dict[str, UndoPoint] = {}
    for detail in details:
        call, tool, arguments = detail.get("call"), detail.get("tool"), detail.get("arguments")
        at, after, seal = detail["at"], detail.get("after_hash"), detail.get("seal")
        if not isinstance(call, str):
            continue
        if "before" in detail:
            if isinstance(tool, str) and isinstance(arguments, dict):
                made[call] = UndoPoint(call, at if isinstance(at, int) else -1, tool, arguments, detail["before"], None)
        elif call in made and isinstance(after, str):
            made[call] = replace(made[call], after_hash=after, seal=seal if isinstance(seal, str) else "")
    return list(made.values())


def unsealed(trace: Trace, points: Iterable[UndoPoint], tools: Mapping[str, Tool]) -> list[UndoPoint]:
    """The points that were not recorded under this data home, or act on something else with these tools."""
    return [
        each
        for each in points
        if each.tool not in tools or not is_sealed(trace.task_id, trace.agent_name, tools[each.tool], each)
    ]


def roll_back(
    points: Sequence[UndoPoint],
    tools: Mapping[str, Tool],
    log: RollbackLog,
    *,
    on_step: Callable[[RollbackStep], object] = lambda step: None,
) -> list[RollbackStep]:
    """Takes the calls back, last first, and stops at the first that cannot be: those before it are left as they are.

    ConfigError if a tool is not there or cannot undo: nothing is done then.
    """
    for point in points:
        tool = tools.get(point.tool)
        if tool is None or tool.declares is None or tool.declares.undo is None:
            raise ConfigError(f"{point.tool} is not among the tools, or declares no undo: give it with --tools")
    steps: list[RollbackStep] = []
    for point in reversed(points):
        steps.append(_take_back(point, tools[point.tool], log))
        on_step(steps[-1])
        if steps[-1].outcome == "kept":
            break
    return steps


def _take_back(point: UndoPoint, tool: Tool, log: RollbackLog) -> RollbackStep:
    assert tool.declares is not None and tool.declares.undo is not None
    undo, known = tool.declares.undo, log.states.get(point.effect)
    if known == "done":
        return RollbackStep(point, "as before", "it was taken back before")
    try:
        now = state_hash(undo.capture(point.arguments))
        if now == point.before_hash:
            log.note(point, "done")
            return RollbackStep(point, "as before")
        if known != "began" and point.after_hash is not None and now != point.after_hash:
            return RollbackStep(point, "kept", "the state was changed since by something else")
        log.note(point, "began")
        undo.restore(point.arguments, point.before)
        if state_hash(undo.capture(point.arguments)) != point.before_hash:
            return RollbackStep(point, "kept", f"{tool.name} restored another state than the one before the call")
    except OSError as error:
        raise StoreError(f"the rollback stopped at {point.tool}: {error.strerror or error}") from None
    except Exception as error:
        return RollbackStep(point, "kept", f"undoing {tool.name} failed: {type(error).__name__}: {error}"[:300])
    log.note(point, "done")
    return RollbackStep(point, "restored")
