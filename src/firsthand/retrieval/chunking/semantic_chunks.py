"""Semantic splitting: breaks where neighbouring sentences differ most in meaning.

Sentences are embedded together with the one before and after, and a break falls where the cosine distance of two neighbours
exceeds a percentile of all such distances in the document (Kamradt, "5 Levels of Text Splitting", 2023, level 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.text_spans import Span, check_sizes, chunks_of, packed, sentence_pieces
from firsthand.retrieval.document import Document

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors of Euclidean length 1, a row each; it blocks."""
BATCH = 1024


def semantic(*, size: int = 1200, percentile: float = 90.0, embed: Embed | None = None) -> Chunker:
    """Chunks of sentences on one subject, at most `size` characters. `embed` computes the sentences' vectors."""
    check_sizes(size, 0)
    if not 0 < percentile < 100:
        raise ConfigError(f"percentile is {percentile:g}: give a number between 0 and 100, such as 90")
    if embed is None:
        raise ConfigError("the semantic chunker compares vectors: give it an embedder, or take another chunker")

    def chunk(document: Document) -> list[Chunk]:
        text = document.text
        parts = sentence_pieces(text, size)
        made: list[Span] = []
        for group in _groups(parts, _distances(text, parts, embed), percentile):
            made += packed(group, size)
        return chunks_of(document, made)

    return chunk


def _distances(text: str, parts: Sequence[Span], embed: Embed) -> NDArray[np.float32]:
    """The cosine distance of each sentence, with its neighbours, from the next: shape (sentences - 1,)."""
    found: list[NDArray[np.float32]] = []
    last: NDArray[np.float32] | None = None
    for at in range(0, len(parts), BATCH):
        numbers = range(at, min(at + BATCH, len(parts)))
        windows = [text[parts[max(i - 1, 0)][0] : parts[min(i + 1, len(parts) - 1)][1]] for i in numbers]
        vectors = np.asarray(embed(windows), np.float32)
        both = vectors if last is None else np.concatenate([last, vectors])
        found.append(1 - np.einsum("id,id->i", both[:-1], both[1:]))
        last = vectors[-1:]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _groups(parts: Sequence[Span], distances: NDArray[np.float32], percentile: float) -> list[list[Span]]:
    """The sentences between breaks."""
    if not len(distances):
        return [list(parts)]
    breaks = np.flatnonzero(distances > np.percentile(distances, percentile)) + 1
    ends = [0, *breaks.tolist(), len(parts)]
    return [list(parts[start:end]) for start, end in pairwise(ends) if end > start]
