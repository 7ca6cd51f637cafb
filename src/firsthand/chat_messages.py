"""Writes messages in OpenAI's format, as training data and tables of tasks hold them, and reads them back.

Token ids and an endpoint's own reasoning blocks are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from firsthand.errors import DataError
from firsthand.message import Json, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

ROLES = get_args(Role)
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields in which other formats keep an assistant's reasoning as text."""
INSTEAD = "write it into the content, as <think>...</think>, or leave the field out"
"""Advice in the error for reasoning that is not read."""
_UNREAD = {"reasoning_details": INSTEAD, "function_call": "write it as `tool_calls`, or leave the field out"}
"""Other fields in which they keep a part of what an assistant says."""


def written(message: Message) -> Iterator[Json]:
    """The message in OpenAI's format, or one for each tool result."""
    if message.role == "tool":
        for part in message.parts:
            if isinstance(part, ToolResult):
                yield {"role": "tool", "tool_call_id": part.call_id, "name": part.name, "content": part.content}
        return
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": json.dumps(part.arguments)}}
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    yield {"role": message.role, "content": text, **({"tool_calls": calls} if calls else {})}


def messages_of(entries: Any, where: str) -> tuple[Message, ...]:
    """The messages of a list in OpenAI's format; DataError, with their place, for what is none."""
    if not isinstance(entries, list):
        raise DataError(f"{where} holds {entries!r:.60}: expected a list of objects with `role` and `content`")
    found: list[Message] = []
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        found.append(message_of(entry, f"{where}, message {index + 1}", names))
        names |= names_of(found[-1:])
    return tuple(found)


def names_of(messages: Iterable[Message]) -> dict[str, str]:
    """Id of each tool call -> the name of its tool."""
    return {call.id: call.name for message in messages for call in message.tool_calls}


def message_of(entry: Any, at: str, names: dict[str, str], *, keep_reasoning: bool = False) -> Message:
    """The message of an object in OpenAI's format; DataError for what is none.

    Args:
        at: Its place, for errors.
        names: Names of the tools that were called before by the ids of their calls: a result may leave its tool's name out.
        keep_reasoning: True to keep the reasoning in a field of its own, which is refused otherwise.
    """
    if not isinstance(entry, dict) or "role" not in entry:
        raise DataError(f"{at} has no role: expected an object with `role` and `content`")
    role, content = entry["role"], entry.get("content")
    if role not in ROLES:
        raise DataError(f"{at} has the role {role!r}: expected one of {', '.join(ROLES)}")
    reasoning = _reasoning(entry, at) if role == "assistant" else []
    if reasoning and not keep_reasoning:
        raise DataError(f"{at} has `{reasoning[0].state['field']}`, which is not read: {INSTEAD}")
    calls = entry.get("tool_calls") or []
    if not isinstance(calls, list):
        raise DataError(f"{at} has tool calls of type {type(calls).__name__}: expected a list of them")
    if content is None and not calls:
        raise DataError(f"{at} has no content: expected a text")
    if content is not None and not isinstance(content, str):
        raise DataError(f"{at} has a content of type {type(content).__name__}: expected a text")
    if role == "tool":
        id = str(entry.get("tool_call_id", ""))
        return Message("tool", (ToolResult(id, str(entry.get("name") or names.get(id, "")), content or ""),))
    if calls and role != "assistant":
        raise DataError(f"{at} has tool calls and the role {role!r}: expected the role assistant")
    parts: list[Part] = [Text(content)] if content else []
    return Message(role, (*reasoning, *(parts or ([] if calls else [Text("")])), *(_call(call, at) for call in calls)))


def _reasoning(entry: Json, at: str) -> list[Reasoning]:
    """The assistant's reasoning, with the name of its field, if it has any. DataError for a field that is not read."""
    for name, instead in _UNREAD.items():
        if entry.get(name):
            raise DataError(f"{at} has `{name}`, which is not read: {instead}")
    given = {name: entry[name] for name in _REASONING if entry.get(name)}
    for name, text in given.items():
        if not isinstance(text, str):
            raise DataError(f"{at} has `{name}` of type {type(text).__name__}: expected a text")
    if len(set(given.values())) > 1:
        raise DataError(f"{at} has unequal texts in {' and '.join(given)}: leave all but one out")
    return [Reasoning(text, {"field": name}) for name, text in given.items()][:1]


def _call(call: Any, at: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        raise DataError(f"{at} has a tool call without a function's name: expected OpenAI's format")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise DataError(f"{at}: the arguments of {name} are no JSON") from None
    if not isinstance(arguments, dict):
        raise DataError(f"{at}: the arguments of {name} are {type(arguments).__name__}: expected an object")
    return ToolCall(str(call.get("id", "")), name, arguments)
