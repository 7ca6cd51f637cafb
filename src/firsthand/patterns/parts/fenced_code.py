"""Finds fenced code in a model's output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"([ \t]*+)(`{3,}+(?![^\n]*`)|~{3,}+)[ \t]*+(\w*+)")
_INDENT = 3
"""Most blanks by which a closing fence may stand further in than the opening one, as in CommonMark."""
_OPEN = re.compile(r"^[ \t]*(?:```(?:[ \t]*(?:python|py))?[ \t]*$|<execute>)", re.IGNORECASE | re.MULTILINE)
_OTHER = re.compile(r"^[ \t]*```[ \t]*\w[^\n`]*$", re.MULTILINE)
_CLOSE = re.compile(r"^[ \t]*```[ \t]*$|</execute>", re.IGNORECASE | re.MULTILINE)


class CodeBlock(NamedTuple):
    """A fenced block."""

    language: str
    """The word after the opening fence, in lower case; empty if there is none."""
    code: str
    start: int
    """The index in the text of the line of its opening fence."""
    is_closed: bool


def fenced_code(text: str) -> list[CodeBlock]:
    """The fenced blocks of a text in order, of backticks or tildes, those in list items without their indent.

    Fences are those of CommonMark 0.31, section 4.5, at any indent. The last block may lack its closing fence, as in an
    answer that was cut off.
    """
    return [block for block, _ in _blocks(text)]


def prose_of(text: str) -> str:
    """The text without its fenced blocks."""
    parts, at = [], 0
    for block, end in _blocks(text):
        parts.append(text[at : block.start])
        at = end
    return "".join([*parts, text[at:]])


def _blocks(text: str) -> Iterator[tuple[CodeBlock, int]]:
    """The fenced blocks, each with the index after the line of its closing fence."""
    opened: re.Match[str] | None = None
    lines: list[str] = []
    start = at = 0
    for line in text.split("\n"):
        end = at + len(line) + 1
        if opened is None:
            if opened := _FENCE.match(line):
                start, lines = at, []
        elif _closes(line, opened):
            yield CodeBlock(opened[3].lower(), "".join(lines), start, True), end
            opened = None
        else:
            lines.append(_dedented(line, len(opened[1])) + "\n")
        at = end
    if opened is not None and "\n" in text[start:]:
        yield CodeBlock(opened[3].lower(), "".join(lines)[:-1], start, False), at


def _closes(line: str, opened: re.Match[str]) -> bool:
    """True for a fence of the same sign that is at least as long, with nothing after it, or a blank and prose."""
    plain = line.lstrip(" \t")
    after = plain.lstrip(opened[2][0])
    return (
        len(plain) - len(after) >= len(opened[2])
        and (not after or after[0].isspace())
        and len(line) - len(plain) <= len(opened[1]) + _INDENT
    )


def _dedented(line: str, indent: int) -> str:
    """The line without the blanks that its block begins with, or as many as it has."""
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]


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
