"""Reads a text action that is a tool call as JSON: {"name": ..., "arguments": {...}}, fenced or not."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from firsthand.worlds.world import InvalidAction, WorldCall

EXAMPLE = '{"name": ..., "arguments": {...}}'
KINDS: Mapping[str, type] = {"str": str, "int": int, "list": list}
"""The beginning of an annotation -> the type that JSON must have there."""


def unfenced(action: str) -> str:
    """The text of an action without a code fence around it."""
    text = action.strip()
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    return text[3:-3].removeprefix("json").strip()


def read_call(text: str, moves: Sequence[Callable[..., Awaitable[str]]]) -> WorldCall:
    """The call of one of the moves; InvalidAction that says what does not fit."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAction(f"the action is no JSON ({str(error)[:80]}): write one object, {EXAMPLE}") from None
    if not isinstance(body, dict):
        raise InvalidAction(f"the action is no JSON object but a {type(body).__name__}: write one object, {EXAMPLE}")
    name, arguments = body.get("name"), body.get("arguments", body.get("kwargs", {}))
    move = next((each for each in moves if each.__name__ == name), None)
    if move is None:
        raise InvalidAction(
            f"there is no tool {str(name)[:60]!r}: there are {', '.join(each.__name__ for each in moves)}"
        )
    if not isinstance(arguments, dict):
        raise InvalidAction(f"the arguments of {name} are a JSON {type(arguments).__name__}: an object was expected")
    try:
        inspect.signature(move).bind(**arguments)
    except TypeError as error:
        raise InvalidAction(f"the arguments do not fit {name}: {str(error)[:120]}") from None
    for key, parameter in inspect.signature(move).parameters.items():
        kind = next((kind for start, kind in KINDS.items() if str(parameter.annotation).startswith(start)), object)
        if key in arguments and not isinstance(arguments[key], kind):
            came = type(arguments[key]).__name__
            raise InvalidAction(f"the argument {key} of {name} is a JSON {came}: {parameter.annotation} was expected")
    return WorldCall(move.__name__, dict(arguments))
