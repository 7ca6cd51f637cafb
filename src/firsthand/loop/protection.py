"""What may be printed and exported of an attempt whose task is protected: all but its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from firsthand.message import Message, Text
from firsthand.trace import Node, Trace

SHORT_CHARS = 24
"""A shorter text in a record tells nothing of a question."""
ANSWER_CHARS = 8
"""A longer answer may: a letter or a number does not."""


def shareable(trace: Trace) -> Trace:
    """The trace as it may be printed and exported: of a protected task without words, with their number instead.

    Structure, counts, times, numbers and short answers such as a letter stay; what others may see is as good as before.
    """
    if trace.protected is None:
        return trace
    said = "\n".join(node.message.text for node in trace.nodes)
    error = trace.error
    if error is not None and _quotes(error.message, said):
        error = replace(error, message=_left_out(error.message), traceback=None)
    return replace(
        trace,
        nodes=tuple(Node(node.parent, _without_words(node.message)) for node in trace.nodes),
        calls=tuple(replace(call, detail=_without_texts(call.detail), error=_left(call.error)) for call in trace.calls),
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


def _quotes(text: str, said: str) -> bool:
    """Whether a stretch of the text stands in what was said too."""
    return any(text[at : at + SHORT_CHARS] in said for at in range(max(1, len(text) - SHORT_CHARS + 1)))


def _without_words(message: Message) -> Message:
    return Message(message.role, (Text(_left_out(message.text)),))


def _without_texts(body: Any) -> Any:
    """The data with every long text left out, a judge's own trace among them."""
    if isinstance(body, str):
        return _left(body)
    if isinstance(body, Mapping):
        return {str(key): _without_texts(value) for key, value in body.items() if key != "trace"}
    return [_without_texts(each) for each in body] if isinstance(body, list | tuple) else body
