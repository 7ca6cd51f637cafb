"""Tool calls in generated text: found, parsed and taken out of it.

Read are Hermes, Qwen and SmolLM2 (`<tool_call>{...}</tool_call>`), Mistral (`[TOOL_CALLS][...]`), Llama 3
(`<|python_tag|>{...}` or a bare `{"name": ..., "parameters": ...}`), and fenced ```json or ```tool_call blocks as Gemma
writes them. The text is walked once. Left out: calls written as Python code, since code is no data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from firsthand.message import ToolCall

_OPENINGS = re.compile(r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|```(?:json|tool_code|tool_call|tool_calls)\b")
_MAX_DEPTH = 64
_BLANK = " \t\r\n"


class Span(NamedTuple):
    """A stretch of text that holds calls: from `start` to `end`, with what its JSON says."""

    start: int
    end: int
    body: str
    declared: bool
    """Whether a marker says that this is a call, so that broken JSON is a broken call and not prose."""


def parse(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The text without its tool calls, and the calls, with ids `call_0`, `call_1` ... in order.

    A call that was marked as one but whose JSON is broken has no arguments and its text in `invalid`. Text without calls
    comes back unchanged. Takes time linear in the text.
    """
    kept: list[str] = []
    found: list[tuple[str, dict[str, Any], str | None]] = []
    at = 0
    for span in _spans(text):
        calls = list(_calls(span))
        if calls:
            kept.append(text[at : span.start])
            found.extend(calls)
            at = span.end
    if not found:
        return text, ()
    kept.append(text[at:])
    return "".join(kept).strip(), tuple(
        ToolCall(f"call_{index}", name, arguments, invalid) for index, (name, arguments, invalid) in enumerate(found)
    )


def _spans(text: str) -> Iterator[Span]:
    bare = text.strip()
    if bare.startswith("{") and bare.endswith("}"):  # Llama 3: nothing but objects, apart or with ; between
        yield Span(0, len(text), bare, False)
        return
    at = 0
    missing: set[str] = set()  # closings that do not come again, so that the text is not searched for them twice
    while opening := _OPENINGS.search(text, at):
        span = _span(text, opening, missing)
        yield span
        at = max(span.end, opening.end())


def _span(text: str, opening: re.Match[str], missing: set[str]) -> Span:
    mark, start, begin = opening[0], opening.start(), opening.end()
    if mark in ("[TOOL_CALLS]", "<|python_tag|>"):  # to the end of the text, or to the next mark of the kind
        following = text.find(mark, begin)
        end = len(text) if following < 0 else following
        return Span(start, end, text[begin:end], True)
    closing = "</tool_call>" if mark == "<tool_call>" else "```"
    end = -1 if closing in missing else text.find(closing, begin)
    if end >= 0:
        reopened = text.find(mark, begin, end) if closing == "</tool_call>" else -1
        return (
            Span(start, end + len(closing), text[begin:end], closing == "</tool_call>")
            if reopened < 0
            else Span(start, reopened, text[begin:reopened], True)
        )
    missing.add(closing)
    reopened = text.find(mark, begin)
    end = len(text) if reopened < 0 else reopened
    return Span(start, end, text[begin:end], closing == "</tool_call>")


def _calls(span: Span) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """The calls in a span as (name, arguments, invalid); none where undeclared text turns out to be no call."""
    values = _values(span.body)
    if values is None:
        mistral = re.match(r"\s*([\w.-]{1,128})\s*(?:\[CALL_ID\][^\[]{0,64})?(?:\[ARGS\])?\s*(?=\{)", span.body)
        inner = _values(span.body[mistral.end() :]) if mistral and span.declared else None
        if mistral and inner and len(inner) == 1 and isinstance(inner[0], dict):
            yield mistral[1], inner[0], None
        elif span.declared:
            yield _name_in(span.body), {}, span.body.strip(_BLANK)
        return
    calls = [_call(value) for value in values]
    if span.declared:
        for value, call in zip(values, calls, strict=True):
            yield call if call is not None else (_name_in(span.body), {}, json.dumps(value, ensure_ascii=False))
        if not values:
            yield "", {}, span.body.strip(_BLANK)
    elif all(call is not None for call in calls):
        yield from (call for call in calls if call is not None)


def _call(value: object) -> tuple[str, dict[str, Any], str | None] | None:
    """One JSON value as a call, or None if it is none."""
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return None
    key = next((key for key in ("arguments", "parameters", "args") if key in value), None)
    arguments = value[key] if key else {}
    if isinstance(arguments, str):  # OpenAI's habit: the object as a string of JSON
        decoded = _values(arguments)
        arguments = decoded[0] if decoded and len(decoded) == 1 else arguments
    if not isinstance(arguments, dict):
        return name, {}, json.dumps(arguments, ensure_ascii=False)
    return (name, arguments, None) if key or set(value) <= {"name", "type", "id"} else None


def _values(body: str) -> list[Any] | None:
    """The JSON values in a body, lists opened, with blanks, commas or semicolons between; None if it is no JSON."""
    if _depth(body) > _MAX_DEPTH:
        return None
    decoder = json.JSONDecoder(parse_constant=_refuse)
    values: list[Any] = []
    at = 0
    while (at := _skip(body, at)) < len(body):
        try:
            value, at = decoder.raw_decode(body, at)
        except (ValueError, RecursionError):
            return None
        values.extend(value if isinstance(value, list) else [value])
    return values


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _skip(body: str, at: int) -> int:
    while at < len(body) and body[at] in " \t\r\n;,":
        at += 1
    return at


def _depth(body: str) -> int:
    """How deeply brackets nest, those inside strings left out."""
    deepest = depth = 0
    for bracket in _brackets(body):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _brackets(body: str) -> Iterable[str]:
    quoted = False
    for match in re.finditer(r'\\.|["\[\]{}]', body, re.DOTALL):
        token = match[0]
        if token == '"':
            quoted = not quoted
        elif not quoted and len(token) == 1:
            yield token


def _name_in(body: str) -> str:
    """The name that a broken call seems to give, or an empty one."""
    match = re.search(r'"name"\s{0,8}:\s{0,8}"([^"\\]{1,128})"', body)
    return match[1] if match else ""
