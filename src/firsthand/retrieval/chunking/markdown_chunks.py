"""Markdown by its sections: headings are kept beside each chunk, code blocks and tables stay whole where they fit.

Blocks are found line by line: headings (# and underlined), fenced code, tables, front matter, and all else as prose. Text
of other formats whose reader writes headings as `#` lines, such as HTML and DOCX, is divided the same way.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from firsthand.errors import DataError
from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.text_spans import Span, bounded, check_sizes, chunks_of, overlapped, packed, pieces
from firsthand.retrieval.document import Document

MAX_HEADING_CHARS = 120
MAX_LINES = 2_000_000
LINE_CHARS = 10
"""A text has at most MAX_LINES lines, or one for so many of its characters: a block of one line takes 250 bytes."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_DELIMITER = re.compile(r"[ \t]*+(?:\|[ \t]*+)?:?-+:?[ \t]*+(?:\|[ \t:-]*+)+$")
_LINK = re.compile(r"!?\[([^\[\]]{0,200})\]\([^()\s]{0,500}\)")


class MarkdownBlock(NamedTuple):
    """Lines that belong together."""

    start: int
    end: int
    kind: str
    """heading, code, table or prose."""
    level: int = 0
    """Of a heading: 1 to 6."""
    title: str = ""


class Section(NamedTuple):
    """The blocks below one heading, which is the first of them."""

    headings: tuple[str, ...]
    blocks: list[MarkdownBlock]


def markdown(*, size: int = 800, overlap: int = 100) -> Chunker:
    """Chunks of one section each, at most `size` characters, with the headings they stand under.

    Code blocks and tables that are longer are cut between lines. Prose of a section overlaps.
    """
    check_sizes(size, overlap)

    def chunk(document: Document) -> list[Chunk]:
        text = document.text
        made = (
            chunks_of(document, _packed(text, each.blocks, size, overlap), heading(each.headings))
            for each in sections(text)
        )
        return bounded(document, chain.from_iterable(made))

    return chunk


def heading(parts: tuple[str, ...]) -> str:
    """Headings as one text, outermost first."""
    return " > ".join(parts)


def _packed(text: str, blocks: list[MarkdownBlock], size: int, overlap: int) -> list[Span]:
    room = size - overlap
    parts: list[Span] = []
    ends_of_whole = [0]
    for block in blocks:
        is_whole = block.kind in ("code", "table")
        parts += pieces(text, block.start, block.end, size if is_whole else room, level=1 if is_whole else 0)
        ends_of_whole.append(block.end if is_whole else ends_of_whole[-1])
    spans = packed(parts, room)
    floors, at = [], 0
    for start, _ in spans:
        while at < len(blocks) and blocks[at].end <= start:
            at += 1
        is_whole = at < len(blocks) and blocks[at].kind in ("code", "table")
        floors.append(start if is_whole else ends_of_whole[at])  # an overlap never begins inside code or a table
    return overlapped(text, spans, overlap, floors)


def sections(text: str) -> Iterator[Section]:
    """The sections in order. A heading without text of its own goes with the section below it."""
    above: list[tuple[int, str]] = []
    held: list[MarkdownBlock] = []
    for block in blocks(text):
        if block.kind == "heading":
            if any(each.kind != "heading" for each in held) or (held and above and above[-1][0] >= block.level):
                yield Section(tuple(title for _, title in above), held)
                held = []
            above = [each for each in above if each[0] < block.level]
            above.append((block.level, block.title))
        held.append(block)
    if held:
        yield Section(tuple(title for _, title in above), held)


class _Lines:
    """The span of each line by its number, eight bytes a line."""

    def __init__(self, text: str):
        self._starts = array("q", (0,))
        while (end := text.find("\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)
        if self._starts[-1] < len(text):
            self._starts.append(len(text))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> Span:
        return self._starts[at], self._starts[at + 1]


def blocks(text: str) -> Iterator[MarkdownBlock]:
    """The blocks in order, which together cover the text but for blank lines."""
    lines = _Lines(text)
    if len(lines) > max(MAX_LINES, len(text) // LINE_CHARS):
        raise DataError(
            f"it has {len(lines):,} lines, of {len(text) / len(lines):.1f} characters: divide it, or take --chunker "
            "recursive"
        )
    at = _front_matter(text, lines)
    if at:
        yield MarkdownBlock(0, lines[at - 1][1], "prose")
    prose: int | None = None
    while at < len(lines):
        start, end = lines[at]
        line = text[start:end].rstrip("\n")
        found, after = _block_at(text, lines, at, line)
        if prose is not None and (found is not None or not line.strip()):
            yield MarkdownBlock(prose, start, "prose")
            prose = None
        if found is not None:
            yield found
        elif line.strip():
            underlined = _UNDERLINE.match(text[slice(*lines[at + 1])].rstrip("\n")) if at + 1 < len(lines) else None
            if prose is None and underlined:
                yield MarkdownBlock(
                    start, lines[at + 1][1], "heading", 1 if underlined[1][0] == "=" else 2, _title(line)
                )
                after = at + 2
            elif prose is None:
                prose = start
        at = after
    if prose is not None:
        yield MarkdownBlock(prose, len(text), "prose")


def _block_at(text: str, lines: _Lines, at: int, line: str) -> tuple[MarkdownBlock | None, int]:
    """The heading, code or table that begins in a line, and the number of the line after it."""
    start, end = lines[at]
    if found := _HEADING.match(line[:1000]):
        return MarkdownBlock(start, end, "heading", len(found[1]), _title(found[2] or "")), at + 1
    if found := _FENCE.match(line):
        after = at + 1
        while after < len(lines):
            closing = text[slice(*lines[after])].strip()
            after += 1
            if closing.startswith(found[1]) and not closing.strip(found[1][0]):
                break
        return MarkdownBlock(start, lines[after - 1][1], "code"), after
    if "|" in line and at + 1 < len(lines) and _DELIMITER.match(text[slice(*lines[at + 1])].rstrip("\n")[:5000]):
        after = at + 2
        while after < len(lines) and "|" in text[slice(*lines[after])]:
            after += 1
        return MarkdownBlock(start, lines[after - 1][1], "table"), after
    return None, at + 1


def _front_matter(text: str, lines: _Lines) -> int:
    """The number of lines of a block between `---` at the beginning; 0 if there is none."""
    if not lines or text[slice(*lines[0])].rstrip() != "---":
        return 0
    closing = (at for at in range(1, min(len(lines), 200)) if text[slice(*lines[at])].rstrip() in ("---", "..."))
    return next(closing, -1) + 1


def _title(line: str) -> str:
    """The words of a heading, without markup."""
    plain = _LINK.sub(r"\1", line.strip()[:1000]).rstrip("# \t") if line.strip() else ""
    return re.sub(r"[`*]+|\{#[\w-]+\}|¶", "", " ".join(plain.split())).strip()[:MAX_HEADING_CHARS]
