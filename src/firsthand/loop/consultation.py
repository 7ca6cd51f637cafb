"""Items that a source outside the attempt gives a pattern, such as search hits: approved, journalled, guarded one by one.

Unlike a tool call, it is the pattern that asks, and it gets data instead of a text for the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from firsthand.errors import ToolError
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.tool_call import approve
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.tool import Tool

Ask = Callable[[Json], Awaitable[Sequence[Json]]]
"""Gives the items for the arguments as the guards let them pass. Each is a JSON object with a "text"."""


class Consulted(NamedTuple):
    """The items that passed."""

    items: list[Json]
    arguments: Json
    """As the source got them."""
    refusal: str | None = None
    """The reason why the source was not asked."""
    withheld: int = 0
    """Items that a guard withheld."""


async def run_consultation(
    attempt: Attempt, tool: Tool, arguments: Json, ask: Ask, *, borders: Borders, request: str, recorded: Json | None
) -> Consulted:
    """Asks, replays or refuses. `recorded` is the journal's entry, whose items the guards judge again.

    A fork's record holds items that have passed already.
    """
    try:
        arguments = await borders.call(tool, arguments)
        if recorded is None:
            await approve(attempt, tool, arguments, borders.effect)
    except ToolError as error:
        refusal = str(error)
        if recorded is None:
            await attempt.keep(borders.effect, request, {"items": [], "refusal": refusal})
        return Consulted([], arguments, refusal)
    if recorded is None:
        recorded = {"items": list(await ask(arguments))}
        await attempt.keep(borders.effect, request, recorded)
    items: list[Json] = recorded["items"]
    if "refusal" in recorded:
        return Consulted([], arguments, recorded["refusal"])
    if recorded.get("shown") or not attempt.agent.guards:
        return Consulted(list(items), arguments)
    passed = []
    for number, item in enumerate(items):
        try:
            passed.append(item | {"text": await _guarded(borders, tool, number, str(item["text"]))})
        except ToolError as error:
            attempt.note("withheld", tool=tool.name, item=number, reason=str(error), effect=borders.effect)
    return Consulted(passed, arguments, withheld=len(items) - len(passed))


async def _guarded(borders: Borders, tool: Tool, number: int, text: str) -> str:
    """A text past the result border. ToolError if it may not be read."""
    at = replace(borders, effect=f"{borders.effect} item {number}", as_of=borders.as_of or borders.effect)
    call = ToolCall(f"item-{number}", tool.name, {})
    result = await at.result(tool, ToolResult(call.id, tool.name, text, origin=tool.origin))
    if result.is_error:
        raise ToolError(result.content)
    return result.content
