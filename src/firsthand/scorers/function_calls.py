"""Compares function calls with accepted ones by the rules of the Berkeley Function-Calling Leaderboard (BFCL, 2025).

A call is a name and its arguments. An answer is right if it makes the expected calls, in any order if there are several,
with arguments of the declared types whose values are among the accepted ones; an argument whose accepted values contain ""
may be left out. Text is compared without case, spaces and ,./-_*^ and with one kind of quotes. The rules are those of
bfcl-eval 2026.3.23 for Python, quirks included: an integer passes for a float, but not inside a list. Calls that are written
as text are read as the leaderboard reads them by `leaderboard_calls`, and by `function_calls` only if they are nothing else.
If a call is right for several expected ones, the leaderboard and `leaderboard_calls` pair them by their order, and miss
pairings of all that `function_calls` finds.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from firsthand.errors import DataError, FirsthandError
from firsthand.loop.tool_call import tool_request
from firsthand.message import Json, ToolCall
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.scorers.written_calls import dropped, makes_a_call, unfenced
from firsthand.task import Task
from firsthand.tool_calls import has_run
from firsthand.tools.calculator import evaluate
from firsthand.trace import Call, Score, Trace

MAX_CHARS = 100_000
MAX_BITS = 14_000
"""Of an integer: Python writes no longer one as digits."""
TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}


class MadeCall(NamedTuple):
    """A call that a model made."""

    name: str
    arguments: Mapping[str, Any]


def function_calls(task: Task, trace: Trace) -> Score:
    """Score 1 if the attempt makes the expected calls, or none where no function fits; text must be calls alone."""
    return _score(task, trace, published=False)


def leaderboard_calls(task: Task, trace: Trace) -> Score:
    """`function_calls` as on BFCL's leaderboard, which drops text it does not know and pairs by order (`bfcl@prompt`)."""
    return _score(task, trace, published=True)


def _score(task: Task, trace: Trace, *, published: bool) -> Score:
    expected = task.secret.get("calls")
    if not isinstance(expected, Mapping):
        raise DataError(f"task {task.id} expects no calls: secret['calls'] holds {str(expected)[:60]!r}")
    text = trace.answer or ""
    calls, unread = (
        made_calls(trace, expected.get("functions", ())) if task.calls else read_calls(text, whole=not published)
    )
    if expected["kind"] in ("none", "some"):
        right = bool(calls) is (expected["kind"] == "some")
        problem = "" if right else f"{len(calls)} calls were made"
        names = {function["name"] for function in expected.get("functions", ())}
        if right and expected["kind"] == "none" and not (task.calls or published) and makes_a_call(text, names):
            problem = "a call stands in the text, where none was to be made"
    else:
        problem = unread or mismatch(calls, expected["functions"], expected["accepted"], published=published)
    made = [{call.name: dict(call.arguments)} for call in calls]
    return Score("function_calls", float(not problem), {"calls": made} | ({"reason": problem} if problem else {}))


def made_calls(trace: Trace, functions: Sequence[Json] = ()) -> tuple[list[MadeCall], str]:
    """Return the tool calls of an attempt, as the model wrote them; none, and the reason, if arguments are not JSON.

    They are those that the pattern asked for, in whatever message, and those of the last message. Calls in drafts that
    nobody ran do not count, nor do those of tools that the agent has besides the task's `functions`.
    """
    messages = [
        (at, node.message.tool_calls) for at, node in enumerate(trace.nodes) if node.message.role == "assistant"
    ]
    last_at, last = messages[-1] if messages else (0, ())
    calls, run_last = list[ToolCall](), Counter[str]()
    tools = [call for call in trace.calls if call.kind == "tool"]
    written = {tool_request(call): call for _, made in messages for call in made} if tools else {}
    for call in tools:
        name, arguments = str(call.detail.get("name")), call.detail.get("arguments")
        run_last[call.request] += (call.at or 0) >= last_at
        if not _is_beside(call, name, trace, functions):
            calls.append(written.get(call.request) or ToolCall(call.id, name, arguments or {}))
    for made in last:
        if not tools or run_last[request := tool_request(made)] == 0:
            calls.append(made)
        else:
            run_last[request] -= 1
    broken = next((call for call in calls if call.invalid is not None), None)
    if broken is not None:
        return [], f"the arguments of {broken.name!r} are not JSON: {(broken.invalid or '')[:100]}"
    return [MadeCall(call.name, call.arguments) for call in calls], ""


