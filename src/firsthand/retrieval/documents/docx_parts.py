"""Counts the text of those parts of a DOCX that are not read: headers, footers, comments, diagrams and charts."""

from __future__ import annotations

import re

from firsthand.errors import DataError
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml
from firsthand.system.plurals import count_of

_KINDS = {
    "header": re.compile(r"word/header\d*\.xml"),
    "footer": re.compile(r"word/footer\d*\.xml"),
    "part of comments": re.compile(r"word/comments\.xml"),
    "diagram": re.compile(r"word/diagrams/data\d*\.xml"),
    "chart": re.compile(r"word/charts/chart\d*\.xml"),
}


def unread_parts(parts: ZipParts) -> list[str]:
    """A remark that names the kinds of parts that hold text and are not read, if there are any, and those that cannot be
    looked at. What a field fills in, such as the number of a page, is no text of theirs.
    """
    told: list[str] = []
    damaged: list[str] = []
    for noun, pattern in _KINDS.items():
        chars = count = 0
        for name in filter(pattern.fullmatch, parts.names):
            try:
                found = _Words(parts.read(name)).chars
            except DataError as error:
                damaged.append(str(error))
                continue
            chars, count = chars + found, count + (found > 0)
        if count:
            told.append(f"{count_of(count, noun)} ({count_of(chars, 'character', ',')})")
    return [*([f"text that is not read: {', '.join(told)}"] if told else []), *damaged[:1]]


class _Words:
    """The number of characters of a part's text, without blanks and what fields fill in."""

    def __init__(self, data: bytes):
        self.chars = self._in_text = self._in_field = 0
        parse_xml(data, self._start, self._end, self._add)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._in_text += name in ("t", "v")
        kind = attributes.get("fldCharType", "") if name == "fldChar" else ""
        self._in_field += (name == "fldSimple" or kind == "begin") - (kind == "end")

    def _end(self, name: str) -> None:
        self._in_text -= name in ("t", "v")
        self._in_field -= name == "fldSimple"

    def _add(self, words: str) -> None:
        if self._in_text and self._in_field <= 0:
            self.chars += len("".join(words.split()))
