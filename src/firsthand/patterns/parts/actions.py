"""Parses actions written as lines of text, and their arguments, in the notations that models use."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from firsthand.message import Json
from firsthand.patterns.parts.answers import answer_or_text, given_answer, states_number, wants_number
from firsthand.patterns.parts.fenced_code import fenced_code, prose_of
from firsthand.task import Task
from firsthand.tokens.calls.call_parser import parse as parse_calls
from firsthand.tool import Tool
from firsthand.tool_arguments import RepeatedKey, loads_arguments

FINISH = ("finish", "final answer")
"""The actions that end an attempt with an answer."""

_BEGIN = r"^[ \t*#>]*+"
_NUMBERED = r"(?:[ \t]+\d+)?[ \t*]*:[ \t*]*"
_ACTION = re.compile(rf"{_BEGIN}Action{_NUMBERED}", re.IGNORECASE | re.MULTILINE)
_INPUT = re.compile(rf"{_BEGIN}Action[ \t]*(?:\d+[ \t]*)?Input{_NUMBERED}", re.IGNORECASE | re.MULTILINE)
_FINAL = re.compile(rf"{_BEGIN}Final Answer[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_MARK = re.compile(
    rf"{_BEGIN}(?:Thought|Observation|Final Answer|Action(?:[ \t]*+\d*+[ \t]*+Input)?){_NUMBERED}",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that begins with one of the words of a ReAct transcript, after which another part of the turn begins."""
_QUESTION = re.compile(rf"{_BEGIN}Question{_NUMBERED}", re.IGNORECASE | re.MULTILINE)
_NAMED = re.compile(r"[`\"']?(Final Answer\b|[A-Za-z0-9_-]{1,64})[`\"']?(\s*)(.*)", re.DOTALL | re.IGNORECASE)
_PAIRS = {"[": "]", "(": ")"}
_QUOTES = "\"'`"
_LINES = "has several lines: put all of it between brackets, [ and ]"
_AFTER = re.compile(r"[ \t.*`]*+(?:\n|$)")


class Action(NamedTuple):
    """An action as a model wrote it."""

    name: str
    input: str
    fault: str = ""
    """Why the input may be a part of what was meant, for the model to read; empty if it is whole. Then no tool is called."""


def parse_action(text: str) -> tuple[str, str]:
    """The first action in the text as (name, input), both empty if there is none; see `read_action`."""
    return read_action(text)[:2]


def read_action(text: str) -> Action:
    """The first action in the text, with empty name and input if there is none.

    `calculator[3*4]`, `calculator(3*4)`, `calculator: 3*4`, `calculator 3*4` and `calculator` with a line
    `Action Input: 3*4` are all understood. Inputs in brackets and after `Action Input:` may have several lines.
    `Final Answer: x` is the action `final answer` if no other comes before it.
    """
    action, final = _ACTION.search(text), final_answer(text)
    if final and (action is None or final.start < action.start()):
        return Action("final answer", final.text)
    if action is None:
        return Action("", "")
    body, end = _part(text, action)
    named = _NAMED.match(_without_mark(body))
    if named is None:
        return Action("", "")
    name, blanks, given = named.groups()
    read = Action(name, *_unwrapped(given.rstrip(), is_attached=not blanks))
    if final and final.start == end and name.lower() in FINISH and not read.input:
        return Action("final answer", final.text)
    if (labelled := _INPUT.match(text, end)) is None:
        return read
    labelled_input = _part(text, labelled)[0]
    if read.input and read.input != labelled_input:
        return read._replace(fault="stands on the Action line and after Action Input: write it once")
    return Action(name, labelled_input)


class FinalAnswer(NamedTuple):
    """The text after `Final Answer:`, of any number of lines, and the index of the line in the turn."""

    text: str
    start: int


def final_answer(text: str) -> FinalAnswer | None:
    """The first final answer in the text: up to the next Thought, Action or Observation line, or to the end."""
    found = _FINAL.search(text)
    return None if found is None else FinalAnswer(_part(text, found)[0], found.start())


def settled_answer(final: str, task: Task) -> str:
    """The answer in the text of a final answer.

    Where the task asks for a number or a choice and the first line has one, it is read from that line, for what follows
    explains it, unless a number is stated below, as in a box. A question after it, which begins another transcript, is left
    out unless the task is verbatim.
    """
    final = final if task.verbatim else _QUESTION.split(final, maxsplit=1)[0].strip()
    first, _, below = final.partition("\n")
    is_asked = task.choices or (wants_number(task) and not states_number(below))
    is_short = is_asked and not task.verbatim and not task.last_line
    return answer_or_text(first if is_short and given_answer(first, task) is not None else final, task)


def _part(text: str, mark: re.Match[str]) -> tuple[str, int]:
    """The text between a mark and the next one, without the end of bold begun at the mark, and the index of the next."""
    after = _MARK.search(text, mark.end())
    end = after.start() if after else len(text)
    part = text[mark.end() : end].strip()
    return (part.removesuffix("**").rstrip() if mark[0].count("**") % 2 else part), end


