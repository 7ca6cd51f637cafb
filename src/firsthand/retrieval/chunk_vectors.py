"""Vectors of chunks: those that an index holds already, and the rest computed in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from firsthand.errors import ModelError
from firsthand.loop.concurrency import in_thread
from firsthand.model import Embedder
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex, IndexHeader, Vectors
from firsthand.retrieval.chunking.parent_chunks import parent_ids


class ChunkVectors(NamedTuple):
    """A row for each chunk, zeros for parents, and where the rows came from."""

    vectors: Vectors
    embedded: int
    """Texts whose vectors were computed."""
    reused: int
    """Texts whose vectors were there."""
    truncated: int
    """Texts that are longer than the model reads, so that their ends have no part in their vectors."""


async def chunk_vectors(
    chunks: Sequence[Chunk], known_by: ChunkIndex | None, embedder: Embedder, header: IndexHeader
) -> ChunkVectors:
    """The vectors of chunks under the header's document prefix.

    `known_by` is an index of the same embedder and prefix, or None. ModelError if the embedder gives another dimension.
    """
    parents = parent_ids(list(chunks))
    texts = list(dict.fromkeys(each.indexed_text for each in chunks if each.id not in parents))
    known: dict[str, Any] = {}
    if known_by is not None:
        index = known_by
        known |= await in_thread(lambda: index.known_vectors(texts))
    missing = [text for text in texts if text not in known]
    truncated = 0
    if missing:
        made = await embedded(embedder, [header.document_prefix + text for text in missing])
        computed, truncated = np.asarray(made.vectors, np.float32), sum(made.truncated)
        if computed.shape != (len(missing), header.dimension):
            raise ModelError(
                f"{embedder.name} gave vectors of shape {computed.shape}, and {len(missing), header.dimension} was expected"
            )
        known |= dict(zip(missing, computed, strict=True))
    zeros = np.zeros(header.dimension, np.float32)
    rows = [zeros if each.id in parents else known[each.indexed_text] for each in chunks]
    vectors = np.stack(rows).astype(np.float32) if rows else np.zeros((0, header.dimension), np.float32)
    return ChunkVectors(vectors, len(missing), len(texts) - len(missing), truncated)


class TextVectors(NamedTuple):
    """The vectors of texts, and which of them were cut."""

    vectors: Any
    truncated: Sequence[bool]


async def embedded(embedder: Embedder, texts: Sequence[str]) -> TextVectors:
    """The vectors of texts; without a detour over lists where the embedder gives an array."""
    counted = getattr(embedder, "embed_counted", None)
    if counted is not None:
        made = await counted(texts)
        return TextVectors(made.vectors, made.truncated)
    return TextVectors(await embedder.embed(texts), ())


def blocking_embed(embedder: Embedder) -> Callable[[Sequence[str]], Vectors]:
    """The embedder as a function that blocks, for chunkers, which run in a thread."""

    async def vectors(texts: Sequence[str]) -> Vectors:
        return np.asarray((await embedded(embedder, texts)).vectors, np.float32)

    return lambda texts: asyncio.run(vectors(texts))
