"""Spans of a text: trimmed, split at the coarsest break that fits, packed up to a size, and overlapped.

Every function takes time linear in the text. Sizes are characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.document import Document
from firsthand.system.abbreviations import ends_sentence
from firsthand.system.sentence_ends import SENTENCE_END, SENTENCE_MARKS

Span = tuple[int, int]
FILE_META = "file"
"""The key of a document's `meta` that describes its file; chunks do not repeat it."""
CHUNK_CHARS = 600
"""A chunk takes memory and room in an index as so many characters do, beside its text and headings."""
MAX_CHUNKS_TIMES = 10
"""All chunks of a document take at most so many times its text, or MIN_CHUNKS_BOUND characters."""
MIN_CHUNKS_BOUND = 100_000_000
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_CLOSING = "\"'”’»)\\]"
_SENTENCE = re.compile(  # possessive, so that no run is looked at twice
    rf"(?<![.!?…])[.!?…]++[{_CLOSING}]*+\s+|{SENTENCE_END}\s*+|\n[ \t]*\n\s*"
)
_STARTS = (re.compile(rf"(?<=[.!?{SENTENCE_MARKS}]\s)\S|(?<=\n)\S|(?<=[{SENTENCE_MARKS}])\w"), re.compile(r"(?<=\s)\S"))
"""Places to begin an overlap: a sentence or line, else a word."""


def check_sizes(size: int, overlap: int) -> None:
    """Raises ConfigError for sizes that cannot work."""
    if size < 1:
        raise ConfigError(f"size is {size}: give 1 or more")
    if not 0 <= overlap <= size // 2:
        raise ConfigError(f"overlap is {overlap}: give 0 to {size // 2}, half of the size, {size}")


def trimmed(text: str, start: int, end: int) -> Span | None:
    """The span without white space at its ends; None if nothing is left."""
    inside = text[start:end]
    if not (bare := inside.strip()):
        return None
    start += len(inside) - len(inside.lstrip())
    return start, start + len(bare)


def split_at(text: str, start: int, end: int, breaks: re.Pattern[str]) -> Iterator[Span]:
    """The span in pieces, each of which ends after a break."""
    for found in breaks.finditer(text, start, end):
        if found.end() > start:
            yield start, found.end()
            start = found.end()
    if start < end:
        yield start, end


def sentences(text: str, start: int, end: int) -> Iterator[Span]:
    """The sentences of a span; abbreviations and initials do not end one."""
    begun = start
    for found in _SENTENCE.finditer(text, start, end):
        if found.group()[0] == "." and not ends_sentence(text, begun, found.start(), found.end()):
            continue
        yield begun, found.end()
        begun = found.end()
    if begun < end:
        yield begun, end


def pieces(text: str, start: int, end: int, size: int, *, level: int = 0) -> Iterator[Span]:
    """The span in pieces of at most `size`: paragraphs where they fit, else lines, sentences, words, or characters.

    `level` 1 begins with lines.
    """
    if end - start <= size:
        if start < end:
            yield start, end
    elif level == 4:
        for at in range(start, end, size):
            yield at, min(at + size, end)
    else:
        breaks = (_PARAGRAPH, _LINE, None, _WORD)[level]
        parts = sentences(text, start, end) if breaks is None else split_at(text, start, end, breaks)
        for part in parts:
            bare = trimmed(text, *part)  # white space alone does not make a piece too long
            if bare is not None:
                yield from pieces(text, *bare, size, level=level + 1)


def sentence_pieces(text: str, size: int) -> list[Span]:
    """The sentences of a text without white space around them; those longer than `size` are cut."""
    whole: list[Span] = []
    for each in sentences(text, 0, len(text)):
        if (bare := trimmed(text, *each)) is not None:
            whole += pieces(text, *bare, size, level=3)
    return whole


def packed(spans: Iterable[Span], size: int) -> list[Span]:
    """Neighbours joined up to `size`."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and end - joined[-1][0] <= size:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def overlapped(text: str, spans: Sequence[Span], overlap: int, floors: Sequence[int] | None = None) -> list[Span]:
    """The spans, each begun up to `overlap` characters earlier, at a sentence or else a word of the one before.

    `floors`, one for each span, are the earliest characters they may begin at.
    """
    if not overlap:
        return list(spans)
    made = list(spans[:1])
    for at in range(1, len(spans)):
        start, end = spans[at]
        before, _ = trimmed(text, *spans[at - 1]) or spans[at - 1]  # a chunk begins behind its white space
        lowest = max(start - overlap, before + 1, floors[at] if floors else 0)
        found = next((each for pattern in _STARTS if (each := pattern.search(text, lowest, start))), None)
        begun = found.start() if found else start
        if found is None and not _WORD.search(text, lowest, start):  # no white space at all: one long word
            begun = min(lowest, start)
        made.append((begun, end))
    return made


def chunks_of(document: Document, spans: Iterable[Span], heading: str = "", parent: str | None = None) -> list[Chunk]:
    """Trimmed chunks of the spans that hold more than white space."""
    meta = {key: value for key, value in document.meta.items() if key != FILE_META}
    made = []
    for each in spans:
        if (bare := trimmed(document.text, *each)) is not None:
            made.append(Chunk(document.id, *bare, document.text[slice(*bare)], heading, parent, meta))
    return made


def bounded(document: Document, chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks, counted as they come: a heading that stands above seven characters is repeated with them."""
    most = max(MIN_CHUNKS_BOUND, MAX_CHUNKS_TIMES * len(document.text))
    made: list[Chunk] = []
    taken = 0
    for each in chunks:
        taken += CHUNK_CHARS + len(each.heading) + len(each.text)
        if taken > most:
            raise DataError(
                f"it has {len(document.text):,} characters, and its chunks, each with the headings above it, "
                f"take more than {most:,}: give its sections more text, or take --chunker recursive, which has no headings"
            )
        made.append(each)
    return made
