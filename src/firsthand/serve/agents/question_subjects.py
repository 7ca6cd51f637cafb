"""QuestionSubjects: tells which call of an attempt a question to a person is about, the same in every try of the attempt."""

from __future__ import annotations

from contextvars import ContextVar

from firsthand.loop.calling import caller
from firsthand.loop.listener import Began, Step
from firsthand.tool import Tool

_calling: ContextVar[tuple[str, str]] = ContextVar("firsthand_calling", default=("", ""))
"""The effect of the tool call that the running code makes, and the name of its tool."""


class QuestionSubjects:
    """The subjects of one attempt's questions."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str], int] = {}

    def hear(self, step: Step) -> None:
        """Follow the attempt's steps."""
        if isinstance(step, Began) and step.kind == "tool":
            _calling.set((step.id, str(step.detail.get("name", ""))))

    def of(self, tool: Tool) -> str:
        """The effect of the running call; for a question that comes up during it, with the question's own name and number.

        So leave to make a call is no leave to do what its server asks for while it runs.
        """
        effect, running = _calling.get()
        if not effect and (position := caller()) is not None:  # a connection of the tool asks, in a task of its own
            effect = position.effect
        if tool.name == running and not tool.request:
            return effect
        number = self._asked[effect, tool.name] = self._asked.get((effect, tool.name), 0) + 1
        return f"{effect} {tool.name} {number}"
