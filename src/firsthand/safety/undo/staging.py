"""Stages external effects: a call is held until the attempt ends, and made then. What is held can still be given up.

A stand-in has the effect `write`, on the attempt alone: a resumed attempt rebuilds what is held by calling it again, and the
real calls, which the journal knows, are never made twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from firsthand.errors import ToolError
from firsthand.message import ToolCall
from firsthand.tool import Tool
from firsthand.tool_arguments import as_json_data

_committing: ContextVar[bool] = ContextVar("firsthand_committing", default=False)


def is_committing() -> bool:
    """True within a call that was staged before and is made now."""
    return _committing.get()


@contextmanager
def committing() -> Iterator[None]:
    """Marks the block as making calls that were staged."""
    mark = _committing.set(True)
    try:
        yield
    finally:
        _committing.reset(mark)


class StagedCalls:
    """The calls that are held, in order."""

    def __init__(self) -> None:
        self.held: list[ToolCall] = []

    def stand_ins(self, tools: Iterable[Tool]) -> list[Tool]:
        """A stand-in for each tool with an external effect, which holds the call and says so."""
        return [self._stand_in(tool) for tool in tools if tool.effect == "external"]

    def _stand_in(self, tool: Tool) -> Tool:
        async def hold(**arguments: Any) -> str:
            given = as_json_data(arguments)
            if tool.validate(given) != arguments:
                raise ToolError(f"{tool.name} was not staged: its arguments as data would be read as others")
            self.held.append(ToolCall(f"staged-{len(self.held)}", tool.name, given))
            return f"{tool.name} is staged as number {len(self.held)}: it is done when the task is over"

        return replace(tool, effect="write", function=hold, origin=None)
