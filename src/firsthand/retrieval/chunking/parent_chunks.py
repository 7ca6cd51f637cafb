"""Parents and children: small chunks are searched, and the larger chunk around each is there to be read.

The list holds both, a parent before its children. A parent's vector is not computed.
"""

from __future__ import annotations

from dataclasses import replace

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.kind_chunks import by_kind
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.chunking.text_spans import check_sizes
from firsthand.retrieval.document import Document


def parents(*, size: int = 400, overlap: int = 50, parent_size: int = 2400) -> Chunker:
    """Children of at most `size` characters in parents of at most `parent_size`, which are divided by kind.

    A parent with a single child is one chunk without either.
    """
    check_sizes(size, overlap)
    if parent_size < 2 * size:
        raise ConfigError(f"parent_size is {parent_size}: give at least {2 * size}, twice the size of a child")
    outer, inner = by_kind(size=parent_size, overlap=0), recursive(size=size, overlap=overlap)

    def chunk(document: Document) -> list[Chunk]:
        made: list[Chunk] = []
        for parent in outer(document):
            inside = inner(Document(document.id, parent.text))
            if len(inside) == 1:
                made.append(parent)
                continue
            made.append(parent)
            for child in inside:
                start, end = parent.start + child.start, parent.start + child.end
                made.append(replace(parent, start=start, end=end, text=child.text, parent=parent.id))
        return made

    return chunk


def parent_ids(chunks: list[Chunk]) -> set[str]:
    """The ids of the chunks that others name as their parent."""
    return {each.parent for each in chunks if each.parent is not None}
