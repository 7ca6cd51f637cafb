"""Hits whose text or document's name a guard replaced, or whose document was deleted since: every retriever goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from corpus_tiny import MemoryIndex, WordEmbedder
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Act, Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.retrievers.best_sentence import rerank_by_sentence
from firsthand.retrieval.retrievers.context_windows import neighbours, parents
from firsthand.retrieval.retrievers.searches import dense
from firsthand.retrieval.retrievers.selection import mmr, per_source

SECRET = "ann"
TEXTS = {"ann-1.md": "mill river ann", "ann-2.md": "mill river", "c.md": "mill oak"}
RETRIEVERS: dict[str, Callable[[Retriever, Corpus], Retriever]] = {
    "mmr": lambda found, corpus: mmr(found, corpus),
    "source": lambda found, corpus: per_source(found, corpus, by="source"),
    "title": lambda found, corpus: per_source(found, corpus, by="title"),
    "neighbours": neighbours,
    "parents": parents,
    "sentences": rerank_by_sentence,
}


def corpus_of(field: str = "") -> Corpus:
    """Three documents, the first two of one source; a guard redacts the secret in a field of what is read."""
    documents = [Document(id, text, source=id.split("-")[0], title=id[-4]) for id, text in TEXTS.items()]
    chunks = []
    for each in documents:
        whole = Chunk(each.id, 0, len(each.text), each.text, meta={"role": "parent"})
        chunks += [whole, Chunk(each.id, 0, len(each.text) - 1, each.text[:-1], parent=whole.id)]

    async def effect(name: str, arguments: Json, act: Act) -> Sequence[Json]:
        items = await act(arguments)
        return [{**each, field: each[field].replace(SECRET[:2], "[redacted]")} if field else each for each in items]

    return Corpus(MemoryIndex(documents, chunks), WordEmbedder(), effect=effect)  # type: ignore[arg-type]


def deleted_after(retriever: Retriever, corpus: Corpus, *ids: str) -> Retriever:
    """The retriever, after whose search these documents are deleted."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = await retriever(query, k)
        index: Any = corpus.index
        index.all = [chunk for chunk in index.all if chunk.document not in ids]
        index.documents = {id: document for id, document in index.documents.items() if id not in ids}
        return hits

    return found


def searched(retriever: Retriever, k: int = 5) -> list[Hit]:
    return list(asyncio.run(retriever(Query("mill river"), k)))


@pytest.mark.parametrize("field", ["text", "document"])
@pytest.mark.parametrize("name", list(RETRIEVERS))
def test_a_retriever_goes_on_with_hits_that_a_guard_redacted(name: str, field: str) -> None:
    corpus = corpus_of(field)
    hits = searched(RETRIEVERS[name](dense(corpus), corpus))
    assert len(hits) == 3 and SECRET not in " ".join(str(hit_to_json(hit)[field]) for hit in hits)


@pytest.mark.parametrize("field", ["", "text", "document"])
@pytest.mark.parametrize("name", list(RETRIEVERS))
def test_a_retriever_goes_on_with_hits_whose_document_was_deleted_since(name: str, field: str) -> None:
    corpus = corpus_of(field)
    found = deleted_after(dense(corpus), corpus, "ann-1.md", "c.md")
    assert len(searched(RETRIEVERS[name](found, corpus))) == 3


def test_redacted_hits_are_ordered_by_the_vectors_of_the_index() -> None:
    plain, corpus = corpus_of(), corpus_of("text")
    expected = [hit.score for hit in searched(mmr(dense(plain), plain))]
    assert [hit.score for hit in searched(mmr(dense(corpus), corpus))] == expected
    assert corpus.embedder.asked == ["query: mill river"] * 2  # type: ignore[union-attr]


def test_hits_that_are_no_chunks_of_the_index_are_embedded_for_mmr_and_others_are_not() -> None:
    corpus = corpus_of()
    hits = searched(mmr(deleted_after(dense(corpus), corpus, "c.md"), corpus))
    assert corpus.embedder.asked == ["query: mill river"] * 2 + ["mill oa"]  # type: ignore[union-attr]
    plain = corpus_of()
    assert [(hit.chunk, hit.score) for hit in hits] == [
        (hit.chunk, hit.score) for hit in searched(mmr(dense(plain), plain))
    ]


def test_a_source_is_capped_whether_or_not_the_names_of_its_documents_were_redacted() -> None:
    for field in ("", "text", "document"):
        corpus = corpus_of(field)
        kept = searched(per_source(dense(corpus), corpus, by="source", most=1))
        assert len(kept) == 2 and kept[-1].chunk.text == "mill oa", "one of the two of Ann's"
    corpus = corpus_of("document")
    gone = deleted_after(dense(corpus), corpus, *TEXTS)
    assert len(searched(per_source(gone, corpus, by="source", most=1))) == 3, "each document counts for itself"


def test_a_hit_keeps_the_id_it_was_found_with_through_any_number_of_reads() -> None:
    hit = Hit(Chunk("d", 0, 4, "mill"), 1.0)
    assert hit.id == hit.chunk.id and hit_from_json(hit_to_json(hit)) == hit
    once = hit_from_json({**hit_to_json(hit), "text": "[redacted]"})
    assert once.id == hit.id != once.chunk.id
    again = hit_from_json({**hit_to_json(once), "document": "[redacted]"})
    assert again.id == hit.id and hit_to_json(again)["id"] == hit.id
    without = hit_to_json(hit)
    del without["id"]
    assert hit_from_json(without) == hit


def test_what_is_read_anew_has_its_own_id() -> None:
    corpus = corpus_of()
    child = next(each for each in corpus.index.chunks("c.md") if each.parent)
    hit = hit_from_json({**hit_to_json(Hit(child, 1.0)), "text": "[redacted]"})

    async def found(query: Query, k: int) -> Sequence[Hit]:
        return [hit]

    for retriever in (parents(found, corpus), neighbours(found, corpus)):
        (read,) = searched(retriever)
        assert read.found_as == "" and read.id == read.chunk.id