def _is_beside(call: Call, name: str, trace: Trace, functions: Sequence[Json]) -> bool:
    """True of a call of a tool, or of a source of passages, that the agent has besides the task's functions."""
    if not functions or name in {function["name"] for function in functions}:
        return False
    return has_run(call) or "items" in call.detail or name in {tool.name for tool in trace.tools}


def read_calls(text: str, *, whole: bool = False) -> tuple[list[MadeCall], str]:
    """Parse calls in a text such as `[f(x=1), g(y="a")]`; none, and the reason, if it is not such. Nothing is executed.

    `whole`: nothing of a call is dropped, as the leaderboard does; a fence around all of it, or a semicolon, is none of it.
    """
    inner = (unfenced(text) if whole else text).strip("`\n ")
    inner = inner if inner.startswith("[") else f"[{inner}"
    inner = inner if inner.endswith("]") else f"{inner}]"
    if len(inner) > MAX_CHARS:
        return [], f"the answer has {len(inner)} characters, too long for a list of calls"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(parsable(inner, MAX_CHARS).strip().strip("'"), mode="eval").body
            calls = (
                [body] if isinstance(body, ast.Call) else body.elts if isinstance(body, ast.List | ast.Tuple) else None
            )
            if calls is None or not all(isinstance(call, ast.Call) for call in calls):
                return [], "the answer is not a list of calls"
            if whole and (why := dropped(body) or _repeats(body)):
                return [], f"the answer is not a list of calls ({why})"
            return [_call(call) for call in calls], ""
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, FirsthandError) as error:
        return [], f"the answer is not a list of calls ({type(error).__name__}: {str(error)[:100]})"


def _call(node: ast.expr) -> MadeCall:
    assert isinstance(node, ast.Call)
    name, parts = node.func, []
    while isinstance(name, ast.Attribute):
        parts.append(name.attr)
        name = name.value
    if isinstance(name, ast.Name):
        parts.append(name.id)
    # Positional arguments are dropped, as in the leaderboard: a required argument is then missing.
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("** is not an argument")
        arguments[keyword.arg] = _value(keyword.value)
    return MadeCall(".".join(reversed(parts)), arguments)


def _value(node: ast.expr) -> Any:
    """Return the value of an argument's expression; a name, which could be a variable, is its own text."""
    match node:
        case ast.Constant(value=int() as value) if value.bit_length() > MAX_BITS:
            raise ValueError("an integer of thousands of digits is not a value")
        case ast.Constant(value=value):
            return "..." if value is ... else value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            if any(key is None for key in keys):
                raise ValueError("** is not an entry")
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.Name(id=name):
            return name
        case ast.BinOp():
            return _computed(ast.unparse(node))
        case ast.Call(keywords=[]) | ast.Subscript():
            return ast.unparse(node)
        case ast.Call():
            inner = _call(node)
            return {inner.name: dict(inner.arguments)}
    raise ValueError(f"{type(node).__name__} is not a value")


def _repeats(node: ast.AST) -> str:
    """Why a dict of this syntax tree is not what is written, or "": of a key that stands twice, one value is dropped."""
    for each in ast.walk(node):
        if isinstance(each, ast.Dict) and len({_value(key) for key in each.keys if key is not None}) < len(each.keys):
            return "a dict has a key twice, or **"
    return ""


def _computed(text: str) -> int | float:
    """Evaluate arithmetic in a number's place, with Python's type for the result."""
    value = evaluate(text)
    whole = not isinstance(value, float) and value.denominator == 1 and not re.search(r"[.e]|(?<!/)/(?!/)", text)
    return int(value) if whole else float(value)


def mismatch(
    calls: Sequence[MadeCall], functions: Sequence[Json], accepted: Sequence[Json], *, published: bool = False
) -> str:
    """Return why these are not the expected calls, or "". `accepted` has one `{name: {argument: values}}` per call.

    `published`: each expected call in turn keeps the first made one that is right for it, as on the leaderboard, so that
    calls in one order may be wrong and in another right.
    """
    if len(calls) != len(accepted):
        return f"{len(calls)} calls were made, and {len(accepted)} expected"
    known = {function["name"]: function for function in functions}
    table = [[call_problem(call, known[name], each[name]) for call in calls] for each in accepted for name in each]
    taken: dict[int, int] = {}  # call -> the expected one that it is
    for place, each in enumerate(accepted):
        if not _takes(place, table, taken, movable=not published):
            problems = [problem for at, problem in enumerate(table[place]) if at not in taken]
            told = f"no call is the expected one of {next(iter(each))}: {'; '.join(problems)}"
            return problems[0] if len(problems) == 1 else told
    return ""


