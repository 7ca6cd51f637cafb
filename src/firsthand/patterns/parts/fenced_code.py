"""Finds fenced code in a model's output."""

from __future__ import annotations

import re
from typing import NamedTuple

_BLOCK = re.compile(r"^```[ \t]*+(\w*+)[^\n]*+\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_OPEN = re.compile(r"^[ \t]*(?:```(?:[ \t]*(?:python|py))?[ \t]*$|<execute>)", re.IGNORECASE | re.MULTILINE)
_OTHER = re.compile(r"^[ \t]*```[ \t]*\w[^\n`]*$", re.MULTILINE)
_CLOSE = re.compile(r"^[ \t]*```[ \t]*$|</execute>", re.IGNORECASE | re.MULTILINE)


class CodeBlock(NamedTuple):
    """A fenced block."""

    language: str
    """The word after the opening fence, in lower case; empty if there is none."""
    code: str
    start: int
    """The index in the text of its opening fence."""
    is_closed: bool


def fenced_code(text: str) -> list[CodeBlock]:
    """The fenced blocks of a text in order. The last one may lack its closing fence, as in an answer that was cut off."""
    return [
        CodeBlock(found[1].lower(), found[2], found.start(), found.end() > found.end(2))
        for found in _BLOCK.finditer(text)
    ]


def first_action(text: str) -> CodeBlock | None:
    """The first block of Python that is meant to be run: fenced, indented or not, or between `<execute>` tags.

    Blank lines around its code are left out; the code of a block that is not closed is empty.
    """
    opened = _OPEN.search(text)
    if opened is None:
        return None
    own = _after_other_languages(text, opened)
    if own is None and opened[0].strip() == "```":  # the end of a block in another language
        return CodeBlock("python", "", opened.start(), False)
    opened = own or opened
    closed = _CLOSE.search(text, opened.end())
    code = text[opened.end() : closed.start()].strip("\n") if closed else ""
    return CodeBlock("python", code, opened.start(), closed is not None)


def _after_other_languages(text: str, opened: re.Match[str]) -> re.Match[str] | None:
    """The first opening that is not the end of a block in another language; None if there is no other."""
    found: re.Match[str] | None = opened
    other = _OTHER.search(text)
    while found and other and other.start() < found.start():
        end = _CLOSE.search(text, other.end())
        if end is None:
            return None
        found = found if found.start() >= end.end() else _OPEN.search(text, end.end())
        other = _OTHER.search(text, end.end())
    return found
