"""Finds fenced code in a model's output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"([ \t]*+)(`{3,}+(?![^\n]*`)|~{3,}+)[ \t]*+(\w*+)")
_INDENT = 3
"""Most blanks by which a closing fence may stand further in than the opening one, as in CommonMark."""
_EXECUTE = re.compile(r"^[ \t]*<execute>", re.IGNORECASE | re.MULTILINE)
_EXECUTED = re.compile(r"</execute>", re.IGNORECASE)
_PYTHON = ("", "python", "py", "python3", "py3", "ipython", "ipython3")
"""The words after a fence that announce Python to be run; a fence without one does too."""


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


def fence_ends(text: str) -> dict[int, int]:
    """For each fenced block, by the index of the line of its opening fence, the index after its last line."""
    return {block.start: end for block, end in _blocks(text)}


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
    """True for a fence of the same sign, at least as long, with nothing after it, a blank and prose, or `<end_code>`."""
    plain = line.lstrip(" \t")
    after = plain.lstrip(opened[2][0])
    return (
        len(plain) - len(after) >= len(opened[2])
        and (not after or after[0].isspace() or after.startswith("<end_code>"))
        and len(line) - len(plain) <= len(opened[1]) + _INDENT
    )


def _dedented(line: str, indent: int) -> str:
    """The line without the blanks that its block begins with, or as many as it has."""
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]


def first_action(text: str) -> CodeBlock | None:
    """The first block of Python that is meant to be run: fenced, indented or not, or between `<execute>` tags.

    Blank lines around its code are left out; the code of a block that is not closed is empty. Where all closed blocks are in
    other languages, it is an empty block at the end of the first of them.
    """
    tag, other = _EXECUTE.search(text), None
    for block, end in _blocks(text):
        if tag and tag.start() < block.start:
            break
        if block.language in _PYTHON:
            code = block.code.strip("\n") if block.is_closed else ""
            return CodeBlock("python", code, block.start, block.is_closed)
        if block.is_closed and other is None:
            other = CodeBlock("python", "", text.rfind("\n", 0, end - 1) + 1, False)
        if tag and tag.start() < end:  # within a block in another language
            tag = _EXECUTE.search(text, end)
    if tag is None:
        return other
    closed = _EXECUTED.search(text, tag.end())
    code = text[tag.end() : closed.start()].strip("\n") if closed else ""
    return CodeBlock("python", code, tag.start(), closed is not None)


def later_actions(text: str, first: CodeBlock) -> int:
    """The number of closed blocks of Python behind the text's first action; those without a word only if that has none."""
    blocks, end = fenced_code(text), fence_ends(text).get(first.start)
    if end is None:
        closed = _EXECUTED.search(text, first.start)
        end = closed.end() if closed else len(text)
    is_bare = any(each.start == first.start and not each.language for each in blocks)
    later = [each for each in blocks if each.start >= end and each.is_closed and each.language in _PYTHON]
    last = max((each.start() for each in _EXECUTED.finditer(text, end)), default=0)
    tags = sum(each.start() < last for each in _EXECUTE.finditer(text, end))
    return tags + sum(bool(each.language) or is_bare for each in later)
