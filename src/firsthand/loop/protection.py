"""Removes the text of an attempt whose task is protected, before it is printed or exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from firsthand.message import Message, Text
from firsthand.model import ToolSpec
from firsthand.trace import Node, Trace

SHORT_CHARS = 24
"""A shorter text in a record is kept: it reveals nothing of a question."""
ANSWER_CHARS = 8
"""A longer answer is removed: only a letter or a number reveals nothing."""


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
        events=tuple(e if e.kind == "protected" else replace(e, data=_without_texts(e.data)) for e in trace.events),
        scores=tuple(
            replace(score, detail=_without_texts(score.detail), failure=_left(score.failure)) for score in trace.scores
        ),
        answer=trace.answer if len(trace.answer or "") <= ANSWER_CHARS else _left_out(trace.answer or ""),
        final_state=_without_texts(trace.final_state),
        error=error,
    )


def _left(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHORT_CHARS else _left_out(text)


def _left_out(text: str) -> str:
    return f"[withheld: {len(text)} characters]"


def _quotes(text: str, messages: str) -> bool:
    """Returns whether a part of the text is in the messages too."""
    return any(text[at : at + SHORT_CHARS] in messages for at in range(max(1, len(text) - SHORT_CHARS + 1)))


def _without_words(message: Message) -> Message:
    return Message(message.role, (Text(_left_out(message.text)),))


def _without_texts(body: Any) -> Any:
    """The data without long texts and without a judge's own trace."""
    if isinstance(body, str):
        return _left(body)
    if isinstance(body, Mapping):
        return {str(key): _without_texts(value) for key, value in body.items() if key != "trace"}
    return [_without_texts(each) for each in body] if isinstance(body, list | tuple) else body
