"""Parses actions written as lines of text, and their arguments, in the notations that models use."""

from __future__ import annotations

import json
import re

from firsthand.message import Json
from firsthand.tool import Tool
from firsthand.tool_arguments import RepeatedKey, loads_arguments

FINISH = ("finish", "final answer")
"""The actions that end an attempt with an answer."""

_ACTION = re.compile(r"^[ \t*]*Action(?:[ \t]+\d+)?[ \t*]*:[ \t*]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
_FINAL = re.compile(r"^[ \t*]*Final Answer[ \t*]*:[ \t*]*([^\n]*)", re.IGNORECASE | re.MULTILINE)
_NAMED = re.compile(r"[`\"']?([A-Za-z0-9_-]{1,64})[`\"']?[ \t]*(.*)", re.DOTALL)


def parse_action(text: str) -> tuple[str, str]:
    """The first action in the text as (name, input), both empty if there is none.

    `calculator[3*4]`, `calculator(3*4)`, `calculator: 3*4` and `calculator 3*4` are all understood. `Final Answer: x` is the
    action `final answer` if no other comes before it.
    """
    action, final = _ACTION.search(text), _FINAL.search(text)
    if final and (action is None or final.start() < action.start()):
        return "final answer", final.group(1).strip()
    if action is None:
        return "", ""
    named = _NAMED.match(action.group(1).strip().strip("*`"))
    return (named.group(1), _unwrapped(named.group(2).strip())) if named else ("", "")


def _unwrapped(given: str) -> str:
    """The input inside its brackets, or after its colon."""
    pairs = {"[": "]", "(": ")"}
    if not given or given[0] not in pairs:
        return given.removeprefix(":").strip()
    end = given.rfind(pairs[given[0]])
    return given[1 : end if end > 0 else None].strip()


def arguments_of(tool: Tool, given: str) -> Json | str:
    """The tool's arguments: a JSON object as it is, other text as its only needed argument; or an error message.

    An object with other keys than the only argument's, if that is a text, is the text: a move of a game may be JSON itself.
    """
    properties = tool.spec.parameters.get("properties", {})
    if given.startswith("{"):
        try:
            body = loads_arguments(given)
        except RepeatedKey as error:
            return f"The input of {tool.name} is ambiguous: {error}"
        except (ValueError, RecursionError):
            return f"The input of {tool.name} is not valid JSON: write {usage(tool)}"
        if not isinstance(body, dict):
            return f"The input of {tool.name} is no JSON object: write {usage(tool)}"
        (name, schema), *others = properties.items() or [("", {})]
        is_text = not others and schema.get("type") == "string" and not body.keys() <= {name}
        return {name: given} if is_text else body
    if not properties:
        return {}
    needed = tool.spec.parameters.get("required", []) or list(properties)[:1]
    if len(needed) != 1:
        return f"{tool.name} takes {len(needed)} arguments: write {usage(tool)}"
    keyed = re.match(rf"{re.escape(needed[0])}[ \t]*=[ \t]*(.*)", given, re.DOTALL)
    value = (keyed.group(1) if keyed else given).strip().strip("\"'`")
    return {needed[0]: value}


def usage(tool: Tool) -> str:
    """The notation of a call of the tool."""
    properties = list(tool.spec.parameters.get("properties", {}))
    if len(tool.spec.parameters.get("required", [])) <= 1 and len(properties) <= 1:
        return f"{tool.name}[{properties[0] if properties else ''}]"
    return f"{tool.name}[{json.dumps(dict.fromkeys(properties, '...'))}]"
