"""The parts of an answer between fences, as Markdown has them: code, or an answer that was fenced whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_OPENS = re.compile(r"[ \t>]*+(?P<fence>`{3,}+(?=[^`]*+$)|~{3,}+)(?P<kind>.*)", re.DOTALL)
_PROSE_KINDS = ("", "text", "txt", "plaintext", "markdown", "md")
_CITED = re.compile(r"(?P<end>[\w)\"”'.!?])(?P<space>\s?)\[\s?\d{1,4}(?:\s?[,;]\s?\d{1,4})*+\s?\]\.?\s*+\Z")
_LETTER = re.compile(r"[^\W\d_]")


class AnswerPart(NamedTuple):
    """Lines of an answer."""

    kind: Literal["prose", "fence", "code"]
    """`fence` is the line of a fence around cited prose; `code` has its fences."""
    text: str

    @property
    def code(self) -> str:
        """The lines between the fences."""
        first, *lines = self.text.split("\n")
        opened = _OPENS.match(first)
        if lines and opened is not None and _closes(lines[-1], opened["fence"]):
            lines.pop()
        return "\n".join(lines)


def answer_parts(text: str) -> Iterator[AnswerPart]:
    """The text in parts, whose texts joined by line ends are the text. Each line of prose is a part.

    A fence that nothing closes goes on to the end.
    """
    lines = text.split("\n")
    place = 0
    while place < len(lines):
        first = lines[place]
        if (opened := _OPENS.match(first)) is None:
            yield AnswerPart("prose", first)
            place += 1
            continue
        inner = place + 1
        while inner < len(lines) and not _closes(lines[inner], opened["fence"]):
            inner += 1
        body = lines[place + 1 : inner]
        if opened["kind"].strip().casefold() in _PROSE_KINDS and any(map(_is_cited, body)):
            yield AnswerPart("fence", first)
            yield from (AnswerPart("prose", line) for line in body)
            yield from (AnswerPart("fence", line) for line in lines[inner : inner + 1])
        else:
            yield AnswerPart("code", "\n".join(lines[place : inner + 1]))
        place = inner + 1


def _closes(line: str, fence: str) -> bool:
    """True if a line closes a fence."""
    closing = _OPENS.match(line)
    return closing is not None and not closing["kind"].strip() and closing["fence"].startswith(fence)


def _is_cited(line: str) -> bool:
    """True if a line ends as a cited sentence does, and not as `a[1]` or `return [1]`."""
    found, letter = _CITED.search(line), _LETTER.search(line)
    if found is None or letter is None:
        return False
    return found["end"] in ".!?" or (bool(found["space"]) and not letter[0].islower())
