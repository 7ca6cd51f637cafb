"""A floor of cosines for every hit, near-copies in scripts without blanks, and cosines of queries of any length."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpus_tiny import embedded, tiny_corpus, write_index
from firsthand.errors import ConfigError
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS, extract
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import open_corpus
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.searches import convex, lexical
from firsthand.retrieval.retrievers.selection import above, distinct

TEXTS = {"a.md": "mill mill mill\nmill wheel by the old river in town\nriver\n"}
QUERY = Query("mill")


def kept(hits: list[Hit], floor: float | None, corpus=None) -> list[str]:
    return [hit.chunk.text.split()[-1] for hit in asyncio.run(above(corpus or tiny_corpus(TEXTS), "mill", hits, floor))]


def test_a_hit_of_words_alone_has_the_cosine_of_its_vector():
    corpus = tiny_corpus(TEXTS)
    hits = list(asyncio.run(lexical(corpus)(QUERY, 9)))
    assert len(hits) == 2 and kept(hits, None) == kept(hits, -1.0) == ["mill", "town"]
    cosine = float(embedded(hits[1].chunk.text) @ embedded("query: mill"))
    assert 0 < cosine < 0.5
    assert kept(hits, cosine) == ["mill", "town"], "the floor itself is enough"
    assert kept(hits, float(np.nextafter(np.float32(cosine), np.float32(1)))) == ["mill"]
    assert asyncio.run(extract("mill", hits, corpus, floor=0.99)).text == NOT_IN_DOCUMENTS


def test_a_hit_that_the_vectors_did_not_find_among_their_first_is_left_out():
    corpus = tiny_corpus({"a.md": "\n".join(["mill"] * 3) + "\nmill wheel by the old river in town"})
    hits = list(asyncio.run(convex(corpus, pool=3)(Query("mill wheel town"), 9)))
    (odd,) = [hit for hit in hits if "town" in hit.chunk.text]
    lone = replace(odd, trail=tuple(step for step in odd.trail if step.retriever != "dense"))
    assert asyncio.run(above(corpus, "mill", [lone], 0.9)) == []


def test_a_text_that_is_no_chunk_is_embedded_and_the_order_is_kept():
    hits = [Hit(Chunk("x", 0, 4, "town"), 3.0), Hit(Chunk("y", 0, 4, "mill"), 2.0), Hit(Chunk("y", 0, 4, "mill"), 1.0)]
    assert kept(hits, 0.5) == ["mill", "mill"] and kept([], 0.5) == []


def test_one_read_of_the_corpus_takes_the_cosines_that_lack():
    reads = []

    async def effect(name, arguments, act):
        reads.append((name, arguments["query"], len(arguments["hits"])))
        return await act(arguments)

    hits = list(asyncio.run(lexical(tiny_corpus(TEXTS))(QUERY, 9)))
    corpus = tiny_corpus(TEXTS).through(effect)
    assert kept(hits, 0.5, corpus) == ["mill"] and reads == [("floor", "mill", 2)]


def test_a_floor_of_an_index_without_vectors_is_refused():
    corpus = tiny_corpus(TEXTS, vectors=False)
    hits = list(asyncio.run(lexical(corpus)(QUERY, 9)))
    with pytest.raises(
        ConfigError, match=r"^floor is 0\.5, and the index of notes has no vectors to take cosines from"
    ):
        kept(hits, 0.5, corpus)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("北京是中国的首都，也是全国的政治、文化中心，人口超过两千一百万，面积一万六千多平方公里", "吧"),
        ("東京タワーの高さは三百三十三メートルで、東京都港区にあり、色は赤と白である", "よ"),
        ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและเป็นเมืองที่มีประชากรมากที่สุดในประเทศ", "นะ"),
    ],
)
def test_near_copies_without_blanks_are_left_out(text, end):
    async def base(query, k):
        return [Hit(Chunk(str(n), 0, len(t), t), -n) for n, t in enumerate([text, text + end, text[::-1]])]

    assert [hit.chunk.document for hit in asyncio.run(distinct(base)(Query("x"), 5))] == ["0", "2"]


@pytest.mark.parametrize("times", [1.0, 5.0, 0.01, 1e-30, 1e30])
def test_the_score_of_a_vector_search_is_the_cosine_whatever_the_querys_length(tmp_path: Path, times: float):
    index = open_corpus(write_index(tmp_path / "i", TEXTS)).index
    query = embedded("mill river")
    scores = [hit.score for hit in index.search_vectors(query * np.float32(times), 9, {})]
    assert scores == pytest.approx([hit.score for hit in index.search_vectors(query, 9, {})], abs=1e-6)
    assert max(scores) <= 1.001
    assert len(index.search_vectors(np.zeros_like(query), 9, {})) == 3
