"""Removes the text of an attempt whose task is protected, before it is printed or exported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from firsthand.message import Message, Text
from firsthand.model import ToolSpec
from firsthand.trace import Event, Node, Trace

SHORT_CHARS = 24
"""A shorter text in a record is kept: it reveals nothing of a question."""
_OWN_NAME = re.compile(r"[A-Za-z_$][\w$.:/-]{0,39}|-?\d{1,9}", re.ASCII)
ANSWER_CHARS = 8
"""A longer answer is removed: only a letter or a number reveals nothing."""
VOTES = ("vote", "votes")
"""Kinds of events whose data names answers, by their numbers of votes."""


def shareable(trace: Trace) -> Trace:
    """The trace as it may be printed and exported: of a protected task without text and token ids.

    Structure, counts, times, numbers and short answers such as a letter are kept, and the length of each removed text.
    Traces of other tasks are returned unchanged.
    """
    if trace.protected is None:
        return trace
    messages = "\n".join(node.message.text for node in trace.nodes)
    error = trace.error
    if error is not None and _quotes(error.message, messages):
        error = replace(error, message=_left_out(error.message), traceback=None)
    return replace(
        trace,
        nodes=tuple(Node(node.parent, _without_words(node.message)) for node in trace.nodes),
        calls=tuple(
            replace(call, detail=_without_texts(call.detail), error=_left(call.error), prompt=None)
            for call in trace.calls
        ),
        tools=tuple(ToolSpec(**_without_texts(vars(tool))) for tool in trace.tools),
        events=tuple(map(_without_words_of, trace.events)),
        scores=tuple(
            replace(score, detail=_without_texts(score.detail), failure=_left(score.failure)) for score in trace.scores
        ),
        answer=trace.answer if len(trace.answer or "") <= ANSWER_CHARS else _left_out(trace.answer or ""),
        final_state=_without_texts(trace.final_state),
        error=error,
    )


def is_own_name(key: str) -> bool:
    """Returns whether a key can be a record's own: one short word or number, and no sentence."""
    return _OWN_NAME.fullmatch(key) is not None


def _left(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHORT_CHARS else _left_out(text)


def _left_out(text: str) -> str:
    return f"[withheld: {len(text)} characters]"


def _quotes(text: str, messages: str) -> bool:
    """Returns whether a part of the text is in the messages too."""
    return any(text[at : at + SHORT_CHARS] in messages for at in range(max(1, len(text) - SHORT_CHARS + 1)))


def _without_words(message: Message) -> Message:
    return Message(message.role, (Text(_left_out(message.text)),))


def _without_words_of(event: Event) -> Event:
    if event.kind == "protected":
        return event
    data = _without_texts(event.data)
    return replace(event, data=_without_answers(data) if event.kind in VOTES else data)


def _without_answers(body: Any) -> Any:
    """The counts of a vote, with its number in place of each answer that is removed as the attempt's own would be."""
    if not isinstance(body, Mapping):
        return body
    return {
        key if len(key) <= ANSWER_CHARS else f"[withheld: key {number}]": _without_answers(value)
        for number, (key, value) in enumerate(body.items())
    }


def _without_texts(body: Any) -> Any:
    """The data without long texts and without a judge's own trace. Arguments and lists are kept or left whole."""
    if isinstance(body, str):
        return _left(body)
    if isinstance(body, Mapping):
        return {
            _name(str(key), number): _as_one(value) if key == "arguments" else _without_texts(value)
            for number, (key, value) in enumerate(body.items())
            if key != "trace"
        }
    return _as_one(body) if isinstance(body, list | tuple) else body


def _name(key: str, number: int) -> str:
    """A key as it is if it can be a record's own; else its number, so that keys stay distinct."""
    return key if is_own_name(key) else f"[withheld: key {number}]"


def _as_one(body: Any) -> Any:
    """The data as it is if all its texts and keys within are short together; otherwise none of them."""
    return _without_texts_within(body) if _chars_within(body) > SHORT_CHARS else body


def _chars_within(body: Any, *, is_top: bool = True) -> int:
    """Characters of all texts, and of all keys but those of the top level that are names."""
    if isinstance(body, str):
        return len(body)
    if isinstance(body, Mapping):
        keys = sum(len(str(key)) for key in body if not (is_top and is_own_name(str(key))))
        return keys + sum(_chars_within(each, is_top=False) for each in body.values())
    return sum(_chars_within(each, is_top=False) for each in body) if isinstance(body, list | tuple) else 0


def _without_texts_within(body: Any, *, is_top: bool = True) -> Any:
    """The data with the length of each text in its place, and the number of each key that `_chars_within` counts."""
    if isinstance(body, str):
        return _left_out(body)
    if isinstance(body, Mapping):
        return {
            _name(str(key), number) if is_top else f"[withheld: key {number}]": _without_texts_within(
                each, is_top=False
            )
            for number, (key, each) in enumerate(body.items())
        }
    return [_without_texts_within(each, is_top=False) for each in body] if isinstance(body, list | tuple) else body
