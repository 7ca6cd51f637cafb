"""Rolls back what the calls of an attempt did, last first, from the states that `--guard undoable` recorded.

Each call is taken back only if the state is the one that it left: what somebody changed since is kept, and said. A log with
a line before and after each restore makes a rollback that was killed at any moment go on where it stood.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json, canonical
from firsthand.tool import Tool
from firsthand.trace import Call, Trace

RULE = "undoable"
"""The rule of the events that hold the states."""


@dataclass(frozen=True)
class UndoPoint:
    """A call that can be taken back."""

    effect: str
    step: int
    """The node that the call was made from; -1 before the first message."""
    tool: str
    arguments: Json
    before: Any
    """The state before the call."""
    after_hash: str | None
    """Hash of the state after it; None if the attempt ended before that was known."""

    @property
    def before_hash(self) -> str:
        """Hash of the state before the call."""
        return state_hash(self.before)


@dataclass(frozen=True)
class RollbackStep:
    """The outcome for one call."""

    point: UndoPoint
    outcome: Literal["restored", "as before", "kept"]
    """`as before`: the state was the earlier one already. `kept`: it could not be taken back, for the reason given."""
    reason: str = ""


def state_hash(state: Any) -> str:
    """SHA-256 of a captured state."""
    return hashlib.sha256(canonical(state).encode("utf-8", "surrogatepass")).hexdigest()


def points_of(trace: Trace) -> list[UndoPoint]:
    """The calls of a trace that can be taken back, in the order in which they were made."""
    return _paired((event.data.get("detail") or {}) | {"at": event.data.get("at")} for event in trace.events
                   if event.kind == "guard" and event.data.get("rule") == RULE)  # fmt: skip


def calls_without_undo(trace: Trace, tools: Mapping[str, Tool], step: int | None = None) -> list[Call]:
    """The calls made from a step on that may have changed something, and of which no state was kept, in order.

    Left out: tools that only read, and calls that were refused. A tool that is not given may change anything.
    """
    kept = {each.effect for each in points_of(trace)}
    refused = {_refusal(event.kind, event.data) for event in trace.events}
    found = []
    for call in trace.calls:
        if call.kind != "tool" or call.id in kept or (step is not None and (-1 if call.at is None else call.at) < step):
            continue
        name, arguments = call.detail["name"], canonical(call.detail["arguments"])
        tool = tools.get(name)
        if (tool is None or tool.effect != "read") and refused.isdisjoint({call.id, f"{name} {arguments}"}):
            found.append(call)
    return found


def _refusal(kind: str, data: Json) -> str:
    """The id of the call that a guard's event blocked, or the call that an approver's event refused; otherwise empty."""
    if kind == "guard" and data.get("border") == "call" and data.get("action") == "block":
        return str(data.get("effect"))
    refused = kind == "approval" and not data.get("allowed")
    return f"{data.get('tool')} {canonical(data.get('arguments'))}" if refused else ""


def _paired(details: Iterable[Json]) -> list[UndoPoint]:
    made: dict[str, UndoPoint] = {}
    for detail in details:
        if "before" in detail:
            step = -1 if detail["at"] is None else int(detail["at"])
            made[detail["call"]] = UndoPoint(
                detail["call"], step, detail["tool"], detail["arguments"], detail["before"], None
            )
        elif (point := made.get(detail.get("call", ""))) is not None:
            made[point.effect] = UndoPoint(**{**vars(point), "after_hash": detail["after_hash"]})
    return list(made.values())


class RollbackLog:
    """The progress of one rollback in a file, a JSON line each, on the disk before it is acted on."""

    def __init__(self, path: Path):
        self.path = path
        self.states: dict[str, str] = {}
        if path.is_symlink():  # the folder of a run may come from anyone, and the log is written to
            raise StoreError(f"{path} is a link: remove it")
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    self.states[entry["call"]] = entry["state"]
                except (ValueError, KeyError, TypeError):  # a line that was cut off when the process was killed
                    continue

    def note(self, point: UndoPoint, state: Literal["began", "done"]) -> None:
        """Records the state of a point; on the disk when this returns."""
        lead = (
            "\n"
            if self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
            else ""
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lead + json.dumps({"call": point.effect, "state": state}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.states[point.effect] = state


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
