"""Separates what an answer says from the thought before it: what a model only considered is no action, plan or answer."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
_UNOPENED_END = re.compile(rf"^[ \t]*{CLOSE}|{CLOSE}[ \t\r]*$", re.MULTILINE)


def said_text(text: str) -> str:
    """The text behind the thoughts, between `<think>` and `</think>`, that it begins with; all of a text without one.

    Empty if such a thought is never closed. Where the prompt opened the thought, so that the text has its end alone, it
    ends at the first `</think>` that begins or ends a line.
    """
    at = _begin(text, 0)
    if not text.startswith(OPEN, at):
        end = _UNOPENED_END.search(text)
        if end is None or text.find(OPEN, 0, end.start()) >= 0:
            return text
        at = _begin(text, end.end())
    while text.startswith(OPEN, at):
        close = text.find(CLOSE, at)
        if close < 0:
            return ""
        at = _begin(text, close + len(CLOSE))
    return text[at:]


def _begin(text: str, at: int) -> int:
    """The index of the first character from `at` on that is no blank."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at