def _without_mark(body: str) -> str:
    """The action without quotes around the whole of it."""
    return unquoted(body).strip()


def _without_fence(given: str) -> str:
    """The input without a fence around the whole of it."""
    blocks = fenced_code(given) if given[:1] == given[-1:] else []
    return blocks[0].code.strip("\n") if len(blocks) == 1 and blocks[0].is_closed and not prose_of(given) else given


def unquoted(text: str, quotes: str = _QUOTES) -> str:
    """The text without quotes around it: a pair of which none stands inside."""
    is_pair = len(text) > 1 and text[0] == text[-1] and text[0] in quotes and text[0] not in text[1:-1]
    return text[1:-1] if is_pair else text


def _unwrapped(given: str, *, is_attached: bool) -> tuple[str, str]:
    """The input inside its brackets or after its colon, and its fault.

    The brackets are the call's if the first closes at the end of a line. Behind a blank, `(2+3)*4` is the input itself.
    """
    if not given or given[0] not in _PAIRS:
        given = given.removeprefix(":").strip()
        is_whole = given.startswith("{") or _without_fence(given) != given
        return given, _LINES if "\n" in given and not is_whole else ""
    closing = _PAIRS[given[0]]
    ends = [end for end in (_closed(given, False), _closed(given, True)) if end is not None]
    for end in ends:
        if _AFTER.match(given, end + 1) and given.count(closing, end + 1) <= given.count(given[0], end + 1):
            return given[1:end].strip(), ""
    if given.endswith(closing) and "\n" not in given and given.count(closing) > given.count(given[0]):
        return given[1:-1].strip(), ""
    if not ends:
        return given[1:].strip(), f"has no closing {closing} for its {given[0]}: write all of it between the brackets"
    if is_attached:
        fault = f"is followed by more text after its {closing}: end the line with the bracket"
        return given[1 : ends[0]].strip(), fault
    return given, _LINES if "\n" in given else ""


def _closed(given: str, skips_quoted: bool) -> int | None:
    """The index at which the first bracket closes, brackets within quotes passed over or not; None if it does not."""
    depth, quote = 0, ""
    for at, sign in enumerate(given):
        if skips_quoted and sign in _QUOTES and quote in ("", sign):
            quote = "" if quote else sign
        elif not quote and sign == given[0]:
            depth += 1
        elif not quote and sign == _PAIRS[given[0]]:
            depth -= 1
            if not depth:
                return at
    return None


def arguments_of(tool: Tool, given: str) -> Json | str:
    """The tool's arguments: a JSON object as it is, other text as its only needed argument; or an error message.

    An object with other keys than the only argument's, if that is a text, is the text: a move of a game may be JSON itself.
    A tool with several arguments may get them as Python writes them, `to="a", text="b"`. Quotes or a fence
    around a whole text are left out, and no others.
    """
    properties = tool.spec.parameters.get("properties", {})
    given = _without_fence(given)
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
    required = tool.spec.parameters.get("required", [])
    needed = required or list(properties)[:1]
    names = "|".join(map(re.escape, properties))
    keyed = re.match(rf"({names})[ \t]*=(?!=)[ \t]*(.*)", given, re.DOTALL)
    labels = re.findall(rf"(?:^|[,\n])[ \t]*+({names})[ \t]*:", given)
    if given.startswith(tuple(labels[:1])) and len({*labels}) > 1:
        return f"The input of {tool.name} names its arguments in no known form: write {usage(tool)}"
    if len(properties) > 1 and (keyed or given[:1] in _QUOTES):
        _, calls = parse_calls(f"[{tool.name}({given})]", [tool.spec])
        found = calls[0].arguments if len(calls) == 1 else {}
        if len(found) > 1 or (
            keyed and keyed[1] in found and (keyed[1] not in needed or isinstance(found[keyed[1]], str))
        ):
            return found
        if keyed and (keyed[1] not in needed or re.search(rf",\s*(?:{names})[ \t]*=", keyed[2])):
            return f"The input of {tool.name} names its arguments in no known form: write {usage(tool)}"
    if len(needed) != 1:
        return f"{tool.name} takes {len(needed)} arguments: write {usage(tool)}"
    if not given.strip():
        return f"The input of {tool.name} is empty: write {usage(tool)}" if required else {}
    return {needed[0]: unquoted((keyed[2] if keyed else given).strip())}


def usage(tool: Tool) -> str:
    """The notation of a call of the tool."""
    properties = list(tool.spec.parameters.get("properties", {}))
    if len(tool.spec.parameters.get("required", [])) <= 1 and len(properties) <= 1:
        return f"{tool.name}[{properties[0] if properties else ''}]"
    return f"{tool.name}[{json.dumps(dict.fromkeys(properties, '...'))}]"
