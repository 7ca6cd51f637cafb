"""Fixed windows: so many characters or tokens, whatever they cut through."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal

from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.text_spans import Span, check_sizes, chunks_of
from firsthand.retrieval.document import Document

TOKEN_CHARS = 16
_TOKEN = re.compile(rf"\w{{1,{TOKEN_CHARS}}}|[^\w\s]")


def fixed(*, size: int = 800, overlap: int = 100, unit: Literal["characters", "tokens"] = "characters") -> Chunker:
    """Windows of `size` units, each begun `overlap` units before the last one's end.

    A token is a word, of which at most 16 characters count as one, or a sign; no model's tokenizer is asked, so that the
    chunks of a document are the same under every model.
    """
    check_sizes(size, overlap)

    def chunk(document: Document) -> list[Chunk]:
        text = document.text
        spans = _token_windows(text, size, overlap) if unit == "tokens" else _windows(len(text), size, overlap)
        return _without_repeats(chunks_of(document, spans))

    return chunk


def _windows(length: int, size: int, overlap: int) -> Iterator[Span]:
    for start in range(0, max(length - overlap, 1), size - overlap):
        yield start, min(start + size, length)


def _token_windows(text: str, size: int, overlap: int) -> Iterator[Span]:
    """Windows of tokens; only the starts of those that are open are held."""
    open_at: deque[int] = deque()
    end = 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        if number % (size - overlap) == 0:
            open_at.append(token.start())
        end = token.end()
        if number >= size - 1 and (number - size + 1) % (size - overlap) == 0:
            yield open_at.popleft(), end
    if open_at:  # a window that ends where the one before it does is left out as a repeat
        yield open_at[0], end


def _without_repeats(chunks: list[Chunk]) -> list[Chunk]:
    """Chunks of which none holds another: of windows that begin at the same word after white space the longest stays."""
    made: list[Chunk] = []
    for each in chunks:
        if made and each.start == made[-1].start and each.end > made[-1].end:
            made[-1] = each
        elif not made or (each.start > made[-1].start and each.end > made[-1].end):
            made.append(each)
    return made