def _takes(place: int, table: Sequence[Sequence[str]], taken: dict[int, int], *, movable: bool) -> bool:
    """Give an expected call the first made one that is free and right for it; False, and nothing changed, if none is.

    `movable`: a made call that an earlier expected one took may go to this one, if that one is right with another.
    """
    reached: dict[int, int] = {}  # call -> the expected one that wants it
    wanting = [place]
    for expected in wanting:
        fitting = [at for at, problem in enumerate(table[expected]) if not problem and at not in reached]
        reached |= dict.fromkeys(fitting, expected)
        free = next((at for at in fitting if at not in taken), None)
        if free is not None:
            before = {wanted: at for at, wanted in taken.items()}
            while free is not None:
                expected = reached[free]
                taken[free], free = expected, before.get(expected)
            return True
        if movable:
            wanting += [taken[at] for at in fitting]
    return False


def call_problem(call: MadeCall, function: Json, accepted: Mapping[str, Sequence[Any]]) -> str:
    """Return why a call of this function is wrong, or ""."""
    parameters, name = function["parameters"], function["name"]
    if call.name != name:
        return f"{call.name!r} was called, not {name!r}"
    for required in parameters.get("required", ()):
        if required not in call.arguments:
            return f"{name} needs {required!r}"
    for argument, value in call.arguments.items():
        if argument not in parameters["properties"] or argument not in accepted:
            return f"{name} takes no {argument!r}"
        if not _accepted(value, parameters["properties"][argument], accepted[argument]):
            return f"{argument}={str(value)[:100]!r} of {name} is not among {str(accepted[argument])[:200]}"
    for argument, values in accepted.items():
        if argument not in call.arguments and "" not in values:
            return f"{name} was called without {argument!r}"
    return ""


def _accepted(given: Any, schema: Json, accepted: Sequence[Any]) -> bool:
    """True if the value has the declared type, or that of the accepted values, and is one of them."""
    kind = schema["type"]
    expected = TYPES[kind]
    inner = TYPES[schema["items"]["type"]] if kind in ("array", "tuple") else None
    value: Any = list(given) if kind == "tuple" and type(given) is tuple else given
    if kind == "float" and type(given) is int:
        try:
            value = float(given)
        except OverflowError:
            return False
    other = _type_of(accepted)
    variable = other is not None and other is not expected
    kind_of: type = type(value)
    if kind_of is expected:
        if inner is not None and not any(_inner_typed(value, inner, each) for each in accepted):
            return False
    elif other is not None and kind_of is other:
        variable = True
    else:
        return False
    if not variable and expected is dict:
        return any(_entries(value, each) for each in accepted)
    if not variable and expected is list and inner is dict:
        return any(_all_entries(value, each) for each in accepted)
    if not variable and expected is str:
        return _plain(value) in [_plain(each) for each in accepted if type(each) is str]
    if not variable and expected is list:
        return _plains(value) in [_plains(each) for each in accepted if isinstance(each, str | list | tuple)]
    return value in accepted


def _type_of(accepted: Sequence[Any]) -> type | None:
    """Return the type of the first accepted value, skipping the mark of an optional argument."""
    return next((type(each) for each in accepted if each != ""), None)


def _inner_typed(values: Sequence[Any], inner: type, accepted: Any) -> bool:
    if type(accepted) is not list:
        return True
    given = _type_of(accepted)
    return all(type(value) is inner or (given is not None and type(value) is given) for value in values)


def _plain(value: Any) -> Any:
    """Normalise text: case, spaces, some punctuation, the kind of quotes. Other values are returned unchanged."""
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if type(value) is str else value


def _plains(values: Sequence[Any]) -> list[Any]:
    return [_plain(value) for value in values]


def _entries(value: Json, accepted: Any) -> bool:
    """True if each entry is accepted and none is missing. `accepted` holds lists of values."""
    if not isinstance(accepted, dict) or not isinstance(value, dict):
        return False
    for key, entry in value.items():
        if key not in accepted or _plain(entry) not in _plains(accepted[key]):
            return False
    return all(key in value or "" in values for key, values in accepted.items())


def _all_entries(values: Sequence[Any], accepted: Any) -> bool:
    if len(values) != len(accepted):
        return False
    return all(_entries(value, each) for value, each in zip(values, accepted, strict=True))
