"""Items that a source outside the attempt gives a pattern, such as search hits: approved, journalled, guarded one by one.

Unlike a tool call, it is the pattern that asks, and it gets data instead of a text for the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from firsthand.errors import ToolError
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.tool_call import approve, told_of
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.tool import Tool

Ask = Callable[[Json], Awaitable[Sequence[Json]]]
"""Gives the items for the arguments as the guards let them pass. Each is a JSON object with a "text"."""
_OURS = frozenset({"id", "parent", "sha256", "trail"})
"""Fields of an item that are hashes and names of ours; the others hold what the source wrote."""
_BREAK = "\n\n"


class Consulted(NamedTuple):
    """The items that passed."""

    items: list[Json]
    arguments: Json
    """As the source got them."""
    refusal: str | None = None
    """The reason why the source was not asked."""
    withheld: int = 0
    """Items that a guard withheld."""
    told: Json | None = None
    """The text of the refusal for clients of a served agent, as in `Ran.told`."""


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
        return Consulted([], arguments, refusal, told=told_of(error))
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
            passed.append(await _passed(borders, tool, number, item))
        except ToolError as error:
            attempt.note("withheld", tool=tool.name, item=number, reason=str(error), effect=borders.effect)
    return Consulted(passed, arguments, withheld=len(items) - len(passed))


async def _passed(borders: Borders, tool: Tool, number: int, item: Json) -> Json:
    """The item with its texts past the result border: judged together, as they are shown. ToolError if it is withheld."""
    given = item | {"text": str(item["text"])}
    texts = list(_texts(given))
    effect = f"{borders.effect} item {number}"
    whole = _BREAK.join(texts)
    judged = await _judged(borders, tool, number, whole, effect)
    if judged == whole:
        return given
    parts = judged.split(_BREAK, len(texts) - 1)
    if judged.count(_BREAK) != whole.count(_BREAK) or any(_BREAK in text for text in texts[:-1]):
        # the guard changed where texts end: it judges each by itself
        parts = [
            await _judged(borders, tool, number, text, f"{effect} text {place}") if text else text
            for place, text in enumerate(texts)
        ]
    return _put_back(given, iter(parts))


def _texts(item: Json) -> Iterator[str]:
    """The texts of an item that come from the source, the names of values within a field too, and "text" last."""
    for name in sorted(item.keys() - _OURS - {"text"}):
        yield from _texts_in(item[name])
    yield item["text"]


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_in(each)


def _put_back(item: Json, texts: Iterator[str]) -> Json:
    """The item with other texts, in the order of `_texts`."""
    changed = {name: _put_in(item[name], texts) for name in sorted(item.keys() - _OURS - {"text"})}
    return item | changed | {"text": next(texts)}


def _put_in(value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {next(texts): _put_in(each, texts) for each in value.values()}
    if isinstance(value, list | tuple):
        return [_put_in(each, texts) for each in value]
    return value


async def _judged(borders: Borders, tool: Tool, number: int, text: str, effect: str) -> str:
    """A text past the result border. ToolError if it may not be read."""
    at = replace(borders, effect=effect, as_of=borders.as_of or borders.effect, keeps_original=False)
    call = ToolCall(f"item-{number}", tool.name, {})
    result = await at.result(tool, ToolResult(call.id, tool.name, text, origin=tool.origin))
    if result.is_error:
        raise ToolError(result.content)
    return result.content
