"""Records the state before and after each call that can be undone, so that `firsthand rollback` can take it back.

The state before is in the attempt's journal before the tool runs, so that it survives `kill -9`. Give this guard last: it
captures for the arguments as the guards before it left them.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace

from firsthand.errors import FirsthandError, ToolError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.calling import caller
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json, ToolResult, canonical
from firsthand.safety.undo.roll_back import RULE
from firsthand.safety.undo.undo_point import UndoPoint, point_seal, state_hash
from firsthand.tool import Tool

MAX_STATE = 8_000_000
"""The most characters of a state as JSON; a call that changes a larger one is blocked."""

_running: ContextVar[UndoPoint | None] = ContextVar("firsthand_undoable", default=None)
"""The call under way, between its two borders."""


@dataclass(frozen=True)
class Undoable:
    """The guard."""

    name = RULE

    async def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """Captures the state that the call would change."""
        _running.set(None)
        if tool.declares is None or tool.declares.undo is None:
            return GuardVerdict.passed(self.name)
        undo = tool.declares.undo
        try:
            checked = tool.validate(arguments)
        except ToolError:
            return GuardVerdict.passed(self.name)

        async def capture() -> Json:
            return {"before": await in_thread(lambda: undo.capture(checked))}

        try:
            captured = await view.once({"undo": tool.name, "arguments": arguments}, capture)
        except ToolError as error:
            return GuardVerdict.blocked(self.name, f"the state before it could not be kept: {error}")
        if len(canonical(captured)) > MAX_STATE:
            return GuardVerdict.blocked(self.name, "the state before it is too large to be kept")
        position = caller()
        effect = "" if position is None else position.effect
        _running.set(UndoPoint(effect, -1, tool.name, checked, captured["before"], None))
        detail = {"call": effect, "tool": tool.name, "arguments": checked, "before": captured["before"]}
        return GuardVerdict.passed(self.name, f"before: {state_hash(captured['before'])[:12]}", detail)

    async def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        """Captures the state after the call."""
        if (point := _running.get()) is None or tool.declares is None or tool.declares.undo is None:
            return GuardVerdict.passed(self.name)
        checked, undo = point.arguments, tool.declares.undo

        async def capture() -> Json:
            return {"after_hash": state_hash(await in_thread(lambda: undo.capture(checked)))}

        try:
            found = await view.once({"undone": tool.name, "arguments": checked}, capture)
        except FirsthandError as error:
            return GuardVerdict.passed(self.name, f"the state after it is not known: {error}")
        seal = point_seal(view.task.id, view.agent, tool, replace(point, after_hash=found["after_hash"]))
        detail = {"call": point.effect, **found, "seal": seal}
        return GuardVerdict.passed(self.name, f"after: {found['after_hash'][:12]}", detail)


undoable = Undoable()
"""The guard by its name."""
