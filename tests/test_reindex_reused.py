"""Which vectors an index that is made anew keeps: those of the same text, model and prefix."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from corpus_tiny import DIMENSION, WordEmbedder, embedded, sentences_of, write_index
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.index_settings import Prepared
from firsthand.retrieval.reindex import Reindexed, reindex
from firsthand.retrieval.store.sqlite_index import open_index

TEXTS = {"a": "one two", "b": "", "c": "six"}


def whole(document: Document) -> list[Chunk]:
    return [Chunk(document.id, 0, len(document.text), document.text)] if document.text else []


@pytest.mark.slow
def test_the_same_chunks_are_embedded_again_under_another_prefix_or_model_and_not_under_another_query_prefix(
    tmp_path: Path,
) -> None:
    path = tmp_path / "i"
    with closing(open_index(path, IndexHeader("words", "words", DIMENSION, "first"))) as index:
        rows = {
            id: np.array([embedded(text)] if text else np.zeros((0, DIMENSION)), np.float32)
            for id, text in TEXTS.items()
        }
        made = [Document(id, text, f"T{id}", f"/{id}", {"n": id}) for id, text in TEXTS.items()]
        index.put([IndexedDocument(each, whole(each), rows[each.id]) for each in made])
    stored = "first"
    for header, told, asked in (
        (IndexHeader("words", "words", DIMENSION, "second", "q: "), Reindexed(3, 2, 0, 2), []),
        (IndexHeader("words", "words", DIMENSION, "third", "", "d: "), Reindexed(3, 2, 2, 0), ["d: one two", "d: six"]),
        (IndexHeader("words", "words", DIMENSION, "fourth", "q: ", "d: "), Reindexed(3, 2, 0, 2), []),
        (IndexHeader("more", "newer", DIMENSION, "fifth", "q: ", "d: "), Reindexed(3, 2, 2, 0), ["d: one two", "d: six"]),
        (IndexHeader("more", "newer", DIMENSION, "fifth", "q: ", "d: "), Reindexed(3, 2, 0, 2), []),
        (IndexHeader("more", "newer", DIMENSION, "fifth", "", ""), Reindexed(3, 2, 2, 0), ["one two", "six"]),
    ):  # fmt: skip
        embedder, seen = WordEmbedder(), list[tuple[int, int]]()

        def on_progress(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((done, total))

        assert asyncio.run(reindex(path, Prepared(header, embedder, whole), on_progress)) == told  # type: ignore[arg-type]
        assert embedder.asked == asked, header
        with closing(open_index(path, read_only=True)) as index:
            assert (
                index.header == header and index.verify() == [] and [index.document(each.id) for each in made] == made
            )
        assert seen == ([(1, 3), (2, 3), (3, 3)] if header.chunker != stored else [(2, 2)] if asked else [])
        stored = header.chunker
    alone = Prepared(IndexHeader("", "", 0, "fifth"), None, whole)
    assert asyncio.run(reindex(path, alone)) == Reindexed(3, 2, 0, 0) == asyncio.run(reindex(path, alone))
    assert sorted(each.name for each in tmp_path.iterdir() if "new" in each.name) == []


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_each_chunk_of_a_batch_of_documents_has_its_own_vector(tmp_path: Path, known: bool) -> None:
    texts = {"a": "one two\nthree", "b": "four", "c": "five\nsix six\nseven", "e": "eight\nnine"}
    path = write_index(tmp_path / "i", texts)
    close_corpora()
    embedder = WordEmbedder()
    header = IndexHeader("words", "words" if known else "newer", DIMENSION, "pieces")
    made = asyncio.run(reindex(path, Prepared(header, embedder, sentences_of)))  # type: ignore[arg-type]
    lines = [line for text in texts.values() for line in text.splitlines()]
    assert made == (Reindexed(4, 8, 0, 8) if known else Reindexed(4, 8, 8, 0))
    assert embedder.asked == ([] if known else lines)
    with closing(open_index(path, read_only=True)) as index:
        chunks = [chunk for id in texts for chunk in index.chunks(id)]
        assert [chunk.text for chunk in chunks] == lines
        expected = np.stack([embedded(line) for line in lines])
        assert np.allclose(index.vectors([chunk.id for chunk in chunks]), expected, atol=1e-3)
