"""The chunker that fits a document's kind: sections for Markdown and the like, symbols for code, paragraphs for the rest."""

from __future__ import annotations

from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.code_chunks import code
from firsthand.retrieval.chunking.markdown_chunks import markdown
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.document import Document

WITH_HEADINGS = ("markdown", "html", "docx", "epub", "notebook")
"""Kinds whose text has headings as `#` lines."""


def by_kind(*, size: int = 800, overlap: int = 100) -> Chunker:
    """Chunks by markdown, code or recursive, as the document's `meta["kind"]` says."""
    sectioned, coded = markdown(size=size, overlap=overlap), code(size=size)
    plain = recursive(size=size, overlap=overlap)

    def chunk(document: Document) -> list[Chunk]:
        kind = document.meta.get("kind")
        return (sectioned if kind in WITH_HEADINGS else coded if kind == "code" else plain)(document)

    return chunk
